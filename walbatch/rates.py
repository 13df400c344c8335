"""How fast records come in and go out, from two documents of `walbatch.stats`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Rates:
    """Records a second, between two documents."""

    accepted: float
    """Of all destinations together: a record counts once."""
    accepted_for: Mapping[str, float]
    delivered_to: Mapping[str, float]


def rates(before: Mapping[str, Any], after: Mapping[str, Any]) -> Rates | None:
    """Return the rates between two documents of one log; None if no time has passed, by the wall clock.

    What a purge or an erasure moves from one count to another is no delivery, and no rate is below 0.
    """
    seconds = (datetime.fromisoformat(after["at"]) - datetime.fromisoformat(before["at"])).total_seconds()
    if seconds <= 0:
        return None
    former = {one["name"]: one for one in before["destinations"]}
    pairs = [(former[one["name"]], one) for one in after["destinations"] if one["name"] in former]

    def per_second(earlier: int, later: int) -> float:
        return max(later - earlier, 0) / seconds

    return Rates(
        accepted=per_second(before["accepted"], after["accepted"]),
        accepted_for={new["name"]: per_second(_sum(old, "accepted"), _sum(new, "accepted")) for old, new in pairs},
        delivered_to={
            new["name"]: per_second(_sum(old, "sent", "purged"), _sum(new, "sent", "purged")) for old, new in pairs
        },
    )


def _sum(destination: Mapping[str, Any], *counts: str) -> int:
    return sum(lane[count] for lane in destination["lanes"] for count in counts)
