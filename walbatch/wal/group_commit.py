"""Group commit: many callers, one fsync.

    callers ── submit ──▶ waiting ── all at once ──▶ commit ──▶ every caller's future

One loop takes everything that waits, commits it as one, and answers every caller, with a result or with the failure.
While a commit runs the next group gathers, so the group grows with the load by itself. On top of that it lingers: with
many callers in a closed loop the group that forms during a commit is only a part of them. Those who were answered come
back, and those who came meanwhile are there: so it waits for as many as both together, for as long as somebody comes
within each `LINGER_S`, and at most `MAX_LINGER_S`. A lone caller never waits.

A caller that is cancelled gets no answer; what it submitted is committed all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from walbatch.clock import Clock
from walbatch.errors import CommitFailed, LogClosed, Unavailable, without_frames

W = TypeVar("W")
R = TypeVar("R")

LINGER_S = 0.001
"""The longest wait for the next one to come. A fixed wait halved the rate of 10 callers, hence the rule."""

MAX_LINGER_S = 0.005
"""The longest wait for company altogether: some 25 calls, which is when a commit costs little beside them."""

_CLOSED = "walbatch is shutting down; send this again to another instance, or after the restart"


class Waiting(NamedTuple, Generic[W, R]):
    """A write, what it weighs, and where its caller waits for the result."""

    write: W
    weight: int
    future: asyncio.Future[R]


class GroupCommit(Generic[W, R]):
    """Gathers writes into groups. `commit` stores one group and returns a result for each write, by position.

    A result that is an exception is raised for the caller of that write. If `commit` itself raises, the error goes to
    every caller of that group, and the next group is tried afresh.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[W]], Awaitable[Sequence[R | Exception]]],
        clock: Clock,
        *,
        max_weight: int = 20_000,
    ) -> None:
        self._commit = commit
        self._clock = clock
        self._max_weight = max_weight
        self._waiting: list[Waiting[W, R]] = []
        self.waiting_weight = 0
        """What was submitted and is not stored yet, the group under way included."""
        self._arrived = asyncio.Event()
        self._enough = asyncio.Event()
        self._expected = 1
        self._closing = False

    def submit(self, write: W, weight: int = 1) -> asyncio.Future[R]:
        """Store a write with the next group; the future has its result, or raises why there is none.

        A group takes writes until they weigh `max_weight`.

        Raises:
            LogClosed: `close` was called before; nothing was stored.
        """
        if self._closing:
            raise LogClosed(_CLOSED)
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiting(write, weight, future))
        self.waiting_weight += weight
        count = len(self._waiting)
        if count == 1:
            self._arrived.set()
        if count >= self._expected:
            self._enough.set()
        return future

    def close(self) -> None:
        """Refuse what comes from now on. What was submitted is still committed; `run` then returns."""
        self._closing = True
        self._arrived.set()
        self._enough.set()

    async def run(self) -> None:
        """Commit groups until `close`, or until `commit` raises anything but `Unavailable`, which it raises again."""
        try:
            while True:
                await self._arrived.wait()
                await self._linger()
                group = self._take()
                if not group and self._closing:
                    return
                await self._store(group)
                self._expected = len(group) + len(self._waiting)
        finally:
            self.close()
            _fail(self._waiting, LogClosed(_CLOSED))

    async def _linger(self) -> None:
        """Wait until the expected company is there, or nobody comes any more."""
        until_s = self._clock.monotonic_s() + MAX_LINGER_S
        self._enough.clear()
        before = 0
        while before < len(self._waiting) < self._expected and not self._closing:
            before = len(self._waiting)
            if await self._clock.wait(self._enough, LINGER_S) or self._clock.monotonic_s() >= until_s:
                return

    def _take(self) -> list[Waiting[W, R]]:
        weight = count = 0
        while count < len(self._waiting) and (count == 0 or weight < self._max_weight):
            weight += self._waiting[count].weight
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        if not self._waiting and not self._closing:
            self._arrived.clear()
        return group

    async def _store(self, group: Sequence[Waiting[W, R]]) -> None:
        answers: list[tuple[Waiting[W, R], R | Exception]]
        try:
            results = await self._commit([one.write for one in group])
            answers = list(zip(group, results, strict=True))
        except Unavailable as error:
            _fail(group, without_frames(error))  # they have the group, which has the futures, which have the error
        except BaseException:
            _fail(group, CommitFailed("the log stopped while this was being stored; send it again"))
            raise
        else:
            for one, result in answers:
                future = one.future
                if future.done():  # its caller was cancelled
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        finally:
            self.waiting_weight -= sum(one.weight for one in group)


def _fail(group: Sequence[Waiting[W, R]], error: Unavailable) -> None:
    for one in group:
        if not one.future.done():
            one.future.set_exception(error)
