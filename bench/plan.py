"""How much is measured, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of one run. The full ones are those of the page."""

    scratch: Path
    rounds: int = 5
    seconds: float = 4.0
    """Of one load."""
    drained: int = 1_000_000
    """Events of the backlog that is drained."""
    drained_by_peers: int = 200_000
    """Events that the other tools send: their rate does not depend on it."""
    small: int = 10_000
    large: int = 10_000_000
    """The two backlogs that are compared."""
    window: int = 500_000
    """Events of a drain within the large backlog, and of the smaller one that it is compared with."""
    idle_s: float = 30.0
    life: int = 200_000
    """Events of a whole life, up to their deletion."""
    beside_drain: int = 1_500_000
    """Events of the backlog that drains while the latency is measured."""


def quick(scratch: Path) -> Plan:
    """Return sizes that only show that everything works."""
    return Plan(
        scratch,
        rounds=1,
        seconds=0.4,
        drained=20_000,
        drained_by_peers=20_000,
        small=2_000,
        large=50_000,
        window=20_000,
        idle_s=1.0,
        life=2_000,
        beside_drain=50_000,
    )
