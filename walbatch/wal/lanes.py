"""Which part of the log a lane has handed out, given back and settled. Pure; the same code for every use of it.

    offsets   1 ........ 40   41 .... 90   91 .... 140   141 ......
              settled         in flight    given back    not yet read
                          ▲ watermark                    ▲ next

The watermark is what is stored as `settled_through`: everything up to it is settled. What was settled above it, while
something below was still in flight, is stored as ranges, and comes back as islands at the next start.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Collection, Iterable, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

from walbatch.delivery import Outcome, Retry, all_delivered
from walbatch.event import Offset
from walbatch.wal import Batch

END = Offset(2**63 - 1)
"""The largest offset that SQLite can hold: "up to the end of the log"."""


class Span(NamedTuple):
    """Offsets from `first` through `last`; offsets of other lanes may lie between them."""

    first: Offset
    last: Offset


class Run(NamedTuple):
    """Neighbours in a batch that are either all settled, or all given back."""

    settled: bool
    offsets: Sequence[Offset]
    outcomes: Sequence[Outcome]
    size: int
    """Bytes of the payloads."""

    @property
    def span(self) -> Span:
        """Return the offsets from the first record to the last."""
        return Span(self.offsets[0], self.offsets[-1])


def runs(batch: Batch, outcomes: Sequence[Outcome]) -> list[Run]:
    """Cut a batch where its outcomes change between settled and `Retry`."""
    count = len(batch.offsets)
    if count != len(outcomes):
        raise ValueError("a batch needs one outcome for each record")
    kept = [] if all_delivered(outcomes) else [isinstance(outcome, Retry) for outcome in outcomes]
    turns = [place for place, pair in enumerate(pairwise(kept), 1) if pair[0] is not pair[1]]
    return [
        Run(not kept or not kept[start], batch.offsets[start:end], outcomes[start:end], sum(batch.sizes[start:end]))
        for start, end in pairwise([0, *turns, count] if count else [])
    ]


class Position(NamedTuple):
    """What only memory knows of a lane, at one moment."""

    in_flight: int
    watermark: int


class LaneState:
    """One lane's position in the log. Every method is called after the disk has it.

    What was given back, or was waiting when delivery fell behind, is kept as spans; see `walbatch.batching.Turns`.
    """

    def __init__(self, settled_through: int, islands: Iterable[Span], waiting: int, last: int) -> None:
        """Begin after a watermark. `last` is the end of the log, `waiting` what the lane still owes of it."""
        self._next = Offset(settled_through + 1)
        self._spans: list[Span] = []
        self._in_flight: dict[Offset, Sequence[Offset]] = {}
        self.behind = 0
        """Records that can be fetched from the spans."""
        self.live = waiting
        """Records that can be fetched from the end of the log."""
        if waiting == 0:  # nothing of the log is this lane's any more
            self._next = Offset(max(last, settled_through) + 1)
            return
        found = sorted(islands)
        for first, end in found:
            if first > self._next:
                self._spans.append(Span(self._next, Offset(first - 1)))
            self._next = max(self._next, Offset(end + 1))
        if self._spans:  # how many of the waiting are in which gap is not known, and does not matter
            self.fall_behind(last)

    @property
    def to_read(self) -> int:
        """Return `behind`, but at least 1 while there are spans: one without records is read once, and forgotten."""
        return max(self.behind, 1) if self._spans else 0

    @property
    def position(self) -> Position:
        """Return how many records are in flight, and the offset up to which everything is settled."""
        return Position(sum(map(len, self._in_flight.values())), self._lowest(self._in_flight) - 1)

    def watermark_after(self, settled: Iterable[Offset], given_back: Iterable[Run]) -> int:
        """Return the watermark once the batches that begin at `settled` are settled, but for what was given back."""
        firsts = (run.span.first for run in given_back)
        return self._lowest([*(self._in_flight.keys() - set(settled)), *firsts]) - 1

    def _lowest(self, in_flight: Iterable[Offset]) -> int:
        return min([self._next, *in_flight, *(span.first for span in self._spans[:1])])

    def appended(self, count: int, after: int) -> None:
        """Count records that were appended behind an offset, which was the end of the log."""
        if self.live == 0:  # what lies between was for other lanes: no need ever to read it
            self._next = max(self._next, Offset(after + 1))
        self.live += count

    def fall_behind(self, last: int) -> None:
        """Count everything up to the end of the log as behind."""
        if last >= self._next:
            first = self._next
            if self._spans and self._spans[-1].last == first - 1:
                first = self._spans.pop().first
            self._spans.append(Span(first, Offset(last)))
            self._next = Offset(last + 1)
        self.behind, self.live = self.behind + self.live, 0

    def next_span(self, *, live: bool) -> Span:
        """Return where the next fetch has to read: the end of the log, or the oldest of what is behind."""
        return Span(self._next, END) if live or not self._spans else self._spans[0]

    def hand_out(self, span: Span, offsets: Sequence[Offset], *, more: bool) -> None:
        """Mark what a fetch read from `span`, which `next_span` gave. `more`: the span has further records."""
        if span.last == END:
            self._next = max(self._next, Offset(offsets[-1] + 1)) if offsets else self._next
            self.live -= len(offsets)
        else:
            self._spans.remove(span)
            if more:
                insort(self._spans, Span(Offset(offsets[-1] + 1), span.last))
            self.behind -= len(offsets)
        if offsets:
            self._in_flight[offsets[0]] = offsets

    def holds(self, first: Offset) -> bool:
        """Say whether the batch that begins here is in flight."""
        return first in self._in_flight

    @property
    def in_flight(self) -> Iterable[Offset]:
        """Return every record that is in flight."""
        return chain.from_iterable(self._in_flight.values())

    def release(self, first: Offset) -> None:
        """Take back all of the batch that begins here."""
        offsets = self._in_flight.pop(first)
        insort(self._spans, Span(offsets[0], offsets[-1]))
        self.behind += len(offsets)

    def erased(self, waiting: Collection[Offset]) -> None:
        """Count records of this lane no more that were deleted while they waited to be fetched."""
        live = sum(offset >= self._next for offset in waiting)
        self.live -= live
        self.behind -= len(waiting) - live

    def spans_of(self, offsets: Iterable[Offset]) -> list[Span]:
        """Return the spans in which these offsets lie."""
        places = {bisect_right(self._spans, offset, key=lambda span: span.first) - 1 for offset in offsets}
        return [self._spans[place] for place in sorted(places) if place >= 0]

    def forget(self, span: Span) -> None:
        """Drop a span that has no records any more, so that it does not hold back the watermark."""
        if span in self._spans:
            self._spans.remove(span)

    def settle(self, first: Offset, given_back: Sequence[Run]) -> None:
        """Forget the batch that begins here, and take back what of it was not settled."""
        del self._in_flight[first]
        for run in given_back:
            insort(self._spans, run.span)
            self.behind += len(run.offsets)
