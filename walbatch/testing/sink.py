"""A destination that answers as it was told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Self

from walbatch.delivery import DELIVERED, Answer, Delivered, Settled
from walbatch.event import Kind

Answering = Callable[[Kind, Sequence[str]], Answer]
"""A rule for answers: from a request to what is said to it."""


class Call(NamedTuple):
    """One request."""

    kind: Kind
    payloads: Sequence[str]


def accept(kind: Kind, payloads: Sequence[str]) -> Answer:
    """Answer that every record was taken."""
    del kind
    return Settled([DELIVERED] * len(payloads))


class ScriptedSink:
    """A `Sink` for tests. It answers by its script, and remembers what it was sent.

    A script is a rule, or a list with an answer or a rule for each call. When a list has come to its end, everything
    is accepted.
    """

    def __init__(self, script: Answering | Iterable[Answer | Answering] = ()) -> None:
        self._rule = script if callable(script) else accept
        self._script = iter(()) if callable(script) else iter(script)
        self._open = asyncio.Event()
        self._open.set()
        self._changed = asyncio.Event()
        self._in_flight: Counter[Kind] = Counter()
        self.calls: list[Call] = []
        """Every request, answered or not, in order of arrival."""
        self.delivered: list[str] = []
        """Every payload that was answered with `Delivered`, in the order of the answers."""
        self.most_in_flight: Counter[Kind] = Counter()
        """The largest number of requests of each kind that were unanswered at the same time."""
        self.closed = 0
        """How often the context was left."""

    async def __aenter__(self) -> Self:
        """Return the sink; it connects to nothing."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Count the closing."""
        self.closed += 1

    async def send(self, kind: Kind, payloads: Sequence[str]) -> Answer:
        """Answer as the script says, as soon as the sink is not held."""
        self.calls.append(Call(kind, list(payloads)))
        self._in_flight[kind] += 1
        self.most_in_flight[kind] = max(self.most_in_flight[kind], self._in_flight[kind])
        self._changed.set()
        try:
            answer = next(self._script, self._rule)
            await self._open.wait()
        finally:
            self._in_flight[kind] -= 1
        if callable(answer):
            answer = answer(kind, payloads)
        if isinstance(answer, Settled):
            pairs = zip(payloads, answer.outcomes, strict=True)
            self.delivered += [payload for payload, outcome in pairs if isinstance(outcome, Delivered)]
        self._changed.set()
        return answer

    def hold(self) -> None:
        """Answer nothing from now on."""
        self._open.clear()

    def release(self) -> None:
        """Answer what is waiting, and whatever comes."""
        self._open.set()

    async def called(self, times: int) -> Call:
        """Wait for that many calls in all, and return the last of them."""
        while len(self.calls) < times:
            self._changed.clear()
            await self._changed.wait()
        return self.calls[times - 1]

    async def has(self, count: int) -> None:
        """Wait until that many payloads in all were delivered."""
        while len(self.delivered) < count:
            self._changed.clear()
            await self._changed.wait()
