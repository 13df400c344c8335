"""Whose turn it is while a backlog drains: what is behind, or what is live."""

from __future__ import annotations

from dataclasses import replace

import pytest

from walbatch.batching import BatchPolicy, Turns

POLICY = BatchPolicy(size=50, max_age_s=10.0, max_size=200)


def order(turns: Turns, behind: int, live: int, batches: int) -> str:
    """Hand out batches while both have one due, and say from which part each was."""
    found = ""
    for _ in range(batches):
        due_s, is_live = turns.next_due(POLICY, behind, live, 0.0, 0.0)
        assert due_s == 0.0
        turns.took(live=is_live, now_s=0.0)
        found += "L" if is_live else "b"
    return found


def test_both_take_turns() -> None:
    """While a backlog drains, every other batch is a fresh one."""
    assert order(Turns(ordered=False), 10_000, 50, 6) == "bLbLbL"


def test_what_is_live_waits_for_its_batch_as_ever() -> None:
    """A few fresh records do not stop the backlog: they are due at 50, or after ten seconds."""
    turns = Turns(ordered=False)
    assert order(turns, 10_000, 49, 3) == "bbb"
    assert turns.next_due(POLICY, 10_000, 49, 9.9, 0.0) == (0.0, False)
    assert turns.next_due(POLICY, 10_000, 49, 10.0, 0.0) == (0.0, True)


def test_nothing_overtakes_in_an_ordered_lane() -> None:
    """Updates of profiles and groups go out in the order in which they came."""
    assert order(Turns(ordered=True), 10_000, 10_000, 4) == "bbbb"


def test_without_a_backlog_it_is_the_usual_batch() -> None:
    """Nothing behind: due at 50 records or after ten seconds, and never when there is nothing."""
    turns = Turns(ordered=False)
    assert turns.next_due(POLICY, 0, 20, 4.0, 0.0) == (6.0, True)
    assert turns.next_due(POLICY, 0, 0, 99.0, 0.0) == (None, True)


def test_batches_that_are_not_full_keep_their_distance() -> None:
    """A live batch follows the one before after the spacing, or when it is full; what is behind does not wait."""
    policy = replace(POLICY, spacing_s=0.5)
    turns = Turns(ordered=False)
    assert turns.next_due(policy, 0, 50, 0.0, 7.0) == (0.0, True), "the first one is due at once"
    turns.took(live=True, now_s=7.0)
    assert turns.next_due(policy, 0, 199, 0.0, 7.0) == (0.5, True)
    assert turns.next_due(policy, 0, 50, 99.0, 7.5) == (0.0, True)
    assert turns.next_due(policy, 0, 200, 0.0, 7.0) == (0.0, True)
    assert turns.next_due(policy, 0, 1, 9.0, 7.0) == (1.0, True), "the interval is longer than the spacing"
    turns.took(live=False, now_s=8.0)
    assert turns.next_due(policy, 1, 0, 0.0, 8.0) == (0.0, False)


def test_what_is_behind_is_due_at_once() -> None:
    """One record that was given back does not wait for company."""
    assert Turns(ordered=False).next_due(POLICY, 1, 0, 0.0, 0.0) == (0.0, False)


@pytest.mark.parametrize(
    ("live", "age_s", "lags"), [(200, 99.0, False), (201, 10.0, False), (201, 10.1, True), (10**6, 0.5, False)]
)
def test_delivery_lags_when_more_than_a_full_batch_is_overdue(live: int, age_s: float, lags: bool) -> None:  # noqa: FBT001
    """A burst is no backlog yet; one that has waited longer than a batch may is."""
    assert Turns(ordered=False).lags(POLICY, live, age_s) is lags


def test_an_ordered_lane_never_lags() -> None:
    """It has no use for a live part."""
    assert not Turns(ordered=True).lags(POLICY, 10**6, 10**6)
