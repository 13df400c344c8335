"""`walbatch erase` on a disk in memory, and whether anything of the person is left on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar, cast

import pytest
from crash_life import Life
from crash_process import AtOnce, result

from walbatch import erasure
from walbatch.wal import driver, gaps, recovery, scrub
from walbatch.wal.scrub import Scrubber
from walbatch.wal.transaction import Answer, Write

T = TypeVar("T")

PERSON = "person-who-wants-to-be-forgotten"
OTHERS = ("u1", "u2", "u3")


def prepare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the program's erasure use disks in memory, and no threads."""

    async def at_once_in_this_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return function(*args, **kwargs)

    monkeypatch.setattr(asyncio, "to_thread", at_once_in_this_thread)
    monkeypatch.setattr(erasure, "other_files", lambda _database: [])
    for module in (gaps, scrub):
        monkeypatch.setattr(module, "os", vars(recovery)["os"])


class _Commits:
    """The group commit, with groups of one."""

    def __init__(self, life: Life) -> None:
        self._life = life

    async def submit(self, write: Write, _weight: int) -> Answer:
        return self._life.process.write(write)[0]


def erase(life: Life) -> None:
    """Do what `walbatch erase` does; nothing is in flight."""
    ledger, log = life.ledger, life.process.log
    theirs = {offset for offset, (_, payload) in ledger.acked.items() if PERSON in payload}
    ledger.purgeable |= theirs
    ledger.settled = {place: outcome for place, outcome in ledger.settled.items() if place[1] not in theirs}
    ledger.held = {place for place in ledger.held if place[1] not in theirs}
    log._commits = cast(Any, _Commits(life))
    log._questions = cast(Any, AtOnce(driver.open_reader(life.process.path)))
    log._scrubber = Scrubber(life.process.path).__enter__()
    assert result(_last(erasure.erase(log, life.process.clock, [PERSON], delete_copies=False))).complete


async def _last(receipts: AsyncIterator[erasure.Receipt]) -> erasure.Receipt:
    return [receipt async for receipt in receipts][-1]


def examine_erased(life: Life) -> list[str]:
    """Run it again, as a person would after a cut, and look at every byte; then examine the log as ever."""
    erase(life)
    left = [
        f"personal: in {name}"
        for name, file in life.disk.files.items()
        if any(PERSON.encode() in content for content in (file.cache, file.durable))
    ]
    return [*left, *life.examine()]


def with_a_person(life: Life) -> None:
    """Some records are about a person, who is then erased."""
    life.people = (PERSON, *OTHERS)
    life.start()
    life.work(15)
    life.chance.choice((life.kill, life.stop))()
    life.start()
    life.people = OTHERS
    life.photograph(0.2)
    erase(life)
    life.kill()
    life.start()
    life.work(3)
