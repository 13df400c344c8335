"""How long a group waits for company, and for whom."""

from __future__ import annotations

import asyncio

import pytest
from scripted_disk import Disk, behind, settle_down, submit

from walbatch.testing.clock import FakeClock
from walbatch.wal.group_commit import LINGER_S, MAX_LINGER_S, GroupCommit


async def test_a_lone_caller_never_waits(commits: GroupCommit[int, str], disk: Disk) -> None:
    """One caller after another commits at once, without the clock moving."""
    for n in range(5):
        assert await commits.submit(n) == f"stored {n}"
    assert disk.groups == [[0], [1], [2], [3], [4]]


async def test_a_group_waits_for_as_many_as_last_time(
    commits: GroupCommit[int, str], disk: Disk, clock: FakeClock
) -> None:
    """After a group of three the next one begins with the third arrival, without the clock moving."""
    await asyncio.gather(*await behind(commits, disk, clock, 1, 2, 3))
    tasks = submit(commits, 4)
    await clock.sleeper()
    tasks += submit(commits, 5)
    await settle_down()
    assert disk.groups[2:] == []
    tasks += submit(commits, 6)
    await asyncio.gather(*tasks)
    assert disk.groups[2:] == [[4, 5, 6]]


async def test_company_that_does_not_come_is_waited_for_once(
    commits: GroupCommit[int, str], disk: Disk, clock: FakeClock
) -> None:
    """Shortly; and a caller that stays alone waits no more."""
    await asyncio.gather(*await behind(commits, disk, clock, 1, 2, 3))
    (task,) = submit(commits, 4)
    assert await clock.sleeper() == LINGER_S
    await clock.advance(LINGER_S / 2)
    assert not task.done()
    await clock.advance(LINGER_S / 2)
    assert await task == "stored 4"
    assert await commits.submit(5) == "stored 5"


async def test_it_waits_as_long_as_somebody_comes_but_not_for_ever(
    commits: GroupCommit[int, str], disk: Disk, clock: FakeClock
) -> None:
    """One caller in each step, of a hundred who were answered: the group begins without the rest."""
    await asyncio.gather(*await behind(commits, disk, clock, *range(1, 101)))
    began_s = clock.monotonic_s()
    tasks = submit(commits, 101)
    while not tasks[0].done():
        await clock.sleeper()
        tasks += submit(commits, 101 + len(tasks))
        await clock.advance(LINGER_S)
    assert clock.monotonic_s() - began_s == pytest.approx(MAX_LINGER_S)
    assert len(disk.groups[2]) == MAX_LINGER_S / LINGER_S + 1


async def test_those_who_came_during_the_commit_count_as_company(
    commits: GroupCommit[int, str], disk: Disk, clock: FakeClock
) -> None:
    """The next group is complete once those who were answered are back as well."""
    await asyncio.gather(*await behind(commits, disk, clock, 1, 2))
    disk.hold()
    tasks = submit(commits, 3, 4)
    await disk.began.wait()
    later = submit(commits, 5, 6)
    await settle_down()
    before_s = clock.monotonic_s()
    disk.may_end.set()
    await asyncio.gather(*tasks)
    later += submit(commits, 7, 8)
    await asyncio.gather(*later)
    assert disk.groups[2:] == [[3, 4], [5, 6, 7, 8]]
    assert clock.monotonic_s() == before_s


async def test_close_ends_a_linger(commits: GroupCommit[int, str], disk: Disk, clock: FakeClock) -> None:
    """A shutdown does not wait for company."""
    await asyncio.gather(*await behind(commits, disk, clock, 1, 2, 3))
    tasks = submit(commits, 4)
    await clock.sleeper()
    commits.close()
    assert await tasks[0] == "stored 4"
