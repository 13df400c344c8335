"""What monitoring is told: the level, the line, the figures."""

from __future__ import annotations

import re
from typing import Any

import pytest
from documents import destination, document, failing, lane, refusing

from walbatch.check import Level, Limits, Verdict, judge, unknown

OLD = {"oldest_pending_age_s": 420.0}
CASES: dict[str, tuple[dict[str, Any], Limits, Level, str]] = {
    "all well": (document(), Limits(300.0, 10), Level.OK, "SUMMARY"),
    "at a limit": (
        document(destination(pending=10), oldest_pending_age_s=300.0),
        Limits(300.0, 10),
        Level.OK,
        "SUMMARY",
    ),
    "too old": (
        document(destination(pending=1), **OLD),
        Limits(max_age_s=300.0),
        Level.CRITICAL,
        "The oldest pending record is 7 min old, more than 5 min. SUMMARY",
    ),
    "too many": (
        document(destination(pending=11)),
        Limits(max_pending=10),
        Level.CRITICAL,
        "11 are pending, more than 10. SUMMARY",
    ),
    "without limits": (document(destination(pending=10**9), **OLD), Limits(), Level.OK, "SUMMARY"),
    "not serving": (document(serving=False), Limits(), Level.CRITICAL, "SUMMARY"),
    "refusing": (document(storage=refusing("DISK_FULL", "full")), Limits(), Level.CRITICAL, "SUMMARY"),
    "no server answers": (document(storage=refusing("SHUTTING_DOWN", "no")), Limits(), Level.CRITICAL, "SUMMARY"),
    "failing": (document(destination("a"), failing("b")), Limits(300.0, 10), Level.WARNING, "SUMMARY"),
    "needs a person": (document(failing(state="paused")), Limits(), Level.WARNING, "SUMMARY"),
    "paused": (document(destination(paused_at="2026-11-30T09:05:00.000Z")), Limits(), Level.WARNING, "SUMMARY"),
    "a dead letter": (document(dead=1), Limits(), Level.WARNING, "1 dead letter waits for a person. SUMMARY"),
    "the worst first": (
        document(failing(), dead=2, **OLD),
        Limits(max_age_s=300.0),
        Level.CRITICAL,
        "The oldest pending record is 7 min old, more than 5 min. 2 dead letters wait for a person. SUMMARY",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_levels(case: str) -> None:
    """Critical: nobody takes or delivers, or a limit is passed. Warning: a person should look. The worst one counts."""
    facts, limits, level, text = CASES[case]
    verdict = judge(facts | {"summary": "SUMMARY"}, limits)
    assert verdict.level is level
    assert verdict.line.startswith(f"{level.name} - {text} | ")


def test_exit_codes_are_those_of_nagios() -> None:
    """By them alone a monitor decides."""
    assert {level.name: int(level) for level in Level} == {"OK": 0, "WARNING": 1, "CRITICAL": 2, "UNKNOWN": 3}


def test_figures() -> None:
    """Each has its unit and the limits that were given, in the order that graphs expect; delivered never goes back."""
    one = destination(lanes=[lane(pending=3, sent=5, purged=7), lane("profiles", sent=1)])
    facts = document(one, summary="S", accepted=16, in_flight=2, dead=1, pending_bytes=900, max_backlog_bytes=5000)
    line = judge(facts | {"oldest_pending_age_s": 1.5}, Limits(300.0, 100_000)).line
    assert line.partition(" | ")[2].split() == [
        "pending=3;;100000;0;",
        "oldest_pending_age=1.500s;;300;0;",
        "pending_bytes=900B;;;0;5000",
        "in_flight=2;;;0;",
        "dead=1;0;;0;",
        "accepted=16c;;;0;",
        "delivered=13c;;;0;",
    ]


def test_figures_without_limits() -> None:
    """What was not given is left empty, as the convention has it; a server that is down has no limit either."""
    line = judge(document(summary="S", serving=False, max_backlog_bytes=None), Limits()).line
    assert all(re.fullmatch(r"[a-z_]+=[0-9.]+[sBc]?;0?;;0;", figure) for figure in line.partition(" | ")[2].split())


def test_what_cannot_be_read_is_unknown() -> None:
    """With the reason in one line, and no figures: the bar and line ends have a meaning of their own."""
    assert unknown("no log\nin a|b") == Verdict(Level.UNKNOWN, "UNKNOWN - no log in a/b")
