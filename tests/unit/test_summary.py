"""The one sentence, for many documents."""

from __future__ import annotations

from typing import Any

import pytest
from documents import GIB, destination, document, failing, lane, refusing

from walbatch.errors import BacklogFull
from walbatch.retry import Condition, State
from walbatch.stats import document as made
from walbatch.stats import storage
from walbatch.summary import sentence, standing
from walbatch.wal import Backlog, DestinationBacklog

BUFFERED = {"pending_bytes": int(3.1 * GIB)}
SENTENCES: dict[str, tuple[dict[str, Any], str]] = {
    "idle": (document(), "Delivering. Nothing is pending."),
    "some wait": (
        document(destination(pending=12), oldest_pending_age_s=1.43),
        "Delivering. 12 pending, oldest 1.4 s.",
    ),
    "several, all well": (
        document(destination("a", 1), destination("b", 2), oldest_pending_age_s=65.0),
        "Delivering. 3 pending, oldest 1 min.",
    ),
    "an outage": (
        document(failing(pending=1_234_567), **BUFFERED),
        (
            "mixpanel answers 503 since 14:02 UTC, next try in 38 s;"
            " nothing is lost, 1.2 M records buffered, 3.1GiB of 20GiB."
        ),
    ),
    "an outage since another day": (
        document(failing(pending=1, failing_since="2026-11-29T23:59:59.999Z")),
        (
            "mixpanel answers 503 since 2026-11-29 23:59 UTC, next try in 38 s;"
            " nothing is lost, 1 record buffered, 0B of 20GiB."
        ),
    ),
    "an outage from before its beginning was noted": (
        document(failing(pending=1, failing_since=None)),
        "mixpanel answers 503, next try in 38 s; nothing is lost, 1 record buffered, 0B of 20GiB.",
    ),
    "an outage with nothing to send": (
        document(failing()),
        "mixpanel answers 503 since 14:02 UTC, next try in 38 s; nothing is pending.",
    ),
    "a probe under way": (
        document(failing(retry_in_s=0.0)),
        "mixpanel answers 503 since 14:02 UTC, trying again; nothing is pending.",
    ),
    "no limit": (
        document(failing(pending=2), max_backlog_bytes=0, pending_bytes=700),
        "mixpanel answers 503 since 14:02 UTC, next try in 38 s; nothing is lost, 2 records buffered, 700B.",
    ),
    "an answer that is not understood": (
        document(failing(last_error="200 OK, but the body is not understood: <html>")),
        "mixpanel answers 200 since 14:02 UTC, but the body is not understood, next try in 38 s; nothing is pending.",
    ),
    "no connection": (
        document(failing(last_error="cannot connect: Connection refused")),
        "mixpanel fails since 14:02 UTC, cannot connect: Connection refused, next try in 38 s; nothing is pending.",
    ),
    "no reason is known": (
        document(failing(last_error=None)),
        "mixpanel fails since 14:02 UTC, next try in 38 s; nothing is pending.",
    ),
    "wrong credentials": (
        document(failing(state="paused", last_error="401 Unauthorized, check the token: Invalid credentials")),
        (
            "mixpanel answers 401 since 14:02 UTC, a person is needed: check the token, next try in 38 s;"
            " nothing is pending."
        ),
    ),
    "a person is needed, nobody knows for what": (
        document(failing(state="paused", last_error="404 Not Found")),
        "mixpanel answers 404 since 14:02 UTC, a person is needed, next try in 38 s; nothing is pending.",
    ),
    "paused": (
        document(destination(pending=12_400, paused_at="2026-11-30T09:05:00.000Z"), **BUFFERED),
        (
            "mixpanel is paused by a person since 09:05 UTC, until `walbatch resume`;"
            " nothing is lost, 12,400 records buffered, 3.1GiB of 20GiB."
        ),
    ),
    "paused in an outage": (
        document(failing(paused_at="2026-11-30T09:05:00.000Z")),
        "mixpanel is paused by a person since 09:05 UTC, until `walbatch resume`; nothing is pending.",
    ),
    "one of three fails": (
        document(destination("a"), failing("b", 5), destination("c")),
        (
            "Delivering to 2 of 3 destinations; b answers 503 since 14:02 UTC, next try in 38 s;"
            " nothing is lost, 5 records buffered, 0B of 20GiB."
        ),
    ),
    "five fail": (
        document(*(failing(name) for name in "abcde")),
        (
            "a answers 503 since 14:02 UTC, next try in 38 s; b answers 503 since 14:02 UTC, next try in 38 s;"
            " c answers 503 since 14:02 UTC, next try in 38 s; and 2 more in trouble; nothing is pending."
        ),
    ),
    "new records are refused": (
        document(failing(pending=2), storage=refusing("BACKLOG_FULL", "20GiB wait for delivery to mixpanel")),
        (
            "New records are refused: 20GiB wait for delivery to mixpanel. mixpanel answers 503 since 14:02 UTC,"
            " next try in 38 s; nothing is lost, 2 records buffered, 0B of 20GiB."
        ),
    ),
    "the disk is full, and it delivers": (
        document(storage=refusing("DISK_FULL", "the disk is full; nothing was stored")),
        "New records are refused: the disk is full; nothing was stored. Delivering. Nothing is pending.",
    ),
    "not serving": (
        document(destination(pending=12), serving=False, oldest_pending_age_s=11_100.0),
        "Not serving. 12 pending, oldest 3 h 5 min; what is pending goes out after `walbatch serve`.",
    ),
    "not serving, nothing waits": (document(serving=False), "Not serving. Nothing is pending."),
    "not serving, and paused": (
        document(destination(paused_at="2026-11-30T09:05:00.000Z"), serving=False),
        "Not serving. Nothing is pending; paused by a person: mixpanel.",
    ),
    "not serving, paused, and something waits": (
        document(destination(pending=12, paused_at="2026-11-30T09:05:00.000Z"), serving=False),
        (
            "Not serving. 12 pending, oldest 0.0 s; what is pending goes out after `walbatch serve`, to mixpanel after"
            " `walbatch resume`: paused by a person."
        ),
    ),
    "a server that does not answer": (
        document(destination(pending=1), storage=refusing("SHUTTING_DOWN", "no server answers")),
        "The log is in use, but no server answers. 1 pending, oldest 0.0 s.",
    ),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_the_sentence(case: str) -> None:
    """What is wrong comes first, then what waits; without a server there is no limit to name."""
    facts, expected = SENTENCES[case]
    assert sentence(facts) == expected


@pytest.mark.parametrize("status", ["503 Service Unavailable", "401 Unauthorized, check the token", "524"])
def test_the_words_of_a_destination_are_not_in_it(status: str) -> None:
    """They may quote a record: of a bad answer there is its status, and our own remark."""
    for state in ("retrying", "open", "paused"):
        text = sentence(document(failing(state=state, last_error=f"{status}: user-4711, plan: pro")))
        assert "user-4711" not in text
        assert "pro" not in text


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, "ok"),
        ({"state": "retrying"}, "retrying"),
        ({"state": "open"}, "open"),
        ({"state": "paused"}, "needs a person"),
        ({"state": "paused", "paused_at": "2026-11-30T09:05:00.000Z"}, "paused"),
    ],
)
def test_the_word_for_a_destination(facts: dict[str, Any], expected: str) -> None:
    """`paused` is said of what a person has paused, and of nothing else."""
    assert standing(destination(**facts)) == expected


def test_the_document_has_the_sentence_and_what_it_is_made_of() -> None:
    """From the counts and conditions of a log."""
    began_ms = 1_764_511_351_000
    condition = Condition(State.OPEN, 9, began_ms + 60_000, "503 Service Unavailable", began_ms)
    backlog = Backlog(0, 0, [DestinationBacklog("there", condition, [], began_ms + 1000)])
    facts = made(
        backlog,
        now_ms=began_ms + 22_000,
        durability="fsynced",
        database_bytes=0,
        wal_bytes=0,
        storage=storage(BacklogFull("full"), 0),
        serving=True,
        max_backlog_bytes=GIB,
    )
    (there,) = facts["destinations"]
    assert (there["failing_since"], there["paused_at"]) == ("2025-11-30T14:02:31.000Z", "2025-11-30T14:02:32.000Z")
    assert (facts["at"], facts["max_backlog_bytes"]) == ("2025-11-30T14:02:53.000Z", GIB)
    assert facts["summary"] == sentence(facts)
    assert facts["summary"].startswith("New records are refused: full. there is paused by a person since 14:02 UTC")


def test_a_lane_has_what_the_document_has() -> None:
    """What tests make up has the shape of what is made."""
    assert lane().keys() >= {"name", "accepted", "pending", "in_flight", "sent", "dead", "purged"}
