"""The checker of the fault tests, after Jepsen's total-queue: what went in against what came out, at the end.

Three independent accounts are compared: what each client wrote down of itself (`attempt ID`, `ack ID` a line), what the
destination wrote down, and what is stored, read by a process of its own (read_stored.py). Pure: texts in, sets out.
`settled.settled_account` gathers them at the end of a scenario.

lost         acknowledged, and neither delivered nor a dead letter   must be empty
unexpected   delivered or stored, and never attempted                must be empty
altered      copies that differ                                      must be empty
disordered   ids whose updates came in another order than            must be empty
             they were acknowledged
recovered    attempted without an answer, and delivered              allowed: the outcome was unknown
duplicated   delivered more than once, byte for byte the same        allowed, as often as was bargained for
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SOME = 5
"""As many ids are named in a complaint."""


@dataclass(frozen=True)
class Verdict:
    """Sets of ids of records; those of `disordered` are the distinct ids of profiles."""

    attempted: set[str]
    acked: set[str]
    lost: set[str]
    unexpected: set[str]
    recovered: set[str]
    duplicated: set[str]
    altered: set[str]
    disordered: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    pending: set[str] = field(default_factory=set)
    """Stored, and still owed to a destination."""
    repeats: int = 0
    """How many deliveries there were beyond the first of each record."""

    def summary(self) -> str:
        """Return the counts in a line."""
        counts = {name: value if isinstance(value, int) else len(value) for name, value in vars(self).items()}
        return ", ".join(f"{name} {count}" for name, count in counts.items())

    def counts(self) -> dict[str, int]:
        """Return the columns of a row of the fault matrix that a verdict fills."""
        return {"acked": len(self.acked), "lost": len(self.lost), "duplicated": len(self.duplicated)}

    def losses(self) -> str:
        """Return how much a negative control lost, for its column of the fault matrix."""
        return f"{len(self.lost):,} of {len(self.acked):,} lost"

    def complaints(self, *, most_repeats: int | None = None) -> list[str]:
        """Return what is wrong, in words; nothing if every promise was kept.

        `most_repeats` is how many records may have come again: of each crash, the batches that were in flight.
        """
        found = [
            f"{len(ids)} {name}: {', '.join(sorted(ids)[:SOME])}"
            for name in ("lost", "unexpected", "altered", "disordered")
            if (ids := getattr(self, name))
        ]
        if most_repeats is not None and self.repeats > most_repeats:
            found.append(f"{self.repeats} deliveries of what had been delivered, which may be {most_repeats}")
        return found


def update_id(distinct_id: str, version: int) -> str:
    """Return the id of a profile update that sets `version`, as the clients give it, and as it is known again by."""
    return f"{distinct_id}#{version}"


def judge(
    client_logs: Iterable[str], delivered_lines: Iterable[str], stored: Iterable[Mapping[str, Any]] = ()
) -> Verdict:
    """Compare the logs of the clients with the file of the fake Mixpanel, and with what is stored (`id`, `status`)."""
    attempted: set[str] = set()
    acks: list[str] = []
    for log in client_logs:
        for line in log.splitlines():
            word, _, record_id = line.partition(" ")
            if word == "ack":
                acks.append(record_id)
            else:
                attempted.add(record_id)
    copies: defaultdict[str, list[str]] = defaultdict(list)
    arrivals: list[str] = []
    for line in delivered_lines:
        record_id = id_of(json.loads(line)["record"])
        copies[record_id].append(line)
        arrivals.append(record_id)
    by_status: defaultdict[str, set[str]] = defaultdict(set)
    for row in stored:
        by_status[row["status"]].add(row["id"])
    acked, delivered = set(acks), copies.keys()
    dead = by_status["dead"] | by_status["held"]
    return Verdict(
        attempted=attempted,
        acked=acked,
        lost=acked - delivered - dead,
        unexpected=(delivered | set().union(*by_status.values())) - attempted,
        recovered=(attempted - acked) & delivered,
        duplicated={record_id for record_id, lines in copies.items() if len(lines) > 1},
        altered={record_id for record_id, lines in copies.items() if len(set(lines)) > 1},
        disordered=set(_disordered(acks, arrivals)),
        dead=dead,
        pending=by_status["pending"],
        repeats=len(arrivals) - len(copies),
    )


def id_of(record: Mapping[str, Any]) -> str:
    """Return the id by which a delivered record is known to the clients: of an event, or of an update."""
    if "properties" in record:
        return str(record["properties"]["$insert_id"])
    return update_id(record["$distinct_id"], record["$set"]["version"])


def _disordered(acks: Sequence[str], arrivals: Sequence[str]) -> Iterator[str]:
    """Yield whose updates did not come as they were acknowledged: the first copy of each, and the last one too.

    Only what was acknowledged has a place: a call without an answer may take effect at any time after it. The last
    copies are what a profile is left with.
    """
    acked = _updates(dict.fromkeys(acks))
    known = {record_id for ids in acked.values() for record_id in ids}
    arrived = [record_id for record_id in arrivals if record_id in known]
    first = _updates(dict.fromkeys(arrived))
    last = _updates(list(dict.fromkeys(reversed(arrived)))[::-1])
    for distinct_id, ids in acked.items():
        came = set(first.get(distinct_id, ()))
        wanted = [record_id for record_id in ids if record_id in came]
        if first.get(distinct_id, []) != wanted or last.get(distinct_id, []) != wanted:
            yield distinct_id


def _updates(record_ids: Iterable[str]) -> dict[str, list[str]]:
    """Return the updates of each profile, in the order given. Everything else is left out."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for record_id in record_ids:
        distinct_id, sign, _ = record_id.rpartition("#")
        if sign:
            found[distinct_id].append(record_id)
    return found
