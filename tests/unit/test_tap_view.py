"""How a record of a tap is written: for people, as JSON, as logfmt."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import pytest

from walbatch.event import Offset
from walbatch.tap import Shown

tap_view: Any = import_module("walbatch.cli.tap_view")  # by name, as the entry point does

HIDDEN = Shown(
    seq=Offset(418),
    received_at="2026-11-23T08:30:00.123Z",
    kind="event",
    name="Signed Up",
    event_id="e-1",
    distinct_id="~0a1b2c3d",
    bytes=341,
    replay_of=None,
    properties={"plan": "string", "list price": "number"},
)
REVEALED = HIDDEN._replace(
    distinct_id="u 1",
    replay_of=Offset(7),
    properties={"plan": 'größe "M"', "n": 5, "none": None, "empty": "", "deep": {"a": [1]}, 'odd "=\n': True},
)
COMMANDING = HIDDEN._replace(
    name="\x1b[2J\n\x7f\x9b", event_id="\x9b", distinct_id="\x07", properties={"\x1b]0;": "\x7f\x85"}
)


def test_text_is_for_people() -> None:
    """One line each, with the number for `walbatch inspect`."""
    assert tap_view.as_text(HIDDEN) == (
        "2026-11-23T08:30:00.123Z  418  event Signed Up of ~0a1b2c3d  plan: string, list price: number"
    )
    assert tap_view.as_text(REVEALED) == (
        "2026-11-23T08:30:00.123Z  418  event Signed Up of u 1, repeats 7"
        '  plan: größe "M", n: 5, none: null, empty: , deep: {"a": [1]}, odd "=?: true'
    )
    nothing = HIDDEN._replace(distinct_id="", properties={})
    assert tap_view.as_text(nothing) == "2026-11-23T08:30:00.123Z  418  event Signed Up"


def test_json_has_everything() -> None:
    """Also what there is not."""
    assert json.loads(tap_view.as_json(HIDDEN)) == HIDDEN._asdict()
    assert json.loads(tap_view.as_json(REVEALED)) == REVEALED._asdict()


def test_logfmt_is_pairs() -> None:
    """Values with anything unusual in them are quoted, names have none of it, and what there is not is left out."""
    assert tap_view.as_logfmt(HIDDEN) == (
        "seq=418 received_at=2026-11-23T08:30:00.123Z kind=event"
        ' name="Signed Up" event_id=e-1 distinct_id=~0a1b2c3d bytes=341'
        " properties.plan=string properties.list_price=number"
    )
    assert tap_view.as_logfmt(REVEALED).split("bytes=341 ")[1] == (
        r'replay_of=7 properties.plan="gr\u00f6\u00dfe \"M\"" properties.n=5 properties.none=null'
        r' properties.empty="" properties.deep="{\"a\": [1]}" properties.odd_=true'
    )


@pytest.mark.parametrize("form", ["as_text", "as_json", "as_logfmt"])
def test_no_record_commands_a_terminal(form: str) -> None:
    """Control characters do not get there, whoever made the names."""
    line = getattr(tap_view, form)(COMMANDING)
    assert line.isprintable()
