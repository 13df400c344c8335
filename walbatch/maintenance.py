"""What can be asked of a log besides taking and delivering records, in the words of the admin port.

    /replay          send stored records again, or say what that would be
    /dead/replay     send dead letters again, as they are or corrected
    /dead/discard    give dead letters up
    /erase           delete everything that belongs to a person, or say what that would be
    /pause           hold delivery to a destination back, or to all of them; records are accepted as before
    /resume          let it go on
    /flush           deliver what waits now, and ask a destination that is backing off at once

Commands ask the same of a log of their own while nobody serves it. Of the first four one runs at a time, so that no
letter is sent twice by two people who meant the same. The others never wait.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from walbatch import dead, erasure, json_text, replay
from walbatch.clock import Clock
from walbatch.errors import InvalidRecord, WalbatchError
from walbatch.person import bare
from walbatch.stats import rfc3339
from walbatch.wal import DestinationBacklog, store
from walbatch.wal.dead_letters import Choice
from walbatch.wal.selection import Selection
from walbatch.wal.sqlite import SqliteLog

log = structlog.stdlib.get_logger("walbatch.maintenance")

Reports = AsyncGenerator[dict[str, Any], None]
"""What is told while something is done: JSON-ready."""


class BadRequest(WalbatchError):
    """What was asked makes no sense. The text names the field."""


class Busy(WalbatchError):
    """Something else is being done to the log. Try again when it is done."""


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class ReplayRequest(_Request):
    """Body of /replay. The destination may be missing if the log has only one."""

    destination: str | None = None
    selection: Selection
    dry_run: bool = True
    """Whether to count only."""


class DeadReplayRequest(_Request):
    """Body of /dead/replay."""

    destination: str
    choice: Choice
    patch: str | None = None
    """A JSON merge patch, as text: what it says is not to be rounded on the way."""
    documents: dict[int, str] = Field(default_factory=dict)


class DeadDiscardRequest(_Request):
    """Body of /dead/discard. `expected` is how many letters the person was told."""

    destination: str
    choice: Choice
    expected: int


class EraseRequest(_Request):
    """Body of /erase. The ids are those of the persons."""

    ids: list[str] = Field(min_length=1)
    dry_run: bool = True
    """Whether to count only."""
    delete_copies: bool = False
    """Whether to delete other databases in the data directory as well."""


class DeliveryRequest(_Request):
    """Body of /pause, /resume and /flush. No destination means every one."""

    destination: str | None = None


class Maintenance:
    """Does what is asked of one log. `ask_now` asks a destination at once; without a server there is nobody to ask."""

    def __init__(self, log: SqliteLog, clock: Clock, ask_now: Callable[[str], None] = lambda _: None) -> None:
        self._log = log
        self._clock = clock
        self._ask_now = ask_now
        self._busy = False
        self.operations: Mapping[str, tuple[type[_Request], Callable[[Any], Reports]]] = {
            "/replay": (ReplayRequest, self._alone(self._replay)),
            "/dead/replay": (DeadReplayRequest, self._alone(self._replay_dead)),
            "/dead/discard": (DeadDiscardRequest, self._alone(self._discard_dead)),
            "/erase": (EraseRequest, self._alone(self._erase)),
            "/pause": (DeliveryRequest, self._pause),
            "/resume": (DeliveryRequest, self._resume),
            "/flush": (DeliveryRequest, self._flush),
        }

    def start(self, path: str, body: bytes) -> Reports:
        """Return the reports of what `path` and a JSON body ask for; it is done while they are read.

        Reading them raises what stopped it, such as `Unavailable` or `WhichDestination`.

        Raises:
            BadRequest: as it says.
        """
        model, run = self.operations[path]
        try:
            request = model.model_validate_json(body)
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, e["loc"])) or "body" for e in error.errors(include_input=False))
            raise BadRequest(f"not a request for {path}: {fields}") from None
        return run(request)

    def _alone(self, run: Callable[[Any], Reports]) -> Callable[[Any], Reports]:
        """Return the same for one at a time."""

        async def alone(request: _Request) -> Reports:
            if self._busy:
                raise Busy("another replay, discard or erasure is at work; try again when it is done")
            self._busy = True
            try:
                async with aclosing(run(request)) as reports:
                    async for report in reports:
                        yield report
            finally:
                self._busy = False

        return alone

    async def _replay(self, request: ReplayRequest) -> Reports:
        destination = await self._destination(request.destination)
        if request.dry_run:
            yield asdict(await replay.plan(self._log, destination, request.selection))
            return
        async for done in replay.replay(self._log, destination, request.selection, self._clock):
            yield {"replayed": done}

    async def _replay_dead(self, request: DeadReplayRequest) -> Reports:
        destination = await self._destination(request.destination)
        try:
            patch = None if request.patch is None else json_text.parse(request.patch, "patch")
        except InvalidRecord as error:
            raise BadRequest(str(error)) from error
        corrections = dead.Corrections(patch, request.documents)
        async for progress in dead.replay(self._log, self._clock, destination, request.choice, corrections):
            yield asdict(progress)

    async def _discard_dead(self, request: DeadDiscardRequest) -> Reports:
        destination = await self._destination(request.destination)
        async for done in dead.discard(self._log, destination, request.choice, request.expected):
            yield {"discarded": done}

    async def _erase(self, request: EraseRequest) -> Reports:
        people = frozenset(bare(one) for one in request.ids) - {""}
        if not people:
            raise BadRequest("ids: has none that could be a person's")
        if request.dry_run:
            yield asdict(await erasure.plan(self._log, people))
            return
        async for report in erasure.erase(self._log, self._clock, people, delete_copies=request.delete_copies):
            yield asdict(report)

    async def _pause(self, request: DeliveryRequest) -> Reports:
        for name in await self._meant(request):
            changed = await self._log.pause(name, self._clock.wall_ms())
            yield await self._told("maintenance.paused", name, changed=changed)

    async def _resume(self, request: DeliveryRequest) -> Reports:
        for name in await self._meant(request):
            changed = await self._log.pause(name, None)
            yield await self._told("maintenance.resumed", name, changed=changed)

    async def _flush(self, request: DeliveryRequest) -> Reports:
        for name in await self._meant(request):
            due = self._log.make_due(name)
            self._ask_now(name)
            yield await self._told("maintenance.flushed", name, due=due)

    async def _meant(self, request: DeliveryRequest) -> Collection[str]:
        known = await self._standing()
        if request.destination is None and known:
            return known.keys()
        return [replay.destination_of(known, request.destination)]

    async def _told(self, event: str, name: str, **facts: int) -> dict[str, Any]:
        """Return the report of what was done to a destination, and log it."""
        log.info(event, destination=name, **facts)
        now = (await self._standing())[name]
        return {
            "destination": name,
            "state": now.condition.state.value,
            "paused_at": None if now.paused_at_ms is None else rfc3339(now.paused_at_ms),
            "pending": sum(lane.pending for lane in now.lanes),
            **facts,
        }

    async def _standing(self) -> dict[str, DestinationBacklog]:
        return {one.name: one for one in (await self._log.backlog()).destinations}

    async def _destination(self, named: str | None) -> str:
        return replay.destination_of(await self._log.read(store.destinations), named)
