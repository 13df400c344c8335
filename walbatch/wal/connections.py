"""Connections to the database, each in a thread of its own. The only module that imports aiosqlite."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import aiosqlite

from walbatch.clock import Clock
from walbatch.errors import without_frames
from walbatch.wal.driver import Connection, Error

T = TypeVar("T")

LONG_S = 1.0
"""A question that has taken so long may be what keeps the write-ahead log from being trimmed; a shorter one is not."""


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
        try:
            result: T = await self._connection._execute(function, raw, *args)  # type: ignore[no-untyped-call]  # noqa: SLF001
        except Error as error:
            without_frames(error)  # that of `_execute` has the future, which has the error
            raise
        return result

    async def interrupt(self) -> None:
        """End the statement under way, if there is one, with an error."""
        await self._connection.interrupt()


class Questions(Threaded):
    """A connection for reading what may take long. It knows since when it has been at it."""

    def __init__(self, connector: Callable[[], Connection], clock: Clock) -> None:
        super().__init__(connector)
        self._clock = clock
        self._since_s: float | None = None

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """See `Threaded.run`."""

        def timed(connection: Connection) -> T:
            self._since_s = self._clock.monotonic_s()
            try:
                return function(connection, *args)
            finally:
                self._since_s = None

        return await super().run(timed)

    async def interrupt_if_long(self) -> None:
        """End the question under way if it has taken `LONG_S`."""
        since_s = self._since_s
        if since_s is not None and self._clock.monotonic_s() - since_s >= LONG_S:
            await self.interrupt()
