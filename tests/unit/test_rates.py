"""Rates between two looks at the same log."""

from __future__ import annotations

from typing import Any

from documents import NOW, destination, document, lane

from walbatch.rates import Rates, rates

LATER = "2026-11-30T14:40:02.000Z"


def look(at: str, accepted: int, **lanes: dict[str, int]) -> dict[str, Any]:
    """A document with a lane of each destination."""
    found = (destination(name, lanes=[lane("events", **counts), lane("profiles")]) for name, counts in lanes.items())
    return document(*found, at=at, accepted=accepted)


def test_counts_become_rates() -> None:
    """What was accepted counts once, and for each destination by itself."""
    before = look(NOW, 10, a={"accepted": 10, "sent": 4}, b={"accepted": 2, "sent": 2})
    after = look(LATER, 30, a={"accepted": 30, "sent": 9}, b={"accepted": 5, "sent": 2})
    assert rates(before, after) == Rates(10.0, {"a": 10.0, "b": 1.5}, {"a": 2.5, "b": 0.0})


def test_a_purge_is_no_delivery_and_an_erasure_no_rate_below_0() -> None:
    """Counts that move from one column to another are not traffic."""
    before = look(NOW, 9, a={"accepted": 9, "sent": 9})
    purged = look(LATER, 9, a={"accepted": 9, "sent": 2, "purged": 7})
    erased = look(LATER, 9, a={"accepted": 9, "sent": 2, "erased": 7})
    for after in (purged, erased):
        assert rates(before, after) == Rates(0.0, {"a": 0.0}, {"a": 0.0})


def test_a_destination_that_is_new_has_no_rate_yet() -> None:
    """The server was started again with another one."""
    assert rates(look(NOW, 0, a={}), look(LATER, 0, b={})) == Rates(0.0, {}, {})


def test_without_time_between_them_there_is_no_rate() -> None:
    """The same moment, or a wall clock that was set back."""
    assert rates(look(NOW, 0), look(NOW, 5)) is None
    assert rates(look(LATER, 0), look(NOW, 5)) is None
