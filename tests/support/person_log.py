"""A log with records of a person in every state, and of somebody else between them; and the erasure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from log_records import deliver, event

from walbatch import dead
from walbatch.clock import Clock
from walbatch.delivery import DELIVERED, RETRY, Outcome, Rejected, Unknown
from walbatch.erasure import Receipt, erase
from walbatch.event import Kind, Record, profile_update
from walbatch.testing.clock import FakeClock
from walbatch.wal import Lane
from walbatch.wal.dead_letters import Choice
from walbatch.wal.sqlite import SqliteLog

MINE = 8
"""Records of the person: a c e g h j, the copy of e, the update."""


def update(distinct_id: str, clock: FakeClock, **properties: Any) -> Record:
    """A profile update."""
    return profile_update(distinct_id=distinct_id, operation="$set", properties=properties, now_ms=clock.wall_ms())


def refused(who: str) -> Rejected:
    """What a destination says of a record, quoting it."""
    return Rejected(400, "properties.distinct_id", f"{who} is not allowed")


async def erased(log: SqliteLog, clock: Clock, *people: str, delete_copies: bool = False) -> Receipt:
    """Erase people, and return the receipt."""
    receipt = Receipt(0)
    async for receipt in erase(log, clock, people, delete_copies=delete_copies):  # noqa: B007  the last one counts
        pass
    return receipt


async def fill(log: SqliteLog, clock: FakeClock, who: str, destination: str = "there") -> None:
    """Store records of a person and of u2: sent, dead, replayed, held, pending, and long ones."""
    long = {"text": f"{who} " * 3000}  # several overflow pages
    for name in "abcdefgh":
        mine = name in "acegh"
        await log.append([event(name, clock, distinct_id=who if mine else "u2", properties=long if mine else {})])
    bad, unknown = refused(who), Unknown("no answer")
    outcomes: Sequence[Outcome] = [DELIVERED, DELIVERED, bad, DELIVERED, bad, DELIVERED, unknown, RETRY]
    await deliver(log, outcomes, Lane(destination, Kind.EVENT))
    async for _ in dead.replay(log, clock, destination, Choice(numbers=[5])):
        pass
    await log.append([update(who, clock, plan=f"of {who}"), update("u2", clock)])
    await log.append([event("i", clock, distinct_id="u2"), event("j", clock, distinct_id=who, properties=long)])
