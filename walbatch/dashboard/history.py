"""The last hour in numbers, kept in memory. Pure: whoever samples brings the counts, the clock is passed in."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from walbatch.clock import Clock

INTERVAL_S = 10.0
"""Between two samples. 361 of them are the hour, and take 60 kB."""

KEPT_S = 3600.0

PACE_S = 5.0
"""The pace is over at least so long, and at most an interval more: a shorter one jumps with each batch."""


class Sample(NamedTuple):
    """What was counted at one moment. The first two only grow."""

    number: int
    """1, 2, 3, ... since the start of the server."""
    at_s: float
    """By the monotonic clock: a wall clock that jumps must not bend the hour."""
    accepted: int
    sent: int
    pending: int


class Pace(NamedTuple):
    """Records a second, of late."""

    received: float
    sent: float


class History:
    """The samples of the last hour, oldest first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._samples: deque[Sample] = deque()
        self._number = 0

    def add(self, accepted: int, sent: int, pending: int) -> None:
        """Keep one sample of this moment, and drop what is older than an hour."""
        self._number += 1
        now_s = self._clock.monotonic_s()
        self._samples.append(Sample(self._number, now_s, accepted, sent, pending))
        while now_s - self._samples[0].at_s > KEPT_S:
            self._samples.popleft()

    def after(self, number: int) -> list[Sample]:
        """Return the samples with a higher number; 0 returns all."""
        return [sample for sample in self._samples if sample.number > number]

    def pace(self, accepted: int, sent: int) -> Pace:
        """Compare counts of this moment with the youngest sample that is old enough, or the oldest that there is."""
        now_s = self._clock.monotonic_s()
        old_enough = (s for s in reversed(self._samples) if now_s - s.at_s >= PACE_S)
        since = next(old_enough, self._samples[0] if self._samples else None)
        if since is None or now_s <= since.at_s:
            return Pace(0.0, 0.0)
        seconds = now_s - since.at_s
        return Pace((accepted - since.accepted) / seconds, (sent - since.sent) / seconds)
