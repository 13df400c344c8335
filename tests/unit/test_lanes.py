"""A lane's position in the log: what is handed out, given back and settled."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from walbatch.delivery import DELIVERED, RETRY, Outcome, Rejected
from walbatch.event import Kind, Offset
from walbatch.wal import Batch, Lane
from walbatch.wal.lanes import END, LaneState, Span, runs

REJECTED = Rejected(400, "f", "r")

outcome: st.SearchStrategy[Outcome] = st.sampled_from([DELIVERED, REJECTED, RETRY])


def batch_of(*offsets: int) -> Batch:
    """Records at these offsets."""
    return Batch(Lane("there", Kind.EVENT), [Offset(n) for n in offsets], ["{}"] * len(offsets), [2] * len(offsets))


def span(first: int, last: int) -> Span:
    """A span of plain numbers."""
    return Span(Offset(first), Offset(last))


def oldest(state: LaneState) -> Span:
    """Where the oldest that waits is to be read."""
    return state.next_span(live=not state.to_read)


def hand_out(state: LaneState, *offsets: int, more: bool = False) -> None:
    """Pretend that the oldest span held these offsets."""
    state.hand_out(oldest(state), [Offset(n) for n in offsets], more=more)


def settle(state: LaneState, offsets: Sequence[int], outcomes: Sequence[Outcome]) -> None:
    """Settle a batch, and compare the watermark that was foretold with the one that came."""
    given_back = [run for run in runs(batch_of(*offsets), outcomes) if not run.settled]
    foretold = state.watermark_after([Offset(offsets[0])], given_back)
    state.settle(Offset(offsets[0]), given_back)
    assert state.position.watermark == foretold


def fresh(waiting: int = 100) -> LaneState:
    """A lane at the beginning of a log."""
    return LaneState(0, [], waiting, 1000)


def test_a_batch_is_cut_where_its_outcomes_change() -> None:
    """Delivered and rejected neighbours are one run; `Retry` makes another."""
    outcomes: list[Outcome] = [DELIVERED, REJECTED, RETRY, RETRY, DELIVERED]
    cut = runs(batch_of(1, 2, 5, 6, 9), outcomes)
    assert [(run.settled, run.span) for run in cut] == [(True, (1, 2)), (False, (5, 6)), (True, (9, 9))]
    assert [outcome for run in cut for outcome in run.outcomes] == outcomes


def test_a_run_has_the_bytes_of_its_own_records() -> None:
    """What is settled is no longer owed, and not a byte of what was given back."""
    batch = batch_of(1, 2, 3, 4)._replace(sizes=[1, 10, 100, 1000])
    assert [run.size for run in runs(batch, [DELIVERED, RETRY, DELIVERED, REJECTED])] == [1, 10, 1100]


def test_outcomes_that_do_not_fit_the_batch_are_a_mistake() -> None:
    """One outcome for each record, never more or fewer."""
    with pytest.raises(ValueError, match="one outcome for each record"):
        runs(batch_of(1, 2), [DELIVERED])


def test_a_new_lane_begins_at_the_first_offset() -> None:
    """Nothing is settled, nothing is in flight, all of the log is next."""
    state = fresh()
    assert oldest(state) == (1, END)
    assert (state.position.watermark, state.position.in_flight, state.live, state.behind) == (0, 0, 100, 0)


def test_islands_are_not_handed_out_again() -> None:
    """What was settled above the watermark before a restart is skipped; the gaps between come first."""
    state = LaneState(10, [span(21, 30), span(15, 16)], 7, 40)
    assert (state.behind, state.live) == (7, 0)
    spans = []
    for offsets in ([11, 14], [17], [31]):
        spans.append(oldest(state))
        hand_out(state, *offsets)
    assert spans == [(11, 14), (17, 20), (31, 40)]
    assert (state.position.watermark, state.position.in_flight, state.behind) == (10, 4, 3)


def test_islands_that_touch_leave_no_gap() -> None:
    """Neighbouring islands, and one that follows the watermark, are passed over."""
    state = LaneState(10, [span(11, 12), span(13, 20)], 0, 20)
    assert oldest(state) == (21, END)
    assert state.position.watermark == 20


def test_a_gap_without_records_of_the_lane_is_forgotten() -> None:
    """A gap that holds other lanes' records only is read once, and the watermark passes it."""
    state = LaneState(0, [span(4, 5)], 1, 6)
    assert oldest(state) == (1, 3)
    hand_out(state)
    assert oldest(state) == (6, 6)
    assert state.position.watermark == 5


def test_the_watermark_waits_for_the_oldest_batch() -> None:
    """A later batch that is settled first does not move it; the oldest one then moves it past both."""
    state = fresh()
    hand_out(state, 1, 2)
    hand_out(state, 3, 4)
    settle(state, [3, 4], [DELIVERED] * 2)
    assert state.position.watermark == 0
    settle(state, [1, 2], [DELIVERED] * 2)
    assert state.position.watermark == 4


def test_what_was_given_back_holds_the_watermark() -> None:
    """The watermark stops below the first record that is still owed."""
    state = fresh()
    hand_out(state, 1, 2, 3, 4)
    settle(state, [1, 2, 3, 4], [DELIVERED, RETRY, DELIVERED, RETRY])
    assert state.position.watermark == 1
    assert (state.behind, state.live) == (2, 96)
    assert oldest(state) == (2, 2)


def test_a_part_of_what_was_given_back_can_be_handed_out() -> None:
    """What a smaller batch leaves of a span stays given back."""
    state = fresh(5)
    hand_out(state, 1, 2, 3, 4, 5)
    settle(state, [1, 2, 3, 4, 5], [RETRY] * 5)
    hand_out(state, 1, 2, more=True)
    assert oldest(state) == (3, 5)
    assert (state.behind, state.position.in_flight, state.position.watermark) == (3, 2, 0)
    settle(state, [1, 2], [DELIVERED] * 2)
    assert state.position.watermark == 2


def test_the_oldest_comes_first_whatever_was_given_back_last() -> None:
    """Spans that come back out of order are handed out in order."""
    state = fresh()
    for first in (1, 2, 3):
        hand_out(state, first)
    for first in (3, 1, 2):
        settle(state, [first], [RETRY])
    seen = []
    while state.behind:
        seen.append(oldest(state).first)
        hand_out(state, seen[-1])
    assert seen == [1, 2, 3]


def test_what_came_later_can_be_handed_out_before_what_is_behind() -> None:
    """Once a lane fell behind, its end is read apart from the rest, and the watermark waits for both."""
    state = fresh(4)
    state.fall_behind(6)
    state.live += 2
    assert (state.behind, state.live) == (4, 2)
    state.hand_out(state.next_span(live=True), [Offset(7), Offset(9)], more=False)
    settle(state, [7, 9], [DELIVERED] * 2)
    assert (state.position.watermark, oldest(state)) == (0, (1, 6))
    hand_out(state, 1, 2, 4, 6)
    settle(state, [1, 2, 4, 6], [DELIVERED] * 4)
    assert (state.position.watermark, state.behind, state.live) == (9, 0, 0)


def test_a_lane_that_falls_behind_twice_is_read_from_its_oldest_part() -> None:
    """What was live becomes behind as well, after what was behind before; neighbours are read as one."""
    state = fresh(3)
    state.fall_behind(3)
    state.appended(2, 3)
    state.fall_behind(5)
    assert (oldest(state), state.behind, state.live) == ((1, 5), 5, 0)
    hand_out(state, 1, 2, 3, more=True)
    assert oldest(state) == (4, 5)
    state.fall_behind(5)  # nothing came since
    assert oldest(state) == (4, 5)


def test_what_is_for_others_is_never_read() -> None:
    """A lane that has nothing to do goes on behind all that came for others meanwhile, also after a restart."""
    state = fresh(0)
    assert oldest(state) == (1001, END)
    state.appended(1, after=5000)
    assert (oldest(state), state.position.watermark) == ((5001, END), 5000)
    hand_out(state, 5001)
    state.appended(1, after=7000)
    settle(state, [5001], [RETRY])
    assert (state.behind, state.live, oldest(state)) == (1, 1, (5001, 5001))
    hand_out(state, 5001)
    assert oldest(state) == (7001, END)


def test_a_batch_is_held_until_it_is_settled() -> None:
    """A settlement of a batch that is not in flight can be told apart."""
    state = fresh()
    hand_out(state, 1, 2)
    assert state.holds(Offset(1))
    settle(state, [1, 2], [DELIVERED] * 2)
    assert not state.holds(Offset(1))


def test_two_settlements_of_one_commit_see_each_other() -> None:
    """The watermark of a group of settlements is that after all of them."""
    state = fresh()
    for first in (1, 3, 5):
        hand_out(state, first, first + 1)
    firsts = [Offset(1), Offset(3)]
    assert state.watermark_after(firsts[:1], []) == 2
    assert state.watermark_after(firsts, []) == 4
    (back,) = runs(batch_of(3, 4), [RETRY, RETRY])
    assert state.watermark_after(firsts, [back]) == 2


class Lanes(RuleBasedStateMachine):
    """A lane beside a set of offsets: hand out, settle in any order, restart at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.end = 0
        self.mine: list[int] = []
        self.settled: set[int] = set()
        self.in_flight: list[list[int]] = []
        self.stored_through = 0
        self.stored_runs: list[Span] = []
        self.state = LaneState(0, [], 0, 0)

    @property
    def waiting(self) -> list[int]:
        """What the lane still has to hand out, oldest first."""
        taken = self.settled.union(*self.in_flight)
        return [offset for offset in self.mine if offset not in taken]

    @rule(kinds=st.lists(st.booleans(), min_size=1, max_size=6))
    def append(self, kinds: list[bool]) -> None:
        """Records of this lane and of others arrive."""
        for is_mine in kinds:
            self.end += 1
            if is_mine:
                self.mine.append(self.end)
                self.state.appended(1, self.end - 1)

    @rule()
    def fall_behind(self) -> None:
        """Delivery lags."""
        self.state.fall_behind(self.end)

    @rule(limit=st.integers(1, 4), live=st.booleans())
    def fetch(self, limit: int, live: bool) -> None:  # noqa: FBT001
        """Read a span, as the log does: what is behind oldest first, what is live apart, never what is taken."""
        live = live or not self.state.to_read
        where = self.state.next_span(live=live)
        found = [offset for offset in self.mine if where.first <= offset <= where.last]
        batch, more = found[:limit], len(found) > limit
        part = self.waiting[self.state.behind :] if live else self.waiting
        assert batch == part[: len(batch)]
        self.state.hand_out(where, [Offset(offset) for offset in batch], more=more)
        if batch:
            self.in_flight.append(batch)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """Settle some batch, in any order, with any outcomes; the disk has it before memory does."""
        batch = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        outcomes = data.draw(st.lists(outcome, min_size=len(batch), max_size=len(batch)))
        first = Offset(batch[0])
        cut = runs(batch_of(*batch), outcomes)
        given_back = [run for run in cut if not run.settled]
        self.stored_through = max(self.stored_through, self.state.watermark_after([first], given_back))
        self.stored_runs += [run.span for run in cut if run.settled]
        self.state.settle(first, given_back)
        self.settled |= {offset for offset, outcome in zip(batch, outcomes, strict=True) if outcome is not RETRY}

    @rule()
    def restart(self) -> None:
        """Rebuild the lane from what is stored; what was in flight waits again."""
        self.in_flight.clear()
        islands = [run for run in self.stored_runs if run.first > self.stored_through]
        self.state = LaneState(self.stored_through, islands, len(self.waiting), self.end)

    @invariant()
    def counts_agree(self) -> None:
        """Both count the same."""
        assert self.state.behind + self.state.live == len(self.waiting)
        assert min(self.state.behind, self.state.live) >= 0
        assert self.state.position.in_flight == sum(len(batch) for batch in self.in_flight)

    @invariant()
    def nothing_owed_is_below_the_watermark(self) -> None:
        """Everything up to the watermark is settled, in memory and as stored."""
        assert self.stored_through <= self.state.position.watermark
        assert all(offset in self.settled for offset in self.mine if offset <= self.state.position.watermark)

    def teardown(self) -> None:
        """At last everything can be delivered, and the watermark reaches the end."""
        while self.in_flight or self.waiting or self.state.to_read:
            while self.in_flight:
                batch = self.in_flight.pop()
                self.state.settle(Offset(batch[0]), [])
                self.settled.update(batch)
            self.fetch(3, live=False)
        assert self.state.position.watermark >= max(self.mine, default=0)


TestLanes = Lanes.TestCase
TestLanes.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
