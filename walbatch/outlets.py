"""From the settings of destinations to what delivers to them: a sink, a breaker and a flusher for each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import assert_never

from walbatch.batching import BatchPolicy
from walbatch.clock import Clock
from walbatch.delivery import Answered
from walbatch.destinations import (
    Destination,
    MixpanelDestination,
    NdjsonDestination,
    StdoutDestination,
    secret,
)
from walbatch.event import Kind
from walbatch.flusher import Flusher, Manner
from walbatch.retry import Backoff, Breaker
from walbatch.settings import Settings
from walbatch.sinks import Sink
from walbatch.sinks.http import HttpSink
from walbatch.sinks.mixpanel import MAX_RECORDS, REGION_URLS, Credentials, Mixpanel
from walbatch.sinks.ndjson import NdjsonSink
from walbatch.sinks.stdout import StdoutSink
from walbatch.tracing import NO_TRACING, Tracing
from walbatch.wal import EventLog

SPACING_S = 0.1
"""Between two requests of a lane that are not full. At 10,000 events a second a request of 50 each took 40 % of the
event loop (2 cores, 2026-11-23); ten a second with a thousand each take a few percent."""


class Outlets:
    """Everything that delivers. One destination never waits for another."""

    def __init__(self, flushers: Mapping[str, Flusher]) -> None:
        self._flushers = flushers

    async def run(self) -> None:
        """Deliver until `drain` was called and nothing more can go out."""
        async with asyncio.TaskGroup() as running:
            for flusher in self._flushers.values():
                running.create_task(flusher.run())

    def drain(self) -> None:
        """Send what waits now without waiting for full batches, then let `run` return."""
        for flusher in self._flushers.values():
            flusher.drain()

    def ask_now(self, destination: str) -> None:
        """Ask a destination that is backing off at once."""
        self._flushers[destination].ask_now()


@asynccontextmanager
async def open_outlets(
    settings: Settings,
    destinations: Mapping[str, Destination],
    event_log: EventLog,
    clock: Clock,
    *,
    observe: Callable[[Answered], None] = lambda _: None,
    tracing: Tracing = NO_TRACING,
) -> AsyncIterator[Outlets]:
    """Open every sink, and go on with the backoff that was stored. Leaving it closes the sinks.

    `observe` is called for each batch, when its answer is known.

    Raises:
        ConfigurationError: a sink cannot be opened as it is configured.
    """
    conditions = {d.name: d.condition for d in (await event_log.backlog()).destinations}
    backoff = Backoff(settings.retry_base, settings.retry_max, settings.retry_attempts)
    async with AsyncExitStack() as stack:
        flushers = {}
        for name, destination in destinations.items():
            sink, manner = _outlet(settings, destination, clock)
            await stack.enter_async_context(sink)
            breaker = Breaker(backoff, clock, random.random, conditions[name])
            flushers[name] = Flusher(
                event_log,
                sink,
                name,
                breaker=breaker,
                clock=clock,
                manner=manner,
                observe=observe,
                tracing=tracing,
            )
        yield Outlets(flushers)


def _outlet(settings: Settings, destination: Destination, clock: Clock) -> tuple[Sink, Manner]:
    policy = BatchPolicy(
        size=settings.batch_size,
        max_age_s=settings.flush_interval,
        max_size=settings.batch_max,
        spacing_s=min(SPACING_S, settings.flush_interval),
    )
    policies = dict.fromkeys(Kind, policy)
    match destination:
        case MixpanelDestination():
            api = api_of(destination)
            sink = HttpSink(api, timeout_s=destination.timeout, max_connections=settings.max_in_flight + 2)
            policies = {kind: _fitted(policy, api, kind) for kind in policies}
            return sink, Manner(policies, settings.max_in_flight, destination.unknown_outcomes == "hold")
        case NdjsonDestination():
            archive = NdjsonSink(
                destination.directory,
                rotate_bytes=destination.rotate_size,
                rotate_s=destination.rotate_every,
                clock=clock,
            )
            return archive, Manner(policies, max_in_flight=1)
        case StdoutDestination():
            return StdoutSink(), Manner(policies, max_in_flight=1)
        case _:
            assert_never(destination)


def api_of(destination: MixpanelDestination) -> Mixpanel:
    """Return the requests and answers of a project, as it is configured."""
    credentials = Credentials(
        token=secret(destination.token),
        service_account=destination.service_account or "",
        service_secret=secret(destination.service_secret),
        project_id=destination.project_id,
    )
    return Mixpanel(destination.url or REGION_URLS[destination.region], credentials)


def _fitted(policy: BatchPolicy, api: Mixpanel, kind: Kind) -> BatchPolicy:
    """Return the policy within what a request of this kind may hold."""
    limit = MAX_RECORDS[kind]
    return replace(
        policy,
        size=min(policy.size, limit),
        max_size=min(policy.max_size, limit),
        overhead_bytes=policy.overhead_bytes + api.overhead_bytes(kind),
    )
