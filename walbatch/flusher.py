"""Deliver what is pending at one destination: fetch, send, settle, for as long as it takes.

One loop a lane, several deliveries at once in the lane of events, one at a time in those of profiles and groups, whose
order counts. All lanes of a destination share its breaker. While it is not closed, one batch at a time goes out as a
probe, and everything else stays in the log, where it is safe and costs no memory. A destination that asks for less gets
fewer requests at once, and then one more at a time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import structlog

from walbatch.attempt import Attempt
from walbatch.batching import BatchPolicy
from walbatch.clock import Clock
from walbatch.delivery import (
    DELIVERED,
    Answer,
    Answered,
    Hold,
    Outcome,
    Pause,
    Rejected,
    Retry,
    Settled,
    Split,
    Unknown,
    attempt_of,
)
from walbatch.errors import LogClosed, Unavailable
from walbatch.event import Kind, repeatable
from walbatch.retry import Breaker, State
from walbatch.sinks import Sink
from walbatch.tracing import NO_TRACING, Tracing
from walbatch.wal import ORDERED, Batch, EventLog, Lane, Settlement
from walbatch.window import Window

log = structlog.stdlib.get_logger("walbatch.flusher")

STORE_AGAIN_S = 1.0
"""How long to wait before a settlement that could not be stored is tried again. The batch is held until then: what
was delivered must not be sent twice because the disk was full for a moment."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How records are delivered to one destination."""

    policies: Mapping[Kind, BatchPolicy]
    """When a batch of a kind is due, and how large it may be. A kind that is not in here is not delivered."""
    max_in_flight: int = 10
    """Requests with events under way at once, at most."""
    hold_unknown: bool = False
    """Whether an update that may have arrived, and would count twice, is held for a person instead of sent again."""


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
        manner: Manner,
        observe: Callable[[Answered], None] = lambda _: None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        """`observe` is called once for each batch, when its answer is known."""
        self._log = event_log
        self._sink = sink
        self._destination = destination
        self._breaker = breaker
        self._clock = clock
        self._observe = observe
        self._tracing = tracing
        self._policies = dict(manner.policies)
        self._hold_unknown = manner.hold_unknown
        self._window = Window(manner.max_in_flight)
        self._under_way: Counter[Kind] = Counter()
        self._slot_freed = asyncio.Event()
        self._breaker_changed = asyncio.Event()
        self._draining = asyncio.Event()
        self._never = asyncio.Event()

    async def run(self) -> None:
        """Deliver until `drain` was called and nothing more can go out. Cancelled, the rest stays pending, or held."""
        async with asyncio.TaskGroup() as lanes:
            for kind in self._policies:
                lanes.create_task(self._serve(Lane(self._destination, kind)))

    def drain(self) -> None:
        """Send what waits now without waiting for full batches, then let `run` return.

        A destination that is not answering is not waited for.
        """
        self._draining.set()
        self._breaker_changed.set()

    def ask_now(self) -> None:
        """Ask a destination that is not answering well at once, with one batch, instead of later."""
        self._breaker.probe_now()
        self._breaker_changed.set()

    async def _serve(self, lane: Lane) -> None:
        async with asyncio.TaskGroup() as deliveries:
            while True:
                await self._slot(lane.kind)
                batch = await self._next(lane)
                if batch is None:
                    return
                if self._breaker.wait_s() != 0.0:
                    self._log.release(batch)  # meanwhile the destination failed: what waits for it waits in the log
                    continue
                ticket = self._breaker.permit()
                self._under_way[lane.kind] += 1
                delivery = deliveries.create_task(self._deliver(batch, ticket))
                delivery.add_done_callback(lambda _: self._free(lane.kind))

    async def _slot(self, kind: Kind) -> None:
        """Wait until one more request of this kind may be under way."""
        while self._under_way[kind] >= (1 if kind in ORDERED else self._window.size):
            self._slot_freed.clear()
            await self._slot_freed.wait()

    def _free(self, kind: Kind) -> None:
        self._under_way[kind] -= 1
        self._slot_freed.set()

    async def _next(self, lane: Lane) -> Batch | None:
        """Return the next batch that is due; None once draining has nothing left that could go out."""
        if await self._until_permitted():
            fetch = asyncio.ensure_future(self._log.fetch(lane, self._policies[lane.kind]))
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
        rest = await self._log.fetch(lane, self._policies[lane.kind].at_once(), wait=False)
        return rest if rest.offsets else None

    async def _until_permitted(self) -> bool:
        """Wait until the breaker lets a request through; False if draining began first."""
        while not self._draining.is_set() and (wait_s := self._breaker.wait_s()) != 0.0:
            self._breaker_changed.clear()
            await self._clock.wait(self._breaker_changed, wait_s)
        return not self._draining.is_set()

    async def _deliver(self, batch: Batch, ticket: int) -> None:
        if not await self._note(batch):
            self._breaker.abandoned(ticket)
            return
        started_at_ms, started_s = self._clock.wall_ms(), self._clock.monotonic_s()
        attempt = Attempt(
            self._sink,
            batch.lane.kind,
            batch.payloads,
            overhead_bytes=self._policies[batch.lane.kind].overhead_bytes,
            hold_unknown=self._hold_unknown,
        )
        span = self._tracing.delivery(batch)
        try:
            await attempt.run()
        except asyncio.CancelledError:  # no failure: what was noted is held at the next start, the rest is pending
            self._breaker.abandoned(ticket)
            span.end(None)
            raise
        duration_s = self._clock.monotonic_s() - started_s
        failures = self._breaker.condition.failures
        self._learn(batch.lane.kind, attempt.max_bytes)
        note = self._judge(attempt.answer, ticket)
        span.end(self._tell(batch, attempt, note, failures, duration_s))
        condition, finished_at_ms = self._breaker.condition, self._clock.wall_ms()
        settlement = Settlement(batch, attempt.outcomes, condition, note, started_at_ms, finished_at_ms)
        await self._stored(lambda: self._log.settle(settlement))

    def _tell(self, batch: Batch, attempt: Attempt, note: str, failures: int, duration_s: float) -> Answered:
        """Tell of an answer, and return what was told: one line in the logs, and whoever observes."""
        became = Counter(type(outcome) for outcome in attempt.outcomes if outcome is not DELIVERED)
        dead, held, pending = became[Rejected], became[Unknown], became[Retry]
        tell = log.warning if held or attempt.warning else log.info
        tell(
            "flusher.batch_answered",
            destination=self._destination,
            lane=batch.lane.name,
            events=len(attempt.outcomes),
            dead=dead,
            held=held,
            pending=pending,
            answer=note,
            duration_s=round(duration_s, 3),
        )
        answered = Answered(
            destination=self._destination,
            lane=batch.lane.name,
            finished_at_ms=self._clock.wall_ms(),
            events=len(attempt.outcomes),
            sent=len(attempt.outcomes) - dead - held - pending,
            dead=dead,
            held=held,
            pending=pending,
            payload_bytes=sum(batch.sizes),
            attempt=failures + 1,
            answer=note,
            duration_s=duration_s,
            outcome=attempt_of(attempt.answer, whole=not became),
            dead_by_code=_by_code(attempt.outcomes) if dead else {},
            oldest_at_ms=batch.oldest_at_ms,
        )
        self._observe(answered)
        return answered

    async def _note(self, batch: Batch) -> bool:
        """Note what must not be sent twice, so that a crash holds it; say whether the batch may be sent."""
        if not self._hold_unknown or all(repeatable(batch.lane.kind, payload) for payload in batch.payloads):
            return True
        return await self._stored(lambda: self._log.intend(batch))

    def _learn(self, kind: Kind, max_bytes: int | None) -> None:
        """Keep to a limit that the destination has, from the next fetch on."""
        if max_bytes is not None:
            policy = self._policies[kind]
            self._policies[kind] = replace(policy, max_bytes=min(policy.max_bytes, max_bytes))

    def _judge(self, answer: Answer, ticket: int) -> str:
        """Tell the breaker, and return what to note of the answer."""
        before = self._breaker.condition.state
        match answer:
            case Settled(note=note) | Split(reason=note):
                self._breaker.succeeded(ticket)
                self._window.succeeded()
            case Hold(reason=note, after_s=after_s, throttled=throttled):
                if self._breaker.failed(ticket, note, after_s) and throttled:
                    self._window.throttled()
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

    async def _stored(self, store: Callable[[], Awaitable[None]]) -> bool:
        """Store until it succeeds; False if the log has closed: the next start knows what it knew."""
        while True:
            try:
                await store()
            except LogClosed:
                return False
            except Unavailable as error:
                log.warning("flusher.store_failed", destination=self._destination, error=str(error))
                await self._clock.wait(self._never, STORE_AGAIN_S)
            else:
                return True


def _by_code(outcomes: Sequence[Outcome]) -> Mapping[int, int]:
    return Counter(outcome.code for outcome in outcomes if isinstance(outcome, Rejected))
