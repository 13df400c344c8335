"""The checker of the fault tests finds every kind of broken promise, made by hand, and nothing where all is well."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from total_queue import Verdict, judge, update_id


def event(event_id: str, **properties: Any) -> str:
    """A line of the fake's file with an event."""
    return json.dumps({"record": {"event": "Load", "properties": {"$insert_id": event_id, **properties}}})


def update(version: int, distinct_id: str = "p") -> str:
    """A line of the fake's file with a profile update."""
    return json.dumps({"record": {"$distinct_id": distinct_id, "$set": {"version": version}}})


def client(acked: Sequence[str], unanswered: Sequence[str] = ()) -> str:
    """A client's log: what it attempted and was acknowledged, then what it has no answer for."""
    lines = [line for one in acked for line in (f"attempt {one}", f"ack {one}")]
    return "".join(f"{line}\n" for line in (*lines, *(f"attempt {one}" for one in unanswered)))


def stored(record_id: str, status: str) -> dict[str, str]:
    """A stored record."""
    return {"id": record_id, "destination": "there", "status": status}


def versions(*numbers: int) -> list[str]:
    """Ids of updates of one profile."""
    return [update_id("p", number) for number in numbers]


def only(verdict: Verdict) -> dict[str, Any]:
    """What there is of a verdict besides attempts and acknowledgements."""
    return {name: value for name, value in vars(verdict).items() if value and name not in {"attempted", "acked"}}


def test_nothing_is_found_where_everything_arrived() -> None:
    """Two clients, events and updates, each delivered once and in order."""
    logs = [client(["a", "b"]), client(versions(1, 2))]
    verdict = judge(logs, [event("b"), update(1), event("a"), update(2)], [stored("a", "sent")])
    assert verdict.acked == verdict.attempted == {"a", "b", *versions(1, 2)}
    assert only(verdict) == {}
    assert verdict.complaints(most_repeats=0) == []


def test_what_was_acknowledged_and_is_nowhere_is_lost() -> None:
    """Neither delivered nor a dead letter; that it is stored as sent is no excuse."""
    verdict = judge([client(["a", "b", "c"])], [event("a")], [stored("b", "sent"), stored("c", "pending")])
    assert verdict.lost == {"b", "c"}
    assert verdict.pending == {"c"}
    assert verdict.complaints() == ["2 lost: b, c"]


@pytest.mark.parametrize("status", ["dead", "held"])
def test_a_dead_letter_is_not_lost(status: str) -> None:
    """It is kept for a person."""
    verdict = judge([client(["a"])], [], [stored("a", status)])
    assert verdict.dead == {"a"}
    assert verdict.complaints() == []


@pytest.mark.parametrize("status", ["dead", "pending", "replayed"])
def test_what_nobody_sent_is_unexpected(status: str) -> None:
    """Whether it was delivered or is stored."""
    verdict = judge([client(["a"])], [event("a"), event("x")], [stored("y", status)])
    assert verdict.unexpected == {"x", "y"}
    assert verdict.complaints() == ["2 unexpected: x, y"]


def test_what_had_no_answer_may_have_arrived_or_not() -> None:
    """It is recovered, and not lost."""
    verdict = judge([client(["a"], unanswered=["b", "c"])], [event("a"), event("b")])
    assert only(verdict) == {"recovered": {"b"}}
    assert verdict.complaints(most_repeats=0) == []


def test_copies_are_counted_against_what_was_bargained_for() -> None:
    """Every delivery beyond the first is one repeat."""
    verdict = judge([client(["a", "b"])], [event("a"), event("b"), event("a"), event("a")])
    assert only(verdict) == {"duplicated": {"a"}, "repeats": 2}
    assert verdict.complaints() == verdict.complaints(most_repeats=2) == []
    assert verdict.complaints(most_repeats=1) == ["2 deliveries of what had been delivered, which may be 1"]


def test_copies_that_differ_are_found() -> None:
    """A copy has the same bytes."""
    verdict = judge([client(["a"])], [event("a", time=1), event("a", time=2)])
    assert verdict.altered == {"a"}
    assert verdict.complaints() == ["1 altered: a"]


@pytest.mark.parametrize(
    ("arrived", "right"),
    [
        ([1, 2, 3], True),
        ([1, 2, 1, 2, 3], True),  # a batch came again before the next one
        ([1, 3], True),  # the second is lost, which is another complaint
        ([2, 1, 3], False),
        ([1, 3, 2, 3], False),  # the first copies are out of order
        ([1, 2, 3, 2], False),  # the profile is left with an older version
    ],
)
def test_updates_come_in_the_order_of_their_acknowledgements(arrived: list[int], *, right: bool) -> None:
    """Both the first copies of a profile's updates and the last ones."""
    verdict = judge([client(versions(1, 2, 3))], [update(number) for number in arrived])
    assert verdict.disordered == (set() if right else {"p"})
    assert ("1 disordered: p" in verdict.complaints()) is not right


def test_an_update_without_an_answer_has_no_place_in_the_order() -> None:
    """It may take effect at any time after the call."""
    verdict = judge([client(versions(2, 3), unanswered=versions(1))], [update(2), update(1), update(3)])
    assert verdict.recovered == set(versions(1))
    assert verdict.disordered == set()


def test_profiles_do_not_wait_for_each_other() -> None:
    """The order is that of one id."""
    ids = [update_id("p", 1), update_id("q", 1), update_id("p", 2)]
    verdict = judge([client(ids)], [update(1), update(2), update(1, "q")])
    assert verdict.complaints() == []


def test_a_verdict_is_told_in_a_line() -> None:
    """Counts, not ids."""
    summary = judge([client(["a"])], [event("a"), event("a")]).summary()
    assert summary.startswith("attempted 1, acked 1, lost 0, unexpected 0, recovered 0, duplicated 1, altered 0")
    assert summary.endswith("repeats 1")
