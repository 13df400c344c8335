"""When a batch is due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walbatch.batching import BatchPolicy, byte_length, byte_lengths

POLICY = BatchPolicy()


@pytest.mark.parametrize(
    ("waiting", "oldest_age_s", "due_in_s"),
    [
        (0, 0.0, None),
        (0, 99.0, None),
        (1, 0.0, 10.0),
        (49, 0.0, 10.0),
        (49, 4.0, 6.0),
        (49, 10.0, 0.0),
        (49, 99.0, 0.0),
        (50, 0.0, 0.0),
        (5000, 0.0, 0.0),
    ],
)
def test_fifty_records_or_ten_seconds(waiting: int, oldest_age_s: float, due_in_s: float | None) -> None:
    """By default a batch is due at 50 records, or ten seconds after the oldest; nothing is never due."""
    assert POLICY.due_in_s(waiting, oldest_age_s) == due_in_s


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(0, 10**6), st.floats(0, 10**6))
def test_more_or_older_is_never_due_later(waiting: int, more: int, age_s: float, older_s: float) -> None:
    """The wait shrinks with each record and each second, from the policy's own down to zero."""
    now = POLICY.due_in_s(waiting, age_s)
    then = POLICY.due_in_s(waiting + more, age_s + older_s)
    assert now is not None
    assert then is not None
    assert 0.0 <= then <= now <= POLICY.max_age_s


@given(st.integers(0, 3000), st.integers(0, 3000), st.floats(0, 20), st.floats(0, 2))
def test_it_is_due_no_sooner_before_as_many_wait_as_it_says(
    waiting: int, more: int, age_s: float, since_s: float
) -> None:
    """Up to then a later arrival changes nothing; and from then on it is due sooner, unless it was due already."""
    policy = BatchPolicy(spacing_s=1.0)
    wanted = policy.due_sooner_at(waiting)
    before = policy.due_in_s(waiting, age_s, since_s)
    if waiting + more < wanted:
        assert policy.due_in_s(waiting + more, age_s, since_s) == before
    else:
        then = policy.due_in_s(max(waiting, wanted), age_s, since_s)
        assert then is not None
        assert before is None or then <= before


@given(st.integers(1, 10**6), st.floats(0, 100))
def test_on_demand_whatever_waits_is_due(waiting: int, age_s: float) -> None:
    """A flush waits for nothing but a first record, and keeps the limits."""
    policy = BatchPolicy(max_size=7, max_bytes=9, spacing_s=1.0).at_once()
    assert policy.due_in_s(waiting, age_s, 0.0) == 0.0
    assert policy.due_in_s(0, age_s) is None
    assert (policy.max_size, policy.max_bytes) == (7, 9)


@given(st.text())
def test_bytes_are_those_of_utf8(text: str) -> None:
    """A payload is as long as its encoding."""
    assert byte_length(text) == len(text.encode())


@given(st.lists(st.text()))
def test_bytes_of_many_are_those_of_each(texts: list[str]) -> None:
    """One text that is not ASCII among others changes its own length alone."""
    assert byte_lengths(texts) == [len(text.encode()) for text in texts]
