"""Deliver what is pending at one destination: fetch, send, settle, for as long as it takes.

One loop a lane, several deliveries at once in a lane of events, one at a time in a lane of profiles, whose order
counts. All lanes of a destination share its breaker. While it is not closed, one batch at a time goes out as a probe,
and everything else stays in the log, where it is safe and costs no memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

import structlog

from walbatch.batching import BatchPolicy
from walbatch.clock import Clock
from walbatch.delivery import RETRY, Answer, Hold, Outcome, Pause, Rejected, Settled, Split
from walbatch.errors import LogClosed, Unavailable
from walbatch.event import Kind
from walbatch.retry import Breaker, State
from walbatch.sinks import Sink
from walbatch.wal import Batch, EventLog, Lane, Settlement

log = structlog.stdlib.get_logger("walbatch.flusher")

SETTLE_AGAIN_S = 1.0
"""How long to wait before a settlement that could not be stored is tried again. The batch is held until then: what
was delivered must not be sent twice because the disk was full for a moment."""


class Flusher:
    """Everything on its way to one destination."""

    def __init__(
        self,
        event_log: EventLog,
        sink: Sink,
        destination: str,
        *,
        breaker: Breaker,
        clock: Clock,
        policy: BatchPolicy,
        max_in_flight: int,
    ) -> None:
        self._log = event_log
        self._sink = sink
        self._destination = destination
        self._breaker = breaker
        self._clock = clock
        self._policy = policy
        self._max_in_flight = max_in_flight
        self._breaker_changed = asyncio.Event()
        self._draining = asyncio.Event()
        self._never = asyncio.Event()

    async def run(self) -> None:
        """Deliver until `drain` was called and nothing more can go out. Cancelling it leaves the rest pending."""
        async with asyncio.TaskGroup() as lanes:
            lanes.create_task(self._serve(Lane(self._destination, Kind.EVENT), self._max_in_flight))
            lanes.create_task(self._serve(Lane(self._destination, Kind.PROFILE), 1))

    def drain(self) -> None:
        """Send what waits now without waiting for full batches, then let `run` return.

        A destination that is not answering is not waited for.
        """
        self._draining.set()
        self._breaker_changed.set()

    async def _serve(self, lane: Lane, max_in_flight: int) -> None:
        slots = asyncio.Semaphore(max_in_flight)
        async with asyncio.TaskGroup() as deliveries:
            while True:
                await slots.acquire()
                batch = await self._next(lane)
                if batch is None:
                    return
                ticket = await self._permit()
                if ticket is None:
                    return
                delivery = deliveries.create_task(self._deliver(batch, ticket))
                delivery.add_done_callback(lambda _: slots.release())

    async def _next(self, lane: Lane) -> Batch | None:
        """Return the next batch that is due; None once draining has nothing left that could go out."""
        if await self._until_permitted():
            fetch = asyncio.ensure_future(self._log.fetch(lane, self._policy))
            draining = asyncio.ensure_future(self._draining.wait())
            try:
                await asyncio.wait((fetch, draining), return_when=asyncio.FIRST_COMPLETED)
                fetch.cancel()  # which does nothing if it is done
                await asyncio.wait([fetch])
            finally:
                draining.cancel()
                fetch.cancel()
            if not fetch.cancelled():
                return fetch.result()
        if self._breaker.condition.state is not State.OK:
            return None
        rest = await self._log.fetch(lane, self._policy.at_once(), wait=False)
        return rest if rest.entries else None

    async def _until_permitted(self) -> bool:
        """Wait until the breaker lets a request through; False if draining began first."""
        while not self._draining.is_set() and (wait_s := self._breaker.wait_s()) != 0.0:
            self._breaker_changed.clear()
            await self._clock.wait(self._breaker_changed, wait_s)
        return not self._draining.is_set()

    async def _permit(self) -> int | None:
        """Take a ticket as soon as there is one; None if draining should not wait for it."""
        await self._until_permitted()
        return self._breaker.permit() if self._breaker.wait_s() == 0.0 else None

    async def _deliver(self, batch: Batch, ticket: int) -> None:
        started_at_ms, started_s = self._clock.wall_ms(), self._clock.monotonic_s()
        try:
            outcomes, answer = await self._send(batch)
        except asyncio.CancelledError:  # an interrupted record is no failure: it stays pending, no attempt is counted
            self._breaker.abandoned(ticket)
            raise
        note = self._judge(answer, ticket)
        log.info(
            "flusher.batch_answered",
            destination=self._destination,
            lane=batch.lane.name,
            events=len(outcomes),
            dead=sum(isinstance(outcome, Rejected) for outcome in outcomes),
            pending=sum(outcome is RETRY for outcome in outcomes),
            answer=note,
            duration_s=round(self._clock.monotonic_s() - started_s, 3),
        )
        condition, finished_at_ms = self._breaker.condition, self._clock.wall_ms()
        await self._settle(Settlement(batch, outcomes, condition, note, started_at_ms, finished_at_ms))

    async def _send(self, batch: Batch) -> tuple[Sequence[Outcome], Answer]:
        """Send a batch, in halves of halves where it was refused whole. The last answer is about the destination."""
        payloads = [entry.payload for entry in batch.entries]
        outcomes: list[Outcome] = [RETRY] * len(payloads)
        parts = [(0, len(payloads))]
        answer: Answer = Settled(())
        while parts and isinstance(answer, Settled | Split):
            start, end = parts.pop()
            answer = await self._sink.send(batch.lane.kind, payloads[start:end])
            match answer:
                case Settled():
                    outcomes[start:end] = answer.outcomes
                case Split() if end - start == 1:
                    outcomes[start] = Rejected(answer.code, "", answer.reason)
                case Split():
                    self._learn(answer)
                    middle = (start + end) // 2
                    parts += [(middle, end), (start, middle)]
                case Hold() | Pause():
                    pass
                case _:
                    assert_never(answer)
        return outcomes, answer

    def _learn(self, answer: Split) -> None:
        """Keep to the limit that the destination named, from the next fetch on."""
        if answer.max_bytes:
            self._policy = replace(self._policy, max_bytes=min(self._policy.max_bytes, answer.max_bytes))

    def _judge(self, answer: Answer, ticket: int) -> str:
        """Tell the breaker, and return what to note of the answer."""
        before = self._breaker.condition.state
        match answer:
            case Settled(note=note):
                self._breaker.succeeded(ticket)
            case Split(reason=note):
                self._breaker.succeeded(ticket)
            case Hold(reason=note, after_s=after_s):
                self._breaker.failed(ticket, note, after_s)
            case Pause(reason=note):
                self._breaker.paused(ticket, note)
            case _:
                assert_never(answer)
        self._breaker_changed.set()
        after = self._breaker.condition
        if after.state is not before:
            tell = log.info if after.state is State.OK else log.warning
            tell(
                "flusher.destination_changed",
                destination=self._destination,
                was=before,
                state=after.state,
                error=after.last_error,
            )
        return note

    async def _settle(self, settlement: Settlement) -> None:
        while True:
            try:
                await self._log.settle(settlement)
            except LogClosed:
                return  # the batch is pending at the next start, and is sent again
            except Unavailable as error:
                log.warning("flusher.settle_failed", destination=self._destination, error=str(error))
                await self._clock.wait(self._never, SETTLE_AGAIN_S)
            else:
                return
