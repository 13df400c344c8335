"""What several files of unit tests start from: a clock, and a group commit on a disk."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from scripted_disk import Disk, running

from walbatch.testing.clock import FakeClock
from walbatch.wal.group_commit import GroupCommit


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


@pytest.fixture
def disk() -> Disk:
    """A disk that works."""
    return Disk()


@pytest.fixture
async def commits(disk: Disk, clock: FakeClock) -> AsyncIterator[GroupCommit[int, str]]:
    """A running group commit on the disk; closed at the end."""
    commits = GroupCommit(disk.commit, clock)
    async with running(commits):
        yield commits
