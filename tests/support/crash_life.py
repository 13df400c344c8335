"""Lives of a log on a disk in memory, with power cuts at any of their writes and syncs."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from crash_disk import Disk, Operation
from crash_ledger import Ledger, Place, state_of
from crash_process import Machine, Process
from crash_sqlite import Connection

from walbatch.batching import BatchPolicy
from walbatch.delivery import DELIVERED, RETRY, Outcome, Rejected, Unknown
from walbatch.errors import Unavailable, WalbatchError
from walbatch.event import Kind, Offset, Record, group_update, profile_update, track
from walbatch.retry import Condition
from walbatch.routing import Filter, Router
from walbatch.wal import ORDERED, Appended, Lane, Settlement, driver, store
from walbatch.wal.disk import CHECKPOINT_BYTES
from walbatch.wal.riding import FEWEST, Ride
from walbatch.wal.transaction import Discard, Intent, Purge, Write

DESTINATIONS = ("main", "second")
ROUTER = Router({"second": Filter(only=("b*",))})
LANES = [Lane(name, kind) for name in DESTINATIONS for kind in Kind]
ALL = BatchPolicy().at_once()

OUTCOMES: Sequence[Outcome] = (DELIVERED, DELIVERED, DELIVERED, RETRY, Rejected(400, "time", "is bad"), Unknown("lost"))

MAX_DEPTH = 3
"""How many power cuts may follow each other before anything else is done."""

Share = Callable[[Operation, str], float]
"""How probable a power cut is at an operation on a file."""


@dataclass(slots=True)
class Shot:
    """A disk after a power cut, and what had been acknowledged by then."""

    disk: Disk
    ledger: Ledger
    depth: int


@dataclass
class Tally:
    """What became of the images of one fault."""

    images: int = 0
    lives: int = 0
    acked: int = 0
    """Records that were acknowledged before the cuts, added up over the lives."""
    bad: Counter[str] = field(default_factory=Counter)
    """Images that broke a promise, by the first word of what is wrong."""
    depths: Counter[int] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


class Life:
    """A log's life: it is started, worked with, stopped, killed, and its disk is photographed on the way."""

    def __init__(
        self, machine: Machine, seed: float, *, disk: Disk | None = None, ledger: Ledger | None = None, depth: int = 0
    ) -> None:
        self.chance = random.Random(seed)
        self.machine = machine
        self.disk = disk or Disk(random.Random(seed))
        self.ledger = ledger or Ledger()
        self.shots: list[Shot] = []
        self.wrong: list[str] = []
        self.depth = depth
        self.checkpoint_bytes = CHECKPOINT_BYTES
        """Of what is written between two checkpoints."""
        self.people: Sequence[str] = [f"u{n}" for n in range(1, 10)]
        """Whom the records are about."""
        self.is_watched = True
        """Whether the states are noted that each COMMIT leaves; an image that is only looked at needs none."""
        self._share: Share = lambda _operation, _name: 0.0
        self._settlements: list[Settlement] = []
        self._letters: set[tuple[str, Offset]] = set()
        self._ids = itertools.count(1)
        self.disk.watch = self._watch

    def photograph(self, share: float | Share) -> None:
        """Cut the power from now on with this probability at each operation: of a copy, so that life goes on."""
        self._share = share if callable(share) else lambda _operation, _name: share

    def start(self) -> None:
        """Start the process: recover, migrate, load."""
        self._settlements = []
        self.process = Process(self.machine, self.disk, DESTINATIONS, ROUTER)
        self.process.start(self._opened)
        self.process.log._disk.checkpoint_bytes = self.checkpoint_bytes

    def stop(self) -> None:
        """End the process in good order."""
        self.process.stop()

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()

    def _opened(self, connection: Connection) -> None:
        if self.is_watched:
            connection.committing = lambda one: self.ledger.committing(state_of(one))  # type: ignore[arg-type]
            connection.committed = self.ledger.committed
        self.wrong += self.ledger.found(state_of(connection))  # type: ignore[arg-type]

    def _watch(self, operation: Operation, name: str) -> None:
        if self.chance.random() < self._share(operation, name):
            self.shots.append(Shot(self.disk.image(self.chance), self.ledger.copy(), self.depth + 1))

    def work(self, steps: int, *only: str) -> None:
        """Do so many things, all of them or some: see `_CHORES`."""
        chores = {name: _CHORES[name] for name in only or _CHORES}
        for _ in range(steps):
            name = self.chance.choices([*chores], [weight for weight, _ in chores.values()])[0]
            _CHORES[name][1](self)

    def commit(self, *writes: Write) -> None:
        """Commit these in one group, as the group commit does; a failure is in doubt, and life goes on."""
        acked = [self._tried(write) for write in writes]
        if not writes:
            return
        try:
            answers = self.process.write(*writes)
        except Unavailable:
            return
        for note, answer in zip(acked, answers, strict=True):
            note(answer)

    def _tried(self, write: Write) -> Callable[[Any], None]:
        """Note what is asked for; return what notes the answer."""
        ledger = self.ledger
        match write:
            case Settlement():
                final = ledger.settle_tried(write)
                return lambda _answer: self._settled(write, final)
            case Intent():
                counting = ledger.intend_tried(write.batch)
                return lambda _answer: ledger.held.update(counting)
            case Discard():
                closed = {(write.destination, offset) for offset in write.offsets}
                return lambda _answer: self._letters.difference_update(closed)
            case Purge():
                ledger.purge_tried()
                return lambda _answer: None
            case list():
                ledger.attempted |= {record.event_id: record.payload for record in write}
                return lambda answer: self._appended(write, answer)
            case _:
                raise AssertionError(f"this ledger does not know {write}")

    def _settled(self, settlement: Settlement, final: dict[Place, Outcome]) -> None:
        self.ledger.settle_acked(settlement, final)
        self._settlements.remove(settlement)
        dead = [place for place, outcome in final.items() if isinstance(outcome, Rejected | Unknown)]
        self._letters |= {(lane.destination, offset) for lane, offset in dead}

    def _appended(self, records: Sequence[Record], answer: Sequence[Appended]) -> None:
        for record, appended in zip(records, answer, strict=True):
            assert not appended.duplicate
            names = self.process.log._router.destinations(record)
            mine = [lane for lane in LANES if lane.kind is record.kind and (names is None or lane.destination in names)]
            self.ledger.append_acked(appended.offset, (record.event_id, record.payload), mine)

    def records(self, count: int) -> list[Record]:
        """Return new records of every kind, some larger than a page."""
        return [self._record() for _ in range(count)]

    def _record(self) -> Record:
        number = f"{self.depth}-{next(self._ids)}-{self.chance.getrandbits(40):x}"
        text = "x" * self.chance.choice((1, 30, 200, 200, 1500, 6000))
        who, now_ms = self.chance.choice(self.people), self.process.clock.wall_ms()
        kind = self.chance.choices([*Kind], (6, 2, 1))[0]
        if kind is Kind.EVENT:
            name = self.chance.choice(("a", "b"))
            return track(name=name, distinct_id=who, event_id=number, properties={"text": text}, now_ms=now_ms)
        changes: list[tuple[str, dict[str, Any]]] = [("$set", {"text": text}), ("$add", {"n": len(text)})]
        operation, properties = changes[0] if kind is Kind.GROUP else self.chance.choice(changes)
        update: dict[str, Any] = {"operation": operation, "properties": properties, "update_id": number}
        if kind is Kind.PROFILE:
            return profile_update(distinct_id=who, **update, now_ms=now_ms)
        return group_update(group_key="company", group_id="c1", **update, now_ms=now_ms)

    def append(self) -> None:
        """Store what some callers sent, in one group, perhaps together with a settlement."""
        groups = [self.records(self.chance.randint(1, 12)) for _ in range(self.chance.randint(1, 3))]
        if self.process.log._ride:
            self.ledger.purge_tried()
        self.commit(*groups, *(self._settlements[:1] if self.chance.random() < 0.3 else ()))

    def fetch(self) -> None:
        """Hand out a batch, note it if it must not be sent twice, and make up what became of it."""
        lane = self.chance.choice(LANES)
        policy = replace(ALL, max_size=self.chance.choice((1, 5, 30)))
        batch = self.process.fetch(lane, policy)
        if not batch.offsets:
            return
        if lane.kind in ORDERED and self.chance.random() < 0.5:
            self.commit(Intent(batch))
        one = self.chance.choice(OUTCOMES)
        outcomes = [one if self.chance.random() < 0.5 else self.chance.choice(OUTCOMES) for _ in batch.offsets]
        if self.chance.random() < 0.5:
            outcomes = [DELIVERED] * len(outcomes)
        now_ms = self.process.clock.wall_ms()
        self._settlements.append(Settlement(batch, outcomes, Condition(failures=one is RETRY), "200", now_ms, now_ms))

    def settle(self) -> None:
        """Settle one or two batches; not always in the order in which they were handed out."""
        self.chance.shuffle(self._settlements)
        self.commit(*self._settlements[: self.chance.randint(1, 2)])

    def discard(self) -> None:
        """Close a dead letter."""
        for name, offset in sorted(self._letters)[:1]:
            self.commit(Discard(name, [offset], self.process.clock.wall_ms()))

    def purge(self) -> None:
        """Delete what is settled everywhere, in two slices, and let new records take along what is settled later."""
        before_ms = self.process.clock.wall_ms() + 1
        self.process.log._ride = ride = Ride(self.process.clock, Purge(before_ms, 0, 20), 0.0)
        ride._came = FEWEST  # so that the very next ones do
        for after in (0, 20):
            self.commit(Purge(before_ms, after, 20))

    def restart(self) -> None:
        """Stop and start, or be killed and started."""
        self.chance.choice((self.stop, self.kill))()
        self.start()

    def examine(self) -> list[str]:
        """Return which promises a started log breaks. Everything that waits is handed out on the way."""
        ledger, reader = self.ledger, self.process.reader
        checked = reader.execute("PRAGMA integrity_check").fetchall()
        wrong = [] if checked == [("ok",)] else [f"corrupt: {checked[0]}"]
        rows = {row[0]: (row[1], row[2]) for row in reader.execute("SELECT seq, event_id, payload FROM events")}
        wrong += ledger.check_rows(rows)
        if self.wrong or wrong:  # where counts and rows disagree, a fetch may look for ever for what is not there
            return wrong
        counts = {}
        for lane in LANES:
            batches = []
            while (batch := self.process.fetch(lane, ALL)).offsets:
                batches.append(batch)
            wrong += ledger.check_lane(lane, batches)
            counts[lane] = sum(len(batch.offsets) for batch in batches)
        positions = self.process.log._progress.positions
        return wrong + ledger.check_counts(store.backlog(reader, positions), counts)


_CHORES: dict[str, tuple[float, Callable[[Life], None]]] = {
    "append": (6, Life.append),
    "fetch": (6, Life.fetch),
    "settle": (5, Life.settle),
    "discard": (1, Life.discard),
    "purge": (1, Life.purge),
    "restart": (0.5, Life.restart),
}
"""What a log is used for, and how often."""


Examine = Callable[[Life], list[str]]


def survey(
    machine: Machine, images: int, live: Callable[[Life], None], *, deep: float = 0.03, examine: Examine = Life.examine
) -> Tally:
    """Let logs live, with one seed after the other, until there are so many images, and judge each."""
    tally = Tally()
    for seed in itertools.count(1):
        life = Life(machine, seed)
        live(life)
        life.kill()
        tally.bad.update(word.partition(":")[0] for word in life.wrong)
        tally.examples += [f"seed {seed}, alive: {wrong}" for wrong in life.wrong]
        tally.lives += 1
        tally.acked += len(life.ledger.acked)
        queue = life.shots
        while queue and tally.images < images:
            shot = queue.pop()
            number = tally.images
            again = shot.depth < MAX_DEPTH and life.chance.random() < deep
            wrong = judge(machine, shot, queue if again else None, seed + number / 1e6, examine)
            tally.images += 1
            tally.depths[shot.depth] += 1
            tally.bad.update({word.partition(":")[0] for word in wrong})
            tally.examples += [f"seed {seed}, image {number}, depth {shot.depth}: {one}" for one in wrong[:3]]
        if tally.images >= images:
            return tally
    raise AssertionError


def judge(machine: Machine, shot: Shot, queue: list[Shot] | None, seed: float, examine: Examine) -> list[str]:
    """Start from an image and return what is wrong. With a queue: cut the power during that start, and add those."""
    life = Life(machine, seed, disk=shot.disk, ledger=shot.ledger, depth=shot.depth)
    life.is_watched = queue is not None
    life.photograph(0.0 if queue is None else 0.1)
    try:
        life.start()
        wrong = [*life.wrong, *examine(life)]
        if queue is not None and not wrong:
            life.work(4, "append", "fetch", "settle")
    except (WalbatchError, driver.Error, ValueError) as error:  # ValueError: a payload that is no JSON
        wrong = [*life.wrong, f"corrupt: {error}"]
    life.kill()
    if queue is not None:
        queue += life.shots
    return wrong
