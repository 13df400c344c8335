"""The sink's contract: one way to hand records to a destination."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

from walbatch.delivery import Answer
from walbatch.event import Kind


class Sink(Protocol):
    """A place that records go to. Entering the context connects nothing; leaving it closes every connection."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def send(self, kind: Kind, payloads: Sequence[str]) -> Answer:
        """Hand over records of one kind, at least one, and say what the destination answered.

        See `walbatch.delivery` for the answers. Never raises for anything that the destination or the network
        does: those are answers. Bounded in time. Cancelling it leaves the outcome unknown; the records are then
        sent again, byte for byte.
        """
        ...
