"""How the life of a record is told: for people, and as JSON."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from walbatch.event import Offset, track
from walbatch.life import Life
from walbatch.retry import Condition, State
from walbatch.wal.dead_letters import Key, Letter
from walbatch.wal.fates import Delivery, Fate, Status
from walbatch.wal.lookup import Row
from walbatch.wal.selection import Stored

inspect_view: Any = import_module("walbatch.cli.inspect_view")  # by name, as the entry point does

ACCEPTED_MS = 1_700_000_000_000
DELIVERY = Delivery(49, 1, 16_384, "400: refused 1 of 50", ACCEPTED_MS + 1000, ACCEPTED_MS + 1120)
PAYLOAD = track(name="E", event_id="e-1", distinct_id="u1", properties={"note": "\x9bsecret"}, now_ms=1).payload
OPEN = Condition(State.OPEN, 7, ACCEPTED_MS + 60_000, "503 Service Unavailable")


def letter(*, held: bool = False, resolution: str | None = None, reason: str = "is invalid") -> Letter:
    """Return a letter of the record."""
    key = Key("mixpanel", 0, 0 if held else 400, "" if held else "properties.time", reason, int(held))
    stored = Stored(418, 0, "e-1", "E", "u1", PAYLOAD)
    resolved_at_ms = None if resolution is None else ACCEPTED_MS + 3000
    return Letter(key, stored, ACCEPTED_MS + 2000, resolution, resolved_at_ms, ACCEPTED_MS, None)


def fate(status: Status, **more: Any) -> Fate:
    """Return what became of the record at a destination."""
    known: dict[str, Any] = {"condition": Condition(), "paused_at_ms": None, "is_intended": False}
    known |= {"delivery": None, "letter": None, "copies": []}
    return Fate(destination="mixpanel", status=status, **known | more)


def life(*fates: Fate, event_id: str = "e-1", replay_of: int | None = None) -> Life:
    """Return the life of the record."""
    again = None if replay_of is None else Offset(replay_of)
    return Life(Row(Offset(418), 0, event_id, PAYLOAD, ACCEPTED_MS, again), [*fates])


def told(one: Fate, *, serving: bool = True) -> list[str]:
    """Return what is told of one destination."""
    lines = inspect_view.text(life(one), serving=serving, reveal=False).splitlines()
    return [line.removeprefix("mixpanel  ") for line in lines if line.startswith("mixpanel")]


FATES: list[tuple[Fate, list[str]]] = [
    (
        fate("sent", delivery=DELIVERY),
        [
            "sent at 2023-11-14T22:13:21.120Z, 1s120ms after it was accepted",
            "in a delivery with 49 others, 16KiB, which took 120ms: 400: refused 1 of 50",
        ],
    ),
    (fate("sent"), ["sent; when is not on record any more"]),
    (
        fate("sent", copies=[(Offset(500), "pending")]),
        ["sent; when is not on record any more", "repeated by record 500, which is pending"],
    ),
    (fate("pending"), ["pending: it waits for its batch, or is being sent"]),
    (fate("pending", is_intended=True), ["pending: it is being sent"]),
    (
        fate("pending", condition=OPEN),
        [
            (
                "pending: the destination is open after 7 failures: 503 Service Unavailable;"
                " next try at 2023-11-14T22:14:20.000Z"
            )
        ],
    ),
    (
        fate("pending", condition=OPEN, paused_at_ms=ACCEPTED_MS),
        ["pending: delivery is paused by a person since 2023-11-14T22:13:20.000Z; it goes out after `walbatch resume`"],
    ),
    (
        fate("dead", letter=letter()),
        [f"dead since 2023-11-14T22:13:22.000Z: 400 properties.time: is invalid (group {letter().key.id})"],
    ),
    (
        fate("held", letter=letter(held=True, reason="no answer")),
        [
            (
                "held since 2023-11-14T22:13:22.000Z: it may have arrived: no answer"
                f" (group {letter(held=True, reason='no answer').key.id})"
            )
        ],
    ),
    (
        fate("replayed", letter=letter(resolution="replayed"), copies=[(Offset(500), "sent")]),
        [
            (
                "dead since 2023-11-14T22:13:22.000Z, replayed at 2023-11-14T22:13:23.000Z:"
                f" 400 properties.time: is invalid (group {letter().key.id})"
            ),
            "repeated by record 500, which is sent",
        ],
    ),
    (fate("filtered"), ["not for it: its filter keeps such records back"]),
    (fate("older"), ["not for it: it was added after this record was accepted"]),
]


@pytest.mark.parametrize(("one", "lines"), FATES, ids=[f"{n}-{one.status}" for n, (one, _) in enumerate(FATES)])
def test_each_fate_is_told(one: Fate, lines: list[str]) -> None:
    """In words: when, why, and what holds it."""
    assert told(one) == lines


def test_without_a_server_nothing_else_holds_a_record() -> None:
    """Whatever the destination's condition was."""
    assert told(fate("pending", condition=OPEN), serving=False) == [
        "pending: no server is running; it goes out after `walbatch serve`"
    ]


def test_the_record_is_told_first() -> None:
    """Its number, kind, name, size and id; what it repeats; and itself if that is asked for."""
    hidden = inspect_view.text(life(fate("sent"), replay_of=12), serving=True, reveal=False)
    assert hidden.splitlines()[:4] == [
        f"record    418, event E, {len(PAYLOAD.encode())}B",
        "id        e-1",
        "accepted  2023-11-14T22:13:20.000Z",
        "repeats   record 12",
    ]
    assert "secret" not in hidden
    assert r'"note": "\u009bsecret"' in inspect_view.text(life(fate("sent")), serving=True, reveal=True)


def test_nothing_commands_a_terminal() -> None:
    """Neither an id nor what a destination says."""
    text = inspect_view.text(
        life(fate("pending", condition=Condition(State.OPEN, 1, None, "\x1b[2J")), event_id="\x1b]0;\n"),
        serving=True,
        reveal=True,
    )
    assert all(line.isprintable() for line in text.split("\n"))
    assert "next try at once" in text


def test_the_document_has_everything() -> None:
    """Also what there is not; the record itself only if it is asked for."""
    one = fate("replayed", condition=OPEN, delivery=DELIVERY, letter=letter(resolution="replayed"))
    document = inspect_view.document(life(one, replay_of=12), reveal=True)
    assert document["record"]["properties"]["note"] == "\x9bsecret"
    assert inspect_view.document(life(fate("sent")), reveal=False) == {
        "seq": 418,
        "kind": "event",
        "name": "E",
        "event_id": "e-1",
        "bytes": len(PAYLOAD.encode()),
        "accepted_at": "2023-11-14T22:13:20.000Z",
        "replay_of": None,
        "record": None,
        "destinations": [
            {
                "name": "mixpanel",
                "status": "sent",
                "state": "ok",
                "failures": 0,
                "retry_at": None,
                "last_error": None,
                "paused_at": None,
                "about_to_be_sent": False,
                "delivery": None,
                "letter": None,
                "copies": [],
            }
        ],
    }
    (there,) = document["destinations"]
    assert there["delivery"] == {
        "started_at": "2023-11-14T22:13:21.000Z",
        "finished_at": "2023-11-14T22:13:21.120Z",
        "answer": "400: refused 1 of 50",
        "sent": 49,
        "dead": 1,
        "bytes": 16_384,
    }
    assert there["letter"] == {
        "code": 400,
        "field": "properties.time",
        "reason": "is invalid",
        "held": False,
        "at": "2023-11-14T22:13:22.000Z",
        "resolution": "replayed",
        "resolved_at": "2023-11-14T22:13:23.000Z",
    }
    assert (there["retry_at"], there["last_error"]) == ("2023-11-14T22:14:20.000Z", "503 Service Unavailable")
