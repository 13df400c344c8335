"""What one commit stores: planned in the event loop, run in the writer's thread, answered after the COMMIT."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import NamedTuple

from walbatch.batching import byte_length
from walbatch.errors import InvalidRecord, without_frames
from walbatch.event import Kind, Offset, Record
from walbatch.routing import Router
from walbatch.wal import ORDERED, Appended, Batch, Lane, Settlement, dead_letters, erasure, intents, store
from walbatch.wal.driver import Connection
from walbatch.wal.erasure import Found, Quote
from walbatch.wal.lanes import LaneState, Run, runs
from walbatch.wal.purge import Purged, purge
from walbatch.wal.recent import Key, RecentIds, key_of
from walbatch.wal.tombstones import Tombstone

ROW_BYTES = 256
"""What a row takes besides its payload, in memory and on disk, roughly."""

PURGED_BEYOND = 128
"""Beside new records a purge looks at as many as they are, and at so many more at most: nobody waits for a long one."""


@dataclass(frozen=True, slots=True)
class Purge:
    """Of `size` records behind an offset delete those that were received before a time and are settled everywhere.

    Beside new records it looks at fewer: see `PURGED_BEYOND`.
    """

    before_ms: int
    after: int
    size: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Close the open dead letters of these records at one destination: they will never be sent there."""

    destination: str
    offsets: Sequence[Offset]
    now_ms: int


@dataclass(frozen=True, slots=True)
class Intent:
    """Note that a batch is about to be sent."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class Chore:
    """Something small to do within the transaction."""

    run: Callable[[Connection], int]


@dataclass(frozen=True, slots=True)
class Bury:
    """Remember that people were erased."""

    stones: Sequence[Tombstone]


@dataclass(frozen=True, slots=True)
class Erase:
    """Delete these records, but for those that are in flight."""

    offsets: Sequence[Offset]


@dataclass(frozen=True, slots=True)
class Blank:
    """Replace texts of destinations."""

    quotes: Sequence[Quote]


class Erased(NamedTuple):
    """What was deleted, and what was left because it is in flight."""

    found: Found
    in_flight: Sequence[Offset]


class Draft(NamedTuple):
    """A record that is made when its group is planned, one right after the other."""

    make: Callable[[], Record]


Rarer = Settlement | Purge | Discard | Intent | Chore | Bury | Erase | Blank
Write = Draft | list[Record] | Rarer
Answer = tuple[Record, Appended] | list[Appended] | Purged | int | Erased | Exception | None
"""What a write is answered: where its records are, what was deleted, how many were closed, what was wrong, nothing."""


@dataclass(slots=True)
class Transaction:
    """Several writes as one. What is found out while it runs, such as `offsets`, is known after it, by position."""

    records: list[Record] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    """What each record is recognised by."""
    routes: list[store.Route] = field(default_factory=list)
    """Whom each record is for."""
    tallies: dict[tuple[Kind, store.Route], list[int]] = field(default_factory=lambda: defaultdict(list))
    """The bytes of the records, by kind and route."""
    settlements: list[tuple[Settlement, list[Run], int]] = field(default_factory=list)
    """Each with its runs, and the watermark of its lane after it."""
    purges: list[Purge] = field(default_factory=list)
    discards: list[Discard] = field(default_factory=list)
    intents: list[Intent] = field(default_factory=list)
    chores: list[Chore] = field(default_factory=list)
    burials: list[Bury] = field(default_factory=list)
    erasures: list[Sequence[Offset]] = field(default_factory=list)
    blanks: list[Blank] = field(default_factory=list)
    offsets: Sequence[Offset] = ()
    purged: list[Purged] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    discarded: list[int] = field(default_factory=list)
    erased: list[Found] = field(default_factory=list)
    answering: list[Callable[[Transaction], Answer]] = field(default_factory=list)
    """What finds the answer of each write in here, by position. None of them refers to a transaction: in a cycle, all
    records of it would stay in memory until Python's garbage collector looks for cycles."""

    @property
    def answers(self) -> list[Answer]:
        """Return what each write is answered, by position. Only once it has run."""
        return [find(self) for find in self.answering]

    @property
    def weight(self) -> int:
        """About how many bytes the rows of its records take."""
        return len(self.records) * ROW_BYTES + sum(map(sum, self.tallies.values()))

    def run(self, connection: Connection, lanes: Iterable[Lane], bits: Mapping[str, int]) -> None:
        """Store everything or nothing. After an error from COMMIT itself it is unknown which."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Purges come first: the new records take the pages that they empty, which are then written once, not twice.
            self.purged = [self._purge(connection, lanes, one) for one in self.purges]
            self.offsets = store.append(connection, self.records, self.routes, bits)
            store.count_accepted(connection, self.tallies)
            for settlement, cut, settled_through in self.settlements:
                store.settle(connection, settlement, [run for run in cut if run.settled], settled_through)
                if settlement.batch.lane.kind in ORDERED:
                    intents.remove(connection, settlement.batch)
            for intent in self.intents:
                intents.add(connection, intent.batch)
            self.discarded = [_discard(connection, discard) for discard in self.discards]
            self.done = [chore.run(connection) for chore in self.chores]
            for burial in self.burials:
                erasure.bury(connection, burial.stones)
            self.erased = [erasure.erase(connection, offsets) for offsets in self.erasures]
            for one in self.blanks:
                erasure.blank(connection, one.quotes)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _purge(self, connection: Connection, lanes: Iterable[Lane], one: Purge) -> Purged:
        size = min(one.size, len(self.records) + PURGED_BEYOND) if self.records else one.size
        return purge(connection, lanes, one.before_ms, one.after, size)


def _discard(connection: Connection, discard: Discard) -> int:
    closed = (
        dead_letters.resolve(connection, discard.destination, offset, "discarded", discard.now_ms)
        for offset in discard.offsets
    )
    return sum(closed)


Place = tuple[Offset | None, int, bool]
"""Where a record is or will be: its offset if it is stored, else its position in the transaction; and whether it is a
duplicate."""


def _appended(places: Sequence[Place], done: Transaction) -> list[Appended]:
    offsets = done.offsets
    found = ((offsets[position] if stored is None else stored, duplicate) for stored, position, duplicate in places)
    return [*map(Appended._make, found)]  # in half the time that its own constructor takes


def _appended_one(record: Record, place: Place, done: Transaction) -> tuple[Record, Appended]:
    stored, position, duplicate = place
    return record, Appended(done.offsets[position] if stored is None else stored, duplicate)


def _failed(error: Exception, _: Transaction) -> Exception:
    return error


class Planner:
    """Turns the writes of one group into a transaction, by what is durable at this moment. Changes nothing else."""

    def __init__(
        self,
        recent: RecentIds,
        states: Mapping[Lane, LaneState],
        router: Router,
        refusal: Callable[[Record], InvalidRecord | None],
    ) -> None:
        self._recent = recent
        self._refusal = refusal
        self._router = router
        self._states = states
        self._seen = RecentIds()  # of this group; the offsets in it are positions in the transaction's records
        self._settled: dict[Lane, set[Offset]] = {lane: set() for lane in states}
        self._given_back: dict[Lane, list[Run]] = {lane: [] for lane in states}
        self._planned = Transaction()

    def plan(self, writes: Iterable[Write]) -> Transaction:
        """Return the transaction of these writes, to be called once."""
        for write in writes:
            match write:
                case Draft():
                    answering = self._make(write)
                case list():
                    answering = self._append(write)
                case _:
                    answering = self._note(write)
            self._planned.answering.append(answering)
        return self._planned

    def _note(self, write: Rarer) -> Callable[[Transaction], Answer]:
        """Plan anything but new records, and return what finds its answer."""
        planned = self._planned
        match write:
            case Settlement():
                self._settle(write)
            case Intent():
                planned.intents.append(write)
            case Bury():
                planned.burials.append(write)
            case Blank():
                planned.blanks.append(write)
            case Purge():
                position = len(planned.purges)
                planned.purges.append(write)
                return lambda done: done.purged[position]
            case Discard():
                position = len(planned.discards)
                planned.discards.append(write)
                return lambda done: done.discarded[position]
            case Chore():
                position = len(planned.chores)
                planned.chores.append(write)
                return lambda done: done.done[position]
            case Erase():
                return self._erase(write)
        return lambda _: None

    def _erase(self, write: Erase) -> Callable[[Transaction], Erased]:
        in_flight = frozenset(chain.from_iterable(state.in_flight for state in self._states.values()))
        position = len(self._planned.erasures)
        self._planned.erasures.append([offset for offset in write.offsets if offset not in in_flight])
        left = [offset for offset in write.offsets if offset in in_flight]
        return lambda done: Erased(done.erased[position], left)

    def _make(self, draft: Draft) -> Callable[[Transaction], Answer]:
        try:
            record = draft.make()
        except InvalidRecord as error:
            return partial(_failed, without_frames(error))  # they have the group, which has its answers
        except Exception as error:  # noqa: BLE001  a mistake of ours, and this caller's alone: the others are stored
            return partial(_failed, error)
        if (refusal := self._refusal(record)) is not None:
            return partial(_failed, refusal)
        return partial(_appended_one, record, self._place(record))

    def _append(self, records: Sequence[Record]) -> Callable[[Transaction], list[Appended]]:
        return partial(_appended, [self._place(record) for record in records])

    def _place(self, record: Record) -> Place:
        key = key_of(record.event_id, record.name, record.distinct_id)
        stored = self._recent.find(key, record)
        if stored is not None:
            return stored, 0, True
        twin = self._seen.find(key, record)
        if twin is not None:
            return None, twin, True
        planned = self._planned
        position = Offset(len(planned.records))
        planned.records.append(record)
        planned.keys.append(key)
        route = self._router.destinations(record)
        planned.routes.append(route)
        planned.tallies[record.kind, route].append(byte_length(record.payload))
        if record.replay_of is None:  # a copy may be for one destination only, so it stands for nothing else
            self._seen.remember(key, record.time_ms, position)
        return None, position, False

    def _settle(self, settlement: Settlement) -> None:
        batch = settlement.batch
        first, state = batch.offsets[0], self._states[batch.lane]
        settled, given_back = self._settled[batch.lane], self._given_back[batch.lane]
        if first in settled or not state.holds(first):
            return  # it was settled before
        cut = runs(batch, settlement.outcomes)
        settled.add(first)
        given_back.extend(run for run in cut if not run.settled)
        self._planned.settlements.append((settlement, cut, state.watermark_after(settled, given_back)))
