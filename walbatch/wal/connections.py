"""Connections to the database, each in a thread of its own. The only module that imports aiosqlite."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import aiosqlite

from walbatch.wal.driver import Connection

T = TypeVar("T")


class Threaded:
    """A connection as a context: opened by `connector` in its thread, and closed at the end.

    What SQLite raises, here and in `run`, is `driver.Error`.
    """

    def __init__(self, connector: Callable[[], Connection]) -> None:
        self._connection = aiosqlite.Connection(connector, iter_chunk_size=64)

    async def __aenter__(self) -> Self:
        try:
            await self._connection.__aenter__()
        except BaseException:
            await asyncio.to_thread(self._connection._thread.join)  # noqa: SLF001  it ends by itself, a moment later
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._connection.__aexit__(exc_type, exc, traceback)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run `function(connection, *args)` in the connection's thread: one hop, whatever it does there.

        aiosqlite has no public way to do that; each call of its own API would be a hop of about 75 microseconds. Its
        version is pinned for this reason.
        """
        raw = self._connection._conn  # noqa: SLF001
        result: T = await self._connection._execute(function, raw, *args)  # type: ignore[no-untyped-call]  # noqa: SLF001
        return result

    async def interrupt(self) -> None:
        """End the statement under way, if there is one, with an error."""
        await self._connection.interrupt()
