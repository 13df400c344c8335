"""Hands out what is due, lane by lane, and keeps out of the way of what is being erased.

fetch ── due? ── read the next span ── was anything erased meanwhile? read again ── hand it out
                                       erasing: nobody is handed out anything until it is over
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from walbatch.batching import BatchPolicy
from walbatch.clock import Clock
from walbatch.event import Offset
from walbatch.wal import Batch, Lane, store, traces
from walbatch.wal.connections import Threaded
from walbatch.wal.disk import ask
from walbatch.wal.progress import Progress


class Fetching:
    """What fetches share: a reader of the database, and where each lane is."""

    def __init__(
        self,
        path: Path,
        reader: Threaded,
        progress: Progress,
        bits: Mapping[str, int],
        clock: Clock,
        *,
        traced: bool,
    ) -> None:
        self._ask = partial(ask, path, reader)
        self._traced = traced
        self._progress = progress
        self._bits = bits
        self._clock = clock
        self._no_erasure = asyncio.Event()
        self._no_erasure.set()
        self._erasures = 0

    async def fetch(self, lane: Lane, policy: BatchPolicy, *, wait: bool) -> Batch:
        """See `EventLog.fetch`."""
        progress = self._progress
        changed = progress.changed[lane]
        while True:
            while not self._no_erasure.is_set():  # when it wakes up, the next one may have begun
                await self._no_erasure.wait()
            changed.clear()
            due_s, live = progress.next_due(lane, policy)
            if due_s != 0.0 and not wait:
                return Batch(lane, (), (), ())
            if due_s != 0.0:
                await self._clock.wait(changed, due_s)
                continue
            span, erasures = progress.states[lane].next_span(live=live), self._erasures
            read = traces.read_span if self._traced else store.read_span
            batch, next_at_ms = await self._ask(read, lane, self._bits[lane.destination], span, policy)
            if erasures != self._erasures or lane.destination in progress.paused:
                continue  # what was read may be gone by now, or is not to be sent
            # From here on nothing is awaited, so that a cancelled fetch has handed out nothing.
            progress.hand_out(batch, span, next_at_ms, live=live)
            if batch.offsets:
                return batch

    @contextmanager
    def erasing(self) -> Iterator[None]:
        """Hand out nothing while records are being deleted, and nothing of what was read before."""
        self._erasures += 1
        self._no_erasure.clear()
        try:
            yield
        finally:
            self._no_erasure.set()

    async def erased(self, lane: Lane, offsets: Sequence[Offset]) -> None:
        """Bring up to date what a lane's memory derives from rows that are gone: empty spans, the oldest's wait."""
        state, bit = self._progress.states[lane], self._bits[lane.destination]
        for span in state.spans_of(offsets):
            if await self._ask(store.is_empty, lane, bit, span):
                self._erasures += 1  # a fetch that is reading this span reads again
                state.forget(span)
        end = state.next_span(live=True)
        self._progress.start_wait(lane, await self._ask(store.oldest_received_at_ms, lane, bit, end))
