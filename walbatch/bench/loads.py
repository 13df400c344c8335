"""Loads on a server by our client in Python, from a process of its own, and whether the server has what it answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from walbatch.bench.processes import PYTHON, Walbatch, output
from walbatch.errors import MeasurementFailed


@dataclass(frozen=True, slots=True)
class Load:
    """What a load measured. Of the `events` some were before the measurement, to warm up."""

    events: int
    events_per_s: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    late_ms: float = 0.0
    refused: int = 0
    """Calls whose stream was reset. Clients of gRPC try each of those once more by themselves, h2load does not."""
    durability: str = ""
    """What the answers said of it."""


def python(address: str, mode: str, in_flight: int, seconds: float) -> Load:
    """Run our own client."""
    command = [*PYTHON, "walbatch.bench.client", address, mode, str(in_flight), str(seconds)]
    return Load(**json.loads(output(command)))


class Checked:
    """Loads on a walbatch server, whose own counter must have what was answered."""

    def __init__(self, server: Walbatch, seconds: float) -> None:
        self.server = server
        self._seconds = seconds

    def python(self, mode: str, in_flight: int) -> Load:
        """See `python`."""
        return self.checked(lambda: python(self.server.address, mode, in_flight, self._seconds))

    def checked(self, load: Callable[[], Load]) -> Load:
        """Run a load.

        Raises:
            MeasurementFailed: the server accepted less than it answered, so no figure means anything.
        """
        before = self._accepted()
        done = load()
        accepted = self._accepted() - before
        if accepted < done.events:
            raise MeasurementFailed(f"{done.events:,} events were answered, and the server accepted {accepted:,}")
        return done

    def _accepted(self) -> int:
        return int(self.server.stats()["accepted"])
