"""How many requests may be under way at one destination. Pure.

Additive increase, multiplicative decrease: each destination gets as much as it takes, and finds that out by itself.
A window of n grows by one for every n requests that succeed, and is halved when the destination asks for less.
"""

from __future__ import annotations


class Window:
    """A number of requests between 1 and `maximum`."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._size = float(maximum)

    @property
    def size(self) -> int:
        """Return how many requests may be under way."""
        return int(self._size)

    def succeeded(self) -> None:
        """Count one request that was answered."""
        self._size = min(self._size + 1 / self._size, float(self._maximum))

    def throttled(self) -> None:
        """Halve: the destination asks for less. Once for all requests that were under way together."""
        self._size = max(self._size / 2, 1.0)
