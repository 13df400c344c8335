"""What a project may send within a minute. Pure: the caller brings the time."""

from __future__ import annotations

from collections import deque

WINDOW_S = 60.0


class RollingMinute:
    """Counts events and bytes of the last minute against limits; 0 is no limit.

    Mixpanel's are 2 GB of uncompressed JSON, or about 30,000 events a second, for each project
    (https://docs.mixpanel.com/reference/import-events). What is refused for its content counts, what is refused for
    the rate does not.
    """

    def __init__(self) -> None:
        self._taken: deque[tuple[float, int, int]] = deque()
        self._events = 0
        self._bytes = 0

    def has_room(self, now_s: float, *, max_events: int, max_bytes: int) -> bool:
        """Say whether the limits are not reached yet: the request that reaches them is still taken."""
        while self._taken and self._taken[0][0] <= now_s - WINDOW_S:
            _, events, size = self._taken.popleft()
            self._events -= events
            self._bytes -= size
        return not (0 < max_events <= self._events or 0 < max_bytes <= self._bytes)

    def take(self, now_s: float, events: int, size: int) -> None:
        """Count a request."""
        self._taken.append((now_s, events, size))
        self._events += events
        self._bytes += size
