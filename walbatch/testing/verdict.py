"""What becomes of the records of a request: refused, taken by a project, or lost behind a success. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from walbatch.testing.projects import Directory, Project
from walbatch.testing.updates import MAX_PROPERTIES, update_failure
from walbatch.testing.validator import (
    Failure,
    Received,
    dropped_by_track,
    identity_failure,
    ignored,
    track_failure,
    with_derived_id,
)


@dataclass(slots=True)
class Verdict:
    """The records of a request, sorted. `failures` are by position in the request."""

    failures: dict[int, Failure] = field(default_factory=dict)
    taken: list[tuple[Project, Received]] = field(default_factory=list)
    lost: int = 0
    """Neither taken nor named in the answer: a stranger's token, too old for /track, `$ignore`."""

    def add(self, index: int, record: Received, failure: Failure | None, project: Project | None) -> None:
        """Sort one record in; without a project it is lost."""
        if failure:
            self.failures[index] = failure
        elif project is None:
            self.lost += 1
        else:
            self.taken.append((project, record))

    def first(self) -> Failure | None:
        """Return the first failure, if there is one."""
        return next(iter(self.failures.values()), None)


def import_verdict(
    records: Sequence[Received], project: Project, judge: Callable[[Received], Failure | None]
) -> Verdict:
    """Sort events that were sent to /import. `judge` judges all but those that link ids."""
    verdict = Verdict()
    for index, record in enumerate(records):
        if record.is_identity():
            failure = identity_failure(record, by_import=True, simplified=project.simplified)
        else:
            failure = judge(with_derived_id(record) if project.simplified else record)
        verdict.add(index, record, failure, None if ignored(record) else project)
    return verdict


def track_verdict(records: Sequence[Received], directory: Directory, now_ms: int) -> Verdict:
    """Sort events that were sent to /track."""
    verdict = Verdict()
    for index, record in enumerate(records):
        project = directory.by_token(record.properties().get("token"))
        failure = track_failure(record)
        if not failure and record.is_identity():
            failure = identity_failure(record, by_import=False, simplified=bool(project and project.simplified))
        dropped = ignored(record) or dropped_by_track(record, now_ms)
        verdict.add(index, record, failure, None if dropped else project)
    return verdict


def update_verdict(
    records: Sequence[Received], directory: Directory, *, group: bool, is_full: Callable[[Project, Received], bool]
) -> Verdict:
    """Sort profile or group updates. `is_full` says whether the profile has no room for one."""
    verdict = Verdict()
    for index, record in enumerate(records):
        failure = update_failure(record, group=group)
        project = None if failure else directory.by_token(record.value.get("$token"))
        if project and is_full(project, record):
            failure = Failure("update", f"profile, must have at most {MAX_PROPERTIES} properties")
        verdict.add(index, record, failure, project)
    return verdict
