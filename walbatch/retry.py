"""Backoff and breaker: when to ask a destination again. Nothing here waits; it says how long to wait.

    ok ──failure──▶ retrying ──more failures than the ramp has──▶ open
     ▲                 │  one batch after 1, 2, 4, 8, 16 s          │  one batch after at most 60 s
     └────success──────┴────────────────────◀──────────────────────┘
    a Pause from any state ──▶ paused: one batch every 60 s, until the answer is another one

While the state is not ok, one batch at a time is let through as a probe. No count of failures ever means loss.
The state is stored with each settlement, so that a restart does not start the ramp anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from walbatch.clock import Clock


class State(StrEnum):
    """What a destination is doing, as stored and shown."""

    OK = "ok"
    RETRYING = "retrying"
    OPEN = "open"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Condition:
    """A destination's stored state, as its answers have made it. `retry_at_ms` is wall time; None means at once."""

    state: State = State.OK
    failures: int = 0
    retry_at_ms: int | None = None
    last_error: str | None = None
    since_ms: int | None = None
    """When the present row of failures began, in wall time; None while the state is ok."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait after the n-th failure in a row, in seconds.

    base * 2 ** (n - 1) for the first `attempts` failures (1, 2, 4, 8, 16), exactly; after that the doubling goes
    on up to `max_s`, shortened by up to a fifth at random, so that many installations do not probe in step.
    """

    base_s: float = 1.0
    max_s: float = 60.0
    attempts: int = 5

    def delay_s(self, failures: int, random: float) -> float:
        """Return the wait; `random` is uniform in [0, 1)."""
        doublings = min(failures - 1, 60)  # 2.0 ** 1024 would overflow in a very long outage
        delay = min(self.base_s * 2.0**doublings, self.max_s)
        return delay if failures <= self.attempts else delay * (1.0 - 0.2 * random)


MAX_RETRY_AFTER_S = 300.0
"""A Retry-After beyond this is cut: a typing error at the other end must not stop delivery for a day."""


class Breaker:
    """One destination's condition, and who may send next.

    Each request carries the ticket it was permitted with. A failure counts only if no other failure was counted
    since its ticket was given: ten requests that fail in one outage are one failure. Shutdown reports nothing.
    """

    def __init__(
        self, backoff: Backoff, clock: Clock, random: Callable[[], float], condition: Condition | None = None
    ) -> None:
        self._backoff = backoff
        self._clock = clock
        self._random = random
        self.condition = condition or Condition()
        # A stored time further ahead than any wait of ours means that the wall clock jumped: it is cut to that wait.
        ahead_s = ((self.condition.retry_at_ms or 0) - clock.wall_ms()) / 1000
        self._retry_at_s = clock.monotonic_s() + min(max(ahead_s, 0.0), max(backoff.max_s, MAX_RETRY_AFTER_S))
        self._generation = 0
        self._probing = False

    def wait_s(self) -> float | None:
        """Return how long to wait before taking a ticket: 0.0 for now, None until the probe under way has ended."""
        if self.condition.state is State.OK:
            return 0.0
        if self._probing:
            return None
        return max(self._retry_at_s - self._clock.monotonic_s(), 0.0)

    def permit(self) -> int:
        """Take the ticket for one request, once `wait_s` is 0.0. Hand it back to exactly one of the next four."""
        self._probing = self.condition.state is not State.OK
        return self._generation

    def probe_now(self) -> None:
        """Let the next probe go at once, whatever was to be waited for; one that is under way is still the only one."""
        self._retry_at_s = self._clock.monotonic_s()

    def abandoned(self, ticket: int) -> None:
        """Forget a ticket: nothing was sent, or the answer no longer matters."""
        if ticket == self._generation:
            self._probing = False

    def succeeded(self, ticket: int) -> None:
        """Close the breaker, unless a failure was counted after this request was permitted."""
        if ticket == self._generation and self.condition.state is not State.OK:
            self._probing = False
            self.condition = Condition()

    def failed(self, ticket: int, reason: str, after_s: float | None = None) -> bool:
        """Count a failure; probe after our own wait or the one that was asked for, whichever is longer.

        Returns whether it counted: False if another request of the same outage failed before.
        """
        failures = self.condition.failures + 1
        delay_s = max(self._backoff.delay_s(failures, self._random()), min(after_s or 0.0, MAX_RETRY_AFTER_S))
        return self._open(ticket, State.RETRYING if failures <= self._backoff.attempts else State.OPEN, delay_s, reason)

    def paused(self, ticket: int, reason: str) -> None:
        """Wait for a person, probing at the longest interval."""
        self._open(ticket, State.PAUSED, self._backoff.max_s, reason)

    def _open(self, ticket: int, state: State, delay_s: float, reason: str) -> bool:
        if ticket != self._generation:
            self.condition = replace(self.condition, last_error=reason)
            return False
        self._generation += 1
        self._probing = False
        self._retry_at_s = self._clock.monotonic_s() + delay_s
        now_ms, before = self._clock.wall_ms(), self.condition
        since_ms = now_ms if before.since_ms is None else before.since_ms
        self.condition = Condition(state, before.failures + 1, now_ms + round(delay_s * 1000), reason, since_ms)
        return True
