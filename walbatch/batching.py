"""When a batch is due, and how large it may be. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """A batch is due at `size` records, or when the oldest has waited `max_age_s`, whichever comes first.

    It takes what is waiting at that moment, so it grows by itself when delivery is behind, up to `max_size`
    records and `max_bytes` of payload. A later arrival never restarts the wait of the oldest.
    """

    size: int = 50
    max_age_s: float = 10.0
    max_size: int = 2000
    max_bytes: int = 2_000_000

    def due_in_s(self, waiting: int, oldest_age_s: float) -> float | None:
        """Return the seconds until a batch is due: 0.0 for now, None while nothing waits."""
        if waiting == 0:
            return None
        if waiting >= self.size:
            return 0.0
        return max(self.max_age_s - oldest_age_s, 0.0)

    def at_once(self) -> BatchPolicy:
        """Return the same policy for a flush on demand: whatever waits is due now."""
        return replace(self, size=1, max_age_s=0.0)


def byte_length(payload: str) -> int:
    """Return the length in UTF-8, which for ASCII needs no copy."""
    return len(payload) if payload.isascii() else len(payload.encode())
