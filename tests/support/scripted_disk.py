"""A group commit on a disk that remembers what was stored, and can be slow or broken; and its callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from walbatch.errors import StorageFailed
from walbatch.testing.clock import FakeClock
from walbatch.wal.group_commit import LINGER_S, GroupCommit


class Disk:
    """What `commit` writes to: it remembers every group, and can be slow or broken."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.errors: list[BaseException | None] = []
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def commit(self, writes: Sequence[int]) -> list[str]:
        """Store a group, once it may."""
        self.began.set()
        await self.may_end.wait()
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self.groups.append(list(writes))
        return [f"stored {write}" for write in writes]

    @property
    def stored(self) -> list[int]:
        """Everything that was stored, in order."""
        return [write for group in self.groups for write in group]

    def hold(self) -> None:
        """Make the next commit wait."""
        self.began.clear()
        self.may_end.clear()


@asynccontextmanager
async def running(commits: GroupCommit[int, str]) -> AsyncIterator[asyncio.Task[None]]:
    """Run it; at the end close it and wait for it."""
    task = asyncio.create_task(commits.run())
    try:
        yield task
    finally:
        commits.close()
        with suppress(StorageFailed, asyncio.CancelledError):
            await task


def submit(commits: GroupCommit[int, str], *writes: int) -> list[asyncio.Task[str]]:
    """Submit each write from a caller of its own."""

    async def caller(write: int) -> str:
        return await commits.submit(write)

    return [asyncio.create_task(caller(write)) for write in writes]


async def nobody_else_comes(clock: FakeClock) -> None:
    """Let the wait for company end."""
    await clock.sleeper()
    await clock.advance(LINGER_S)


async def settle_down() -> None:
    """Let every task run until it waits for something."""
    for _ in range(20):
        await asyncio.sleep(0)


async def behind(commits: GroupCommit[int, str], disk: Disk, clock: FakeClock, *writes: int) -> list[asyncio.Task[str]]:
    """Submit a group while a commit of the single write 0 runs, whose caller does not come back; end that commit."""
    disk.hold()
    first = submit(commits, 0)
    await disk.began.wait()
    tasks = submit(commits, *writes)
    await settle_down()
    disk.may_end.set()
    assert await asyncio.gather(*first) == ["stored 0"]
    await nobody_else_comes(clock)
    return tasks
