"""What can be asked of a log besides taking and delivering records, in the words of the admin port.

    /replay          send stored records again, or say what that would be
    /dead/replay     send dead letters again, as they are or corrected
    /dead/discard    give dead letters up
    /erase           delete everything that belongs to a person, or say what that would be

Commands ask the same of a log of their own while nobody serves it. One of these runs at a time, so that no letter is
sent twice by two people who meant the same.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from walbatch import dead, erasure, json_text, replay
from walbatch.clock import Clock
from walbatch.errors import InvalidRecord, WalbatchError
from walbatch.person import bare
from walbatch.wal import store
from walbatch.wal.dead_letters import Choice
from walbatch.wal.selection import Selection
from walbatch.wal.sqlite import SqliteLog

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


class Maintenance:
    """Does what is asked of one log."""

    def __init__(self, log: SqliteLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._busy = False
        self.operations: Mapping[str, tuple[type[_Request], Callable[[Any], Reports]]] = {
            "/replay": (ReplayRequest, self._replay),
            "/dead/replay": (DeadReplayRequest, self._replay_dead),
            "/dead/discard": (DeadDiscardRequest, self._discard_dead),
            "/erase": (EraseRequest, self._erase),
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
        return self._alone(run(request))

    async def _alone(self, reports: Reports) -> Reports:
        if self._busy:
            raise Busy("another replay, discard or erasure is at work; try again when it is done")
        self._busy = True
        try:
            async with aclosing(reports):
                async for report in reports:
                    yield report
        finally:
            self._busy = False

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

    async def _destination(self, named: str | None) -> str:
        return replay.destination_of(await self._log.read(store.destinations), named)
