"""Many callers, one fsync: what each of them is answered."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from scripted_disk import Disk, behind, nobody_else_comes, running, settle_down, submit

from walbatch.errors import BacklogFull, CommitFailed, LogClosed, StorageFailed, Unavailable
from walbatch.testing.clock import FakeClock
from walbatch.wal.group_commit import LINGER_S, GroupCommit


async def test_one_commit_for_all_that_wait(commits: GroupCommit[int, str], disk: Disk, clock: FakeClock) -> None:
    """What arrives during a commit shares the next one, and each caller gets its own result."""
    tasks = await behind(commits, disk, clock, *range(1, 65))
    assert await asyncio.gather(*tasks) == [f"stored {n}" for n in range(1, 65)]
    assert disk.groups == [[0], list(range(1, 65))]


async def test_nobody_is_answered_before_the_commit_has_returned(
    commits: GroupCommit[int, str], disk: Disk, clock: FakeClock
) -> None:
    """While the disk is busy every caller waits, however long it takes."""
    disk.hold()
    tasks = submit(commits, 1, 2)
    await disk.began.wait()
    await clock.advance(3600)
    assert not any(task.done() for task in tasks)
    disk.may_end.set()
    await asyncio.gather(*tasks)


async def test_a_commit_that_fails_answers_every_waiter(
    commits: GroupCommit[int, str], disk: Disk, clock: FakeClock
) -> None:
    """Each caller of the group gets the error itself, and the next group works."""
    error = CommitFailed("the disk said no")
    disk.errors = [None, error]
    tasks = await behind(commits, disk, clock, 1, 2, 3)
    assert await asyncio.gather(*tasks, return_exceptions=True) == [error] * 3
    later = submit(commits, 4, 5, 6)
    assert await asyncio.gather(*later) == ["stored 4", "stored 5", "stored 6"]
    assert disk.groups == [[0], [4, 5, 6]]


@pytest.mark.parametrize("error", [CommitFailed("c"), BacklogFull("b"), Unavailable("u")])
async def test_whatever_means_later_ends_nothing(
    commits: GroupCommit[int, str], disk: Disk, error: Unavailable
) -> None:
    """Every error that says "try again" goes to the callers and leaves the loop running."""
    disk.errors = [error] * 10
    for _ in range(10):
        with pytest.raises(type(error)):
            await commits.submit(1)
    assert await commits.submit(2) == "stored 2"


async def test_a_failed_group_does_not_touch_those_who_came_later(
    commits: GroupCommit[int, str], disk: Disk, clock: FakeClock
) -> None:
    """Who arrives while a commit fails belongs to the next one."""
    disk.hold()
    doomed = submit(commits, 1)
    await disk.began.wait()
    later = submit(commits, 2)
    await settle_down()
    disk.errors = [CommitFailed("no")]
    disk.may_end.set()
    with pytest.raises(CommitFailed):
        await doomed[0]
    await nobody_else_comes(clock)
    assert await later[0] == "stored 2"


async def test_a_cancelled_caller_does_not_cancel_the_commit(
    commits: GroupCommit[int, str], disk: Disk, clock: FakeClock
) -> None:
    """Whether the commit has begun or not, what was submitted is stored, and the others are answered."""
    disk.hold()
    running_ones = submit(commits, 1, 2)
    await disk.began.wait()
    waiting_ones = submit(commits, 3, 4)
    await settle_down()
    running_ones[0].cancel()
    waiting_ones[0].cancel()
    await settle_down()
    disk.may_end.set()
    assert await running_ones[1] == "stored 2"
    await nobody_else_comes(clock)
    assert await waiting_ones[1] == "stored 4"
    assert disk.stored == [1, 2, 3, 4]
    assert running_ones[0].cancelled()
    assert waiting_ones[0].cancelled()


async def test_a_group_of_cancelled_callers_may_fail(commits: GroupCommit[int, str], disk: Disk) -> None:
    """An error that nobody waits for disturbs nobody."""
    disk.hold()
    tasks = submit(commits, 1, 2)
    await disk.began.wait()
    for task in tasks:
        task.cancel()
    await settle_down()
    disk.errors = [CommitFailed("no")]
    disk.may_end.set()
    await settle_down()
    assert await asyncio.gather(*submit(commits, 3, 4)) == ["stored 3", "stored 4"]


async def test_close_commits_what_was_submitted_then_refuses(disk: Disk, clock: FakeClock) -> None:
    """Who came before `close` is stored and answered, who comes after is told so, and `run` returns."""
    commits = GroupCommit(disk.commit, clock)
    async with running(commits) as task:
        disk.hold()
        tasks = submit(commits, 1)
        await disk.began.wait()
        tasks += submit(commits, 2, 3)
        await settle_down()
        commits.close()
        with pytest.raises(LogClosed):
            await commits.submit(4)
        disk.may_end.set()
        assert await asyncio.gather(*tasks) == ["stored 1", "stored 2", "stored 3"]
        await task
        assert disk.stored == [1, 2, 3]


async def test_close_before_run_and_twice(disk: Disk, clock: FakeClock) -> None:
    """A group commit that was closed before it ran returns at once; closing again changes nothing."""
    commits = GroupCommit(disk.commit, clock)
    commits.close()
    commits.close()
    await commits.run()
    with pytest.raises(LogClosed):
        await commits.submit(1)
    assert disk.groups == []


async def test_what_was_submitted_before_run_is_stored(disk: Disk, clock: FakeClock) -> None:
    """Callers may come before the loop does."""
    commits = GroupCommit(disk.commit, clock)
    tasks = submit(commits, 1, 2)
    await settle_down()
    async with running(commits):
        assert await asyncio.gather(*tasks) == ["stored 1", "stored 2"]
    assert disk.groups == [[1, 2]]


async def test_a_heavy_group_is_split_and_nothing_is_lost(disk: Disk, clock: FakeClock) -> None:
    """No group is heavier than allowed by more than its last write, and all are stored in order."""
    commits = GroupCommit(disk.commit, clock, max_weight=10)
    tasks = [commits.submit(weight, weight) for weight in (4, 4, 4, 4, 25, 1, 1)]
    async with running(commits):
        while not all(task.done() for task in tasks):
            await clock.advance(LINGER_S)
        assert [task.result() for task in tasks] == [f"stored {n}" for n in (4, 4, 4, 4, 25, 1, 1)]
    assert disk.groups == [[4, 4, 4], [4, 25], [1, 1]]


async def test_a_split_group_is_finished_by_close(disk: Disk, clock: FakeClock) -> None:
    """What did not fit into the last group before `close` is stored in the next ones."""
    commits = GroupCommit(disk.commit, clock, max_weight=2)
    tasks = submit(commits, *range(7))
    await settle_down()
    commits.close()
    await commits.run()
    assert await asyncio.gather(*tasks) == [f"stored {n}" for n in range(7)]
    assert disk.groups == [[0, 1], [2, 3], [4, 5], [6]]


@pytest.mark.parametrize("error", [StorageFailed("broken"), ZeroDivisionError("a mistake of ours")])
async def test_a_fatal_error_answers_everybody_and_ends_run(disk: Disk, clock: FakeClock, error: Exception) -> None:
    """The group's callers learn that nothing is known, those who wait that nothing was stored, and `run` raises."""
    commits = GroupCommit(disk.commit, clock)
    task = asyncio.create_task(commits.run())
    disk.hold()
    group = submit(commits, 1)
    await disk.began.wait()
    waiting = submit(commits, 2, 3)
    await settle_down()
    disk.errors = [error]
    disk.may_end.set()
    answers = await asyncio.gather(*group, *waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [CommitFailed, LogClosed, LogClosed]
    with pytest.raises(type(error)):
        await task
    with pytest.raises(LogClosed):
        await commits.submit(4)


async def test_cancelling_run_answers_everybody(disk: Disk, clock: FakeClock) -> None:
    """Nobody is left waiting if the loop is torn down in the middle of a commit."""
    commits = GroupCommit(disk.commit, clock)
    task = asyncio.create_task(commits.run())
    disk.hold()
    group = submit(commits, 1)
    await disk.began.wait()
    waiting = submit(commits, 2)
    await settle_down()
    task.cancel()
    answers = await asyncio.gather(*group, *waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [CommitFailed, LogClosed]
    assert task.cancelled()


async def test_cancelling_an_idle_run_ends_it(disk: Disk, clock: FakeClock) -> None:
    """A loop without work stops, and refuses what comes after."""
    commits = GroupCommit(disk.commit, clock)
    task = asyncio.create_task(commits.run())
    await settle_down()
    task.cancel()
    await asyncio.wait([task])
    with pytest.raises(LogClosed):
        await commits.submit(1)


async def test_too_few_results_are_a_mistake_that_leaves_nobody_waiting(clock: FakeClock) -> None:
    """Results that do not fit the group end the loop, and every caller has an answer."""

    async def commit(writes: Sequence[int]) -> list[str]:
        return ["only one" for _ in writes[:1]]

    commits = GroupCommit(commit, clock)
    tasks = submit(commits, 1, 2)
    await settle_down()
    with pytest.raises(ValueError, match="shorter"):
        await commits.run()
    await settle_down()
    assert all(task.done() for task in tasks)
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("seed", range(10))
async def test_many_rounds_with_failures_and_cancellations(seed: int, clock: FakeClock) -> None:
    """Whatever happens, a caller with a result is stored, one with `LogClosed` is not, and nothing is stored twice."""
    chance = random.Random(seed)
    stored: list[int] = []

    async def commit(writes: Sequence[int]) -> list[int]:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        if chance.random() < 0.2:
            raise CommitFailed("bad luck")
        stored.extend(writes)
        return list(writes)

    answers: dict[int, object] = {}

    async def caller(commits: GroupCommit[int, int], number: int) -> None:
        for round_ in range(20):
            write = number * 100 + round_
            try:
                answers[write] = await commits.submit(write)
            except (CommitFailed, LogClosed) as error:
                answers[write] = error

    commits = GroupCommit(commit, clock, max_weight=chance.choice([3, 20_000]))
    run = asyncio.create_task(commits.run())
    callers = [asyncio.create_task(caller(commits, number)) for number in range(chance.choice([1, 2, 30]))]
    for round_ in range(60):
        await clock.advance(LINGER_S)
        if round_ % 10 == 5:
            chance.choice(callers).cancel()
    commits.close()
    await asyncio.gather(*callers, return_exceptions=True)
    await run
    assert len(stored) == len(set(stored))
    assert all(answer == write for write, answer in answers.items() if not isinstance(answer, Unavailable))
    assert {write for write, answer in answers.items() if isinstance(answer, int)} <= set(stored)
    assert not {write for write, answer in answers.items() if isinstance(answer, Unavailable)} & set(stored)
