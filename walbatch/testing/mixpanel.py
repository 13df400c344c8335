"""The fake Mixpanel: answers as the real one does, keeps what it accepts, and fails when told to.

    fake = FakeMixpanel(out=Path("accepted.ndjson"))
    async with serve_fake(fake) as url:
        ...                     # send to `url`
        fake.fail_rate = 1.0    # from now on every request gets a 503
    assert len(fake.data().deduplicated()) == 3

What it accepts is in the file, and fsynced, before the answer leaves: the file can be compared with what the sender
was told, whatever was killed in between. `walbatch sink` runs it. docs/fake-mixpanel.md tells the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import random
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from walbatch import http_server
from walbatch.clock import Clock, SystemClock
from walbatch.sinks.mixpanel import Reply
from walbatch.testing import export
from walbatch.testing.edge import Edge
from walbatch.testing.exchange import (
    NO_DATA,
    RATE_LIMITED,
    Content,
    NotUnderstood,
    Sent,
    Spelling,
    TooLarge,
    error_reply,
    import_reply,
    read,
    track_reply,
    update_reply,
)
from walbatch.testing.faults import EXPORT, NO_ANSWER, OK, Fault, Manner, Status
from walbatch.testing.limits import RollingMinute
from walbatch.testing.projects import API_HOSTS, Directory, Project, Refused, Region, ServiceAccount
from walbatch.testing.script import Director, Script
from walbatch.testing.store import Arrival, ProjectData
from walbatch.testing.validator import MAX_RECORDS, Failure, Received, event_failure
from walbatch.testing.verdict import import_verdict, track_verdict, update_verdict

MAX_BYTES = 10 * 1024 * 1024
"""10 MB of unpacked body. Mixpanel's own sample of a 413 names 2,097,152 bytes."""


class FakeMixpanel:
    """One region's edge of Mixpanel, as an ASGI application in `app`. Its public attributes can be changed any time.

    Without `projects` there is one. With a `token`, or a `service_account` as "user:secret", imports into it need
    exactly these credentials; without, any do, and any token.
    """

    def __init__(
        self,
        out: Path | None = None,
        *,
        fail_rate: float = 0.0,
        status: int = 503,
        latency_s: float = 0.0,
        seed: int | None = None,
        token: str = "",
        service_account: str = "",
        id_mode: Literal["original", "simplified"] = "original",
        projects: Sequence[Project] = (),
        region: Region = "us",
        faults: Script | None = None,
        spelling: Spelling | None = None,
        max_bytes: int = MAX_BYTES,
        max_updates: int = MAX_RECORDS,
        max_group_updates: int = MAX_RECORDS,
        max_events_per_minute: int = 0,
        max_bytes_per_minute: int = 0,
        gzip_updates: bool = False,
        keep: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self.out = out
        self.fail_rate = fail_rate
        """The share of requests that get `status` before anything of them is accepted."""
        self.status = status
        self.latency_s = latency_s
        """How long every request waits, before anything of it is accepted."""
        self.token = token
        self.service_account = service_account
        self.id_mode = id_mode
        self.projects = projects
        self.region: Region = region
        """The region whose edge this is: projects of the others are not seen."""
        self.spelling = spelling or Spelling()
        self.max_bytes = max_bytes
        self.max_updates = max_updates
        self.max_group_updates = max_group_updates
        self.max_events_per_minute = max_events_per_minute
        """For each project, sent to /import and /track within a minute; 0 is no limit."""
        self.max_bytes_per_minute = max_bytes_per_minute
        self.gzip_updates = gzip_updates
        """Whether /engage and /groups know gzip. The documentation says that they do not."""
        self.script: deque[Reply] = deque()
        """Replies to the next requests, before all else; nothing of those requests is accepted."""
        self.keep = keep
        """Whether records stay in memory, for `records`, `data` and the export."""
        self.records: list[tuple[str, dict[str, Any]]] = []
        """What was accepted, as (endpoint, record). Empty without `keep`."""
        self.requests: Counter[str] = Counter()
        """Requests by endpoint."""
        self.answers: Counter[int] = Counter()
        """Answers by status; a connection that was reset is none."""
        self.accepted: Counter[str] = Counter()
        """Accepted records by endpoint."""
        self.lost: Counter[str] = Counter()
        """Records by endpoint that were answered a success and dropped."""
        self.play(faults or Script())
        self._random = random.Random(seed)
        self._letters = random.Random(seed)
        self._clock = clock or SystemClock()
        self._data: dict[int, ProjectData] = {}
        self._minutes: dict[int, RollingMinute] = {}
        self._appending = threading.Lock()
        self.app = Edge(self._answer, self._clock)

    def play(self, script: Script) -> None:
        """Play a script of faults from its beginning. `script.load_script` reads one from a file."""
        self._director = Director(script)

    def data(self, project_id: int | None = None) -> ProjectData:
        """Return what a project accepted: events, profiles, groups, links of ids. Empty without `keep`.

        The id may be left out if there is one project. Raises: KeyError if there is no such project.
        """
        projects = {project.id: project for project in self._projects()}
        wanted = next(iter(projects)) if project_id is None and len(projects) == 1 else project_id
        if wanted not in projects:
            raise KeyError(f"project_id must be one of {sorted(projects)}")
        return self._data_of(projects[wanted])

    async def _answer(self, sent: Sent, sender: str) -> tuple[Reply, Fault]:
        self.requests[sent.path] += 1
        reply, fault = await self._directed(sent, sender)
        if fault.manner is not Manner.RESET:
            self.answers[reply.status] += 1
        return reply, fault

    async def _directed(self, sent: Sent, sender: str) -> tuple[Reply, Fault]:
        await self._wait(self.latency_s)
        if self.script:
            return self.script.popleft(), OK
        fault = self._fault(sent.path)
        await self._wait(fault.before_s)
        processed = await self._process(sent, sender) if fault.processes else NO_ANSWER
        reply = fault.altered(processed, self._clock.wall_ms())
        await self._wait(fault.after_s)
        if sent.path == EXPORT and export.worth_packing(reply, sent.headers.get("accept-encoding", "")):
            reply = Reply(200, {**reply.headers, "content-encoding": "gzip"}, gzip.compress(reply.body, mtime=0))
        return reply, fault

    def _fault(self, path: str) -> Fault:
        if path != EXPORT and self._random.random() < self.fail_rate:
            return Status(status=self.status)
        return self._director.next(path, self._clock.monotonic_s())

    async def _wait(self, seconds: float) -> None:
        if seconds:
            await self._clock.wait(asyncio.Event(), seconds)

    async def _process(self, sent: Sent, sender: str) -> Reply:
        directory = Directory(self._projects(), self.region)
        arrival = Arrival(sent.path, self._clock.wall_ms(), sender)
        project_id = sent.params.get("project_id", "")
        try:
            if sent.path == EXPORT:
                return await self._export(sent, directory.exporter(sent.basic(), project_id))
            importer = directory.importer(sent.basic(), project_id) if sent.path == "/import" else None
            content = read(sent, self.max_bytes, gzip_updates=self.gzip_updates)
        except Refused as refused:
            return export.refusal(401, str(refused)) if sent.path == EXPORT else error_reply(401, str(refused))
        except TooLarge:
            return error_reply(413, f"request exceeds max limit of {self.max_bytes} bytes")
        except NotUnderstood as error:
            return error_reply(400, NO_DATA) if importer else track_reply(error.params, Failure("data", NO_DATA))
        limit = {"/engage": self.max_updates, "/groups": self.max_group_updates}.get(sent.path, MAX_RECORDS)
        if len(content.records) > limit:
            return error_reply(400, f"request exceeds max limit of {limit} records")
        if importer:
            return await self._import(content, importer, arrival)
        if sent.path == "/track":
            return await self._track(content, directory, arrival)
        return await self._update(content, directory, arrival)

    async def _import(self, content: Content, project: Project, arrival: Arrival) -> Reply:
        if self._over_rate((project, record) for record in content.records):
            return error_reply(429, RATE_LIMITED)
        judge = partial(event_failure, now_ms=arrival.at_ms, strict=content.strict)
        verdict = import_verdict(content.records, project, judge)
        await self._accept(arrival, verdict.taken, verdict.lost)
        counted = len(verdict.taken) + (verdict.lost if self.spelling.count_ignored else 0)
        return import_reply(content, verdict.failures, counted, self.spelling)

    async def _track(self, content: Content, directory: Directory, arrival: Arrival) -> Reply:
        homes = [(directory.by_token(one.properties().get("token")), one) for one in content.records]
        if self._over_rate((home, record) for home, record in homes if home):
            return error_reply(429, RATE_LIMITED)
        verdict = track_verdict(content.records, directory, arrival.at_ms)
        await self._accept(arrival, verdict.taken, verdict.lost)
        return track_reply(content.params, verdict.first())

    async def _update(self, content: Content, directory: Directory, arrival: Arrival) -> Reply:
        group = arrival.endpoint == "/groups"
        verdict = update_verdict(content.records, directory, group=group, is_full=self._is_full)
        await self._accept(arrival, verdict.taken, verdict.lost)
        return update_reply(content, verdict.failures, self.spelling)

    async def _export(self, sent: Sent, project: Project) -> Reply:
        if not self.keep:
            return export.refusal(400, "nothing is kept in memory; start with keep=True, or `walbatch sink --keep`")
        try:
            query = export.Query.of(sent.params)
        except ValueError as error:
            return export.refusal(400, str(error))
        events = self._data_of(project).events()
        lines = await asyncio.to_thread(export.body, events, query, API_HOSTS[self.region])
        return Reply(200, {"content-type": "text/plain"}, lines)

    def _over_rate(self, records: Iterable[tuple[Project, Received]]) -> bool:
        """Count a request against its projects' minutes, unless one of them is over its limit."""
        if not self.max_events_per_minute and not self.max_bytes_per_minute:
            return False
        now_s = self._clock.monotonic_s()
        events, sizes = Counter[int](), Counter[int]()
        for project, record in records:
            events[project.id] += 1
            sizes[project.id] += record.size()
        minutes = {one: self._minutes.setdefault(one, RollingMinute()) for one in events}
        limits = {"max_events": self.max_events_per_minute, "max_bytes": self.max_bytes_per_minute}
        if not all(minute.has_room(now_s, **limits) for minute in minutes.values()):
            return True
        for one, minute in minutes.items():
            minute.take(now_s, events[one], sizes[one])
        return False

    async def _accept(self, arrival: Arrival, taken: Sequence[tuple[Project, Received]], lost: int) -> None:
        """Keep records: durably first, if there is a file."""
        if self.out and taken:
            lines = "".join(f'{{"endpoint": "{arrival.endpoint}", "record": {one.line()}}}\n' for _, one in taken)
            await asyncio.to_thread(self._append, self.out, lines.encode())
        if self.keep:
            self.records.extend((arrival.endpoint, one.value) for _, one in taken)
            for project, one in taken:
                self._data_of(project).add(one, arrival)
        self.accepted[arrival.endpoint] += len(taken)
        self.lost[arrival.endpoint] += lost

    def _append(self, out: Path, lines: bytes) -> None:
        with out.open("ab") as file:
            with self._appending:
                file.write(lines)
                file.flush()
            os.fsync(file.fileno())  # outside the lock, so that the file system can make one of several

    def _projects(self) -> Sequence[Project]:
        if self.projects:
            return self.projects
        user, colon, secret = self.service_account.partition(":")
        accounts = (ServiceAccount(user, secret),) if colon else ()
        return (Project(0, self.token, "", accounts, self.region, self.id_mode),)

    def _data_of(self, project: Project) -> ProjectData:
        return self._data.setdefault(project.id, ProjectData(project, self._letters))

    def _is_full(self, project: Project, record: Received) -> bool:
        return self._data_of(project).is_full_for(record)


@contextlib.asynccontextmanager
async def serve_fake(fake: FakeMixpanel, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve a fake on a real socket in this event loop, and yield its base URL. Port 0 takes any free one.

    Raises: OSError if the address cannot be had.
    """
    listener = http_server.listen(host, port)
    async with http_server.serve(fake.app, listener):
        yield f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
