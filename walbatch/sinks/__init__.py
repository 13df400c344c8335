"""The sink's contract: one way to hand a batch to a destination."""

from __future__ import annotations

from typing import Protocol, Self

from walbatch.delivery import Answer
from walbatch.wal import Batch


class Sink(Protocol):
    """A place that records go to. Entering the context connects nothing; leaving it closes every connection."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def send(self, batch: Batch) -> Answer:
        """Hand over a batch and say what the destination answered; see `walbatch.delivery`.

        Never raises for anything that the destination or the network does: those are answers. Bounded in time.
        Cancelling it leaves the outcome unknown; the batch is then sent again, byte for byte.
        """
        ...
