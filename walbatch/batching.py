"""When a batch is due, and how large it may be. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """A batch is due at `size` records, or when the oldest has waited `max_age_s`, whichever comes first.

    It takes what is waiting at that moment, so it grows by itself when delivery is behind, up to `max_size`
    records and `max_bytes` of payload. A later arrival never restarts the wait of the oldest. One that is not full
    goes out `spacing_s` after the one before, at the earliest.
    """

    size: int = 50
    max_age_s: float = 10.0
    max_size: int = 2000
    max_bytes: int = 2_000_000
    overhead_bytes: int = 1
    """What the request adds to each payload: a comma or a bracket, and whatever the destination wants in front."""
    spacing_s: float = 0.0
    """A request costs as much as some hundred records in it: when many come, few large ones take less than many small
    ones, here and there."""

    def due_in_s(self, waiting: int, oldest_age_s: float, since_last_s: float = inf) -> float | None:
        """Return the seconds until a batch is due: 0.0 for now, None while nothing waits."""
        if waiting == 0:
            return None
        if waiting >= self.max_size:
            return 0.0
        rest_s = max(self.spacing_s - since_last_s, 0.0)
        return rest_s if waiting >= self.size else max(self.max_age_s - oldest_age_s, rest_s)

    def due_sooner_at(self, waiting: int) -> int:
        """Return how many records must wait for a batch to be due sooner than it is with so many."""
        return 1 if waiting == 0 else self.size if waiting < self.size else self.max_size

    def at_once(self) -> BatchPolicy:
        """Return the same policy for a flush on demand: whatever waits is due now."""
        return replace(self, size=1, max_age_s=0.0, spacing_s=0.0)


class Turns:
    """Whose turn it is in a lane: what is behind, or what is live.

    Behind is what was given back, and everything up to the moment at which delivery was seen to lag; it is due at
    once, oldest first. Live is what came after that. While both have a batch due they take turns, so that fresh
    records leave within seconds whatever the backlog. In an `ordered` lane nothing overtakes.
    """

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._live_next = False
        self._live_s = -inf
        """When the last live batch was handed out."""

    def next_due(
        self, policy: BatchPolicy, behind: int, live: int, live_age_s: float, now_s: float
    ) -> tuple[float | None, bool]:
        """Return the seconds until a batch is due, as `BatchPolicy.due_in_s`, and whether it is to be a live one."""
        live_due_s = policy.due_in_s(live, live_age_s, now_s - self._live_s)
        if not behind:
            return live_due_s, True
        return 0.0, live_due_s == 0.0 and self._live_next and not self._ordered

    def took(self, *, live: bool, now_s: float) -> None:
        """Note whose batch was handed out: the other one is next."""
        self._live_next = not live
        if live:
            self._live_s = now_s

    def lags(self, policy: BatchPolicy, live: int, live_age_s: float) -> bool:
        """Say whether what is live should count as behind: more than a batch of it is overdue."""
        return not self._ordered and live > policy.max_size and live_age_s > policy.max_age_s


def byte_length(payload: str) -> int:
    """Return the length in UTF-8, which for ASCII needs no copy."""
    return len(payload) if payload.isascii() else len(payload.encode())


def byte_lengths(payloads: Sequence[str]) -> list[int]:
    """Return the length of each in UTF-8; if all are ASCII, in a fifth of the time that `byte_length` takes."""
    return list(map(len if all(map(str.isascii, payloads)) else byte_length, payloads))
