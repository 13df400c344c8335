"""What was acknowledged, and whether a log that was recovered still has it.

Two books are kept, and neither asks the other. The ledger has what clients and the flusher were told, in the words of
the contract. The states have a digest of every table at each COMMIT: after a power cut the log must be exactly what
the last COMMIT that returned left, or what one that had not returned yet would have left: all of it or nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from walbatch.delivery import Delivered, Outcome, Retry
from walbatch.event import EventId, Offset, repeatable
from walbatch.wal import ORDERED, Backlog, Batch, Lane, Settlement
from walbatch.wal.driver import Connection

Row = tuple[EventId, str]
"""A record's id and payload."""

Place = tuple[Lane, Offset]
"""A record on its way to one destination."""


@dataclass(slots=True)
class Ledger:
    """What was asked for, and what was answered."""

    attempted: dict[EventId, str] = field(default_factory=dict)
    """The payload of every record that was ever sent to the log."""
    acked: dict[Offset, Row] = field(default_factory=dict)
    owed: set[Place] = field(default_factory=set)
    """Where each of them is to be delivered."""
    settled: dict[Place, Outcome] = field(default_factory=dict)
    """What was settled for good, and acknowledged."""
    held: set[Place] = field(default_factory=set)
    """Updates that count twice, of noted batches: after a restart they are held, unless they were settled."""
    noted: set[Place] = field(default_factory=set)
    """The same, acknowledged or not."""
    tried: set[Place] = field(default_factory=set)
    """Settled for good, acknowledged or not."""
    purgeable: set[Offset] = field(default_factory=set)
    """May be gone, since a purge was tried when they were settled everywhere."""
    landed: str = ""
    """The state that the last COMMIT left; empty before the first start."""
    doubts: tuple[str, ...] = ()
    """The states of those since then that have not returned, or failed."""
    former: dict[str, int] = field(default_factory=dict)
    """All that landed, with their numbers."""

    def copy(self) -> Ledger:
        """Return what is known now."""
        return Ledger(
            dict(self.attempted),
            dict(self.acked),
            set(self.owed),
            dict(self.settled),
            set(self.held),
            set(self.noted),
            set(self.tried),
            set(self.purgeable),
            self.landed,
            self.doubts,
            dict(self.former),
        )

    def committing(self, state: str) -> None:
        """Note that a COMMIT is about to be run, and what it would leave."""
        self.doubts = (*self.doubts, state)

    def committed(self) -> None:
        """Note that it returned."""
        self.found(self.doubts[-1])

    def found(self, state: str) -> list[str]:
        """Note the state that a start has found; return what is wrong with it."""
        wrong = []
        if self.landed and state not in {self.landed, *self.doubts}:
            behind = len(self.former) - self.former[state] - 1 if state in self.former else None
            wrong.append("in a state that no commit left" if behind is None else f"rolled back: {behind} commits")
        self.landed, self.doubts = state, ()
        self.former.setdefault(state, len(self.former))
        return wrong

    def append_acked(self, offset: Offset, row: Row, lanes: Collection[Lane]) -> None:
        """Note where a record is, and whom it is for."""
        self.acked[offset] = row
        self.owed |= {(lane, offset) for lane in lanes}

    def settle_tried(self, settlement: Settlement) -> dict[Place, Outcome]:
        """Note an attempt to settle; return what is settled for good once it is acknowledged."""
        places = [(settlement.batch.lane, offset) for offset in settlement.batch.offsets]
        outcomes: dict[Place, Outcome] = dict(zip(places, settlement.outcomes, strict=True))
        final = dict(pair for pair in outcomes.items() if not isinstance(pair[1], Retry))
        self.tried |= final.keys()
        self.held -= outcomes.keys() - final.keys()  # they are pending again, if this commit lands
        return final

    def settle_acked(self, settlement: Settlement, final: Mapping[Place, Outcome]) -> None:
        """Note that it is settled."""
        self.settled |= final
        places = {(settlement.batch.lane, offset) for offset in settlement.batch.offsets}
        self.held -= places
        self.noted -= places

    def intend_tried(self, batch: Batch) -> set[Place]:
        """Note an attempt to note a batch; return what a restart holds once it is acknowledged."""
        assert batch.lane.kind in ORDERED
        stored = zip(batch.offsets, batch.payloads, strict=True)
        counting = {(batch.lane, o) for o, payload in stored if not repeatable(batch.lane.kind, payload)}
        self.noted |= counting
        return counting

    def purge_tried(self) -> None:
        """Note an attempt to purge everything that may be purged."""
        open_places = {offset for _, offset in self.owed - self.tried}
        self.purgeable |= self.acked.keys() - open_places

    def check_rows(self, rows: Mapping[Offset, Row]) -> list[str]:
        """Compare with what is stored."""
        lost = [o for o, row in self.acked.items() if o not in self.purgeable and rows.get(o) != row]
        strange = [o for o, (event_id, payload) in rows.items() if self.attempted.get(event_id) != payload]
        return [
            *([f"lost: {len(lost)} acknowledged records, from {lost[0]}"] if lost else []),
            *([f"unexpected: records {strange}"] if strange else []),
        ]

    def check_lane(self, lane: Lane, batches: Sequence[Batch]) -> list[str]:
        """Compare with all that a lane hands out."""
        offsets = {offset for batch in batches for offset in batch.offsets}
        found = {(lane, offset) for offset in offsets}
        again = sorted(o for _, o in found & (self.settled.keys() | self.held))
        owed = {o for where, o in self.owed - self.tried - self.noted if where == lane}
        forgotten = sorted(owed - offsets - self.purgeable)
        stored = [row for batch in batches for row in zip(batch.offsets, batch.payloads, strict=True)]
        given = set(self.attempted.values())
        altered = [offset for offset, payload in stored if payload not in given]
        return [
            *([f"lost: {lane} hands out again what was settled: {again}"] if again else []),
            *([f"lost: {lane} has forgotten {forgotten}"] if forgotten else []),
            *([f"unexpected: {lane} hands out {altered}"] if altered else []),
            *([f"unexpected: {lane} hands out some twice"] if len(offsets) < len(stored) else []),
        ]

    def check_counts(self, backlog: Backlog, handed_out: Mapping[Lane, int]) -> list[str]:
        """Compare with the counts: conservation, and nothing behind what was acknowledged."""
        wrong = []
        by_name = {(d.name, one.name): one for d in backlog.destinations for one in d.lanes}
        for lane, count in handed_out.items():
            c = by_name[lane.destination, lane.name]
            acked = [outcome for (where, _), outcome in self.settled.items() if where == lane]
            sent = sum(isinstance(outcome, Delivered) for outcome in acked)
            if c.accepted != c.pending + c.sent + c.purged + c.dead + c.resolved + c.erased or c.pending != count:
                wrong.append(f"conservation: {lane} {c}, handed out {count}")
            if min(c.pending, c.sent, c.purged, c.dead, c.held, c.resolved) < 0:
                wrong.append(f"conservation: below zero in {lane} {c}")
            if c.sent + c.purged < sent or c.dead + c.resolved < len(acked) - sent:
                wrong.append(f"lost: {lane} counts less than was settled: {c}")
        if backlog.accepted < len(self.acked):
            wrong.append(f"lost: {backlog.accepted} counted, {len(self.acked)} acknowledged")
        return wrong


def state_of(connection: Connection) -> str:
    """Return a digest of the schema and of every row."""
    digest = hashlib.blake2b(digest_size=16)
    for pragma in ("user_version", "application_id"):
        digest.update(repr(connection.execute(f"PRAGMA {pragma}").fetchone()).encode())
    schema = connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
    digest.update(repr(schema).encode())
    for kind, name, _ in schema:
        if kind == "table":
            rows = connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall()  # noqa: S608
            digest.update(repr(rows).encode())
    return digest.hexdigest()
