"""The account of what was delivered complains about all that can go wrong: negative controls of the delivery test."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

import accounting
import pytest
from accounting import Event, Update

ONE, TWO = Event("i1", "E", "u1", 5, {"n": 1}), Event("i2", "E", "u1", None, {"n": 2})
A, B, C = Update(1, "$set", {"n": 1}), Update(2, "$add", {"c": 1}), Update(3, "$set", {"n": 3})


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([ONE, TWO], ""),
        ([ONE, replace(TWO, time_ms=7)], ""),
        ([TWO], "lost"),
        ([ONE, TWO, replace(TWO, time_ms=7)], "doubled"),
        ([replace(ONE, properties={"n": 2}), TWO], "changed"),
        ([replace(ONE, time_ms=6), TWO], "changed"),
        ([replace(ONE, distinct_id="u2"), TWO], "changed"),
        ([ONE, TWO, replace(TWO, insert_id="i3")], "unexpected"),
    ],
)
def test_the_account_of_events_can_fail(found: Sequence[Event], says: str) -> None:
    """A lost, doubled, changed or invented event does not go unnoticed; only one that is unsure may be missing."""
    assert [one.partition(":")[0] for one in accounting.event_complaints([ONE, TWO], found, ())] == says.split()
    assert not list(accounting.event_complaints([ONE, TWO], [ONE], {"i2"}))


@pytest.mark.parametrize(
    ("log", "unsure", "once", "says"),
    [
        ([A, B, C], (), True, ""),
        ([A, C, A, C], {2}, True, ""),
        ([A, B, C, A, C], {2}, True, ""),
        ([A, B, C, A, B, C], (), False, ""),
        ([A, B], (), True, "lost"),
        ([A, B, B, C], (), True, "doubled"),
        ([A, replace(B, value={"c": 2}), C], (), True, "changed"),
        ([A, B, C, Update(4, "$set", {})], (), True, "unexpected,out of order,out of order"),
        ([B, A, C], (), False, "out of order,out of order"),
        ([A, B, C, A], (), False, "out of order"),
    ],
)
def test_the_account_of_updates_can_fail(
    log: Sequence[Update], *, unsure: Container[int], once: bool, says: str
) -> None:
    """A lost, doubled, changed or invented update does not go unnoticed, nor one that came in the wrong place."""
    found = accounting.update_complaints({"u1": [A, B, C]}, {"u1": log}, unsure=unsure, once=once)
    assert ",".join(one.partition(":")[0] for one in found) == says


def test_the_account_of_states_knows_what_updates_leave() -> None:
    """The order counts, a deleted profile is gone, and who is who does not depend on the order of the links."""
    assert accounting.final([A, B, C]) == {"n": 3, "c": 1}
    assert accounting.final([C, B, A]) == {"n": 1, "c": 1}
    assert accounting.final([A, Update(9, "$delete", "")]) is None
    assert accounting.final([Update(9, "$delete", ""), B, B]) == {"c": 2}
    assert accounting.clusters([("a", "b"), ("c", "d"), ("b", "c")]) == {frozenset("abcd")}
