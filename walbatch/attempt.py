"""One batch's way to a destination: sent whole, in parts where the whole was refused, and judged record by record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from walbatch.batching import byte_length
from walbatch.delivery import RETRY, Answer, Hold, Outcome, Pause, Rejected, Settled, Split, Unknown, all_delivered
from walbatch.event import Kind, repeatable
from walbatch.sinks import Sink

TOO_LARGE = 413

GUESSED_BYTES = 65_536
"""The smallest limit that is guessed where a refusal names none: one strange answer must not shrink every batch."""


class Attempt:
    """Sends the payloads of one batch once, and knows afterwards what became of each.

    A request that is refused as a whole is divided, so that one bad record among n is found within 2 log2(n) + 1
    requests and the others are delivered. It stops at the first answer that is about the destination.
    """

    def __init__(
        self, sink: Sink, kind: Kind, payloads: Sequence[str], *, overhead_bytes: int = 1, hold_unknown: bool = False
    ) -> None:
        """With `hold_unknown`, what may have arrived and would count twice becomes `Unknown` instead of `Retry`."""
        self._sink = sink
        self._kind = kind
        self._payloads = payloads
        self._overhead_bytes = overhead_bytes
        self._hold_unknown = hold_unknown
        self.outcomes: list[Outcome] = [RETRY] * len(payloads)
        """What became of each payload, by position."""
        self.answer: Answer = Settled(())
        """The last answer, which says how the destination is doing."""
        self.max_bytes: int | None = None
        """The largest request that the destination takes, if this attempt has learnt of a limit."""
        self.warning = False
        """Whether an answer needs a person's eyes, although it settled its records."""

    async def run(self) -> None:
        """Send everything. Cancelling it leaves what was under way unknown."""
        await self._ask(range(len(self._payloads)))

    async def _ask(self, part: Sequence[int]) -> bool:
        """Send some of the payloads, given by position, and see them through; say whether one request delivered all."""
        if isinstance(self.answer, Hold | Pause) or not part:
            return False
        self.answer = await self._sink.send(self._kind, self._payloads_of(part))
        match self.answer:
            case Settled(outcomes=outcomes, warning=warning):
                self.warning |= warning
                self._keep(part, outcomes)
                return all_delivered(outcomes)
            case Split() as refusal:
                await self._refused(part, refusal)
            case Hold(unknown=unknown, reason=reason):
                if unknown:
                    self._set_aside(part, reason)
            case Pause():
                pass
            case _:
                assert_never(self.answer)
        return False

    def _payloads_of(self, part: Sequence[int]) -> Sequence[str]:
        if isinstance(part, range):  # a batch as a whole, or half of it: nothing is done record by record
            return self._payloads[part.start : part.stop]
        return [self._payloads[index] for index in part]

    def _keep(self, part: Sequence[int], outcomes: Sequence[Outcome]) -> None:
        if len(outcomes) != len(part):
            raise ValueError("an answer needs one outcome for each record")
        if isinstance(part, range):
            self.outcomes[part.start : part.stop] = outcomes
        else:
            for index, outcome in zip(part, outcomes, strict=True):
                self.outcomes[index] = outcome

    async def _refused(self, part: Sequence[int], refusal: Split) -> None:
        if len(part) == 1:
            self.outcomes[part[0]] = Rejected(refusal.code, "", refusal.reason)
        elif refusal.unknown and (rest := self._set_aside(part, refusal.reason)) != list(part):
            await self._ask(rest)
        elif refusal.code == TOO_LARGE:
            for piece in self._pieces(part, refusal):
                await self._ask(piece)
        else:
            await self._halve(part, refusal)

    async def _halve(self, part: Sequence[int], refusal: Split) -> None:
        first, second = part[: len(part) // 2], part[len(part) // 2 :]
        if await self._ask(first) and len(second) > 1:
            await self._halve(second, refusal)  # what is wrong must be in here: no need to ask about it as a whole
        else:
            await self._ask(second)

    def _set_aside(self, part: Sequence[int], reason: str) -> list[int]:
        """Take out what must not be sent twice, if that is the policy, and return the rest."""
        if not self._hold_unknown:
            return list(part)
        rest = []
        for index in part:
            if repeatable(self._kind, self._payloads[index]):
                rest.append(index)
            else:
                self.outcomes[index] = Unknown(reason)
        return rest

    def _pieces(self, part: Sequence[int], refusal: Split) -> Iterator[Sequence[int]]:
        """Cut what was too large: at the limit that was named, or else in halves."""
        sizes = [byte_length(self._payloads[index]) + self._overhead_bytes for index in part]
        limit = refusal.max_bytes or 0
        if not 0 < limit < sum(sizes):
            limit = sum(sizes) // 2
        learnt = refusal.max_bytes or max(limit, GUESSED_BYTES)
        self.max_bytes = min(learnt, self.max_bytes or learnt)
        start = room = 0
        for position, size in enumerate(sizes):
            if position == start:
                room = limit - 1  # one bracket is not counted as a comma
            elif size > room:
                yield part[start:position]
                start, room = position, limit - 1
            room -= size
        yield part[start:]
