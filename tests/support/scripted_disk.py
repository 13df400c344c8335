"""A disk under a group commit: it remembers what was stored, and can be slow or broken."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence


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
