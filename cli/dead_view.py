"""How dead letters look: as JSON-ready values, and as text for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson

from .selecting import utc
from .table import console, counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from walbatch.dead import Refusal
    from walbatch.wal.dead_letters import Group, Key, Letter, Plan

_CONTROLS = {code: f"\\u{code:04x}" for code in (0x7F, *range(0x80, 0xA0))}
"""Characters that JSON leaves alone and that can command a terminal."""


def letter_document(letter: Letter, copies: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """Return a letter with its record, and with what links it to others, for `--json`."""
    from walbatch.letters import said
    from walbatch.stats import rfc3339

    return {
        "seq": letter.stored.number,
        "group": letter.key.id,
        **said(letter.key),
        "at": rfc3339(letter.at_ms),
        "resolution": letter.resolution,
        "resolved_at": None if letter.resolved_at_ms is None else rfc3339(letter.resolved_at_ms),
        "received_at": rfc3339(letter.received_at_ms),
        "event_id": letter.stored.event_id,
        "replay_of": letter.replay_of,
        "copies": [{"seq": number, "status": status} for number, status in copies],
        "record": orjson.loads(letter.stored.payload),
    }


def export_line(letter: Letter) -> bytes:
    """Return a letter as one line of JSON. The record in it is the stored text, byte for byte."""
    from walbatch.event import Kind
    from walbatch.stats import rfc3339

    key = letter.key
    return orjson.dumps(
        {
            "destination": key.destination,
            "seq": letter.stored.number,
            "kind": Kind(key.kind).name.lower(),
            "code": key.code,
            "field": key.field,
            "reason": key.reason,
            "held": bool(key.held),
            "at": rfc3339(letter.at_ms),
            "event_id": letter.stored.event_id,
            "record": orjson.Fragment(letter.stored.payload),
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


def print_groups(groups: Iterable[Group]) -> None:
    """Print one line for each group."""
    from rich.table import Table

    table = Table("id", "to", "lane", "count", "why", "first", "last", "example", box=None, pad_edge=False)
    table.columns[3].justify = table.columns[7].justify = "right"
    table.columns[4].overflow = "fold"
    for group in groups:
        key = group.key
        count, example = f"{group.count:,}", str(group.example)
        table.add_row(
            key.id, key.destination, key.lane, count, why(key), utc(group.first_ms), utc(group.last_ms), example
        )
    console().print(table)


def letter_text(letter: Letter, copies: Sequence[tuple[int, str]]) -> str:
    """Return all there is to know about a letter, and its record."""
    ended = f", {letter.resolution} at {utc(letter.resolved_at_ms)}" if letter.resolution else ""
    facts = [
        ("record", f"{letter.stored.number}, accepted at {utc(letter.received_at_ms)}"),
        ("to", f"{letter.key.destination}, {letter.key.lane}"),
        ("dead", f"since {utc(letter.at_ms)}{ended}"),
        ("why", f"{why(letter.key)} (group {letter.key.id})"),
        *([("repeats", f"record {letter.replay_of}")] if letter.replay_of else []),
        *(("repeated by", f"record {number}, which is {status}") for number, status in copies),
    ]
    return "\n".join([*(f"{name:<11}  {printable(fact)}" for name, fact in facts), record_text(letter.stored.payload)])


def record_text(payload: str) -> str:
    """Return a stored record for people, so that it cannot command a terminal."""
    return json.dumps(orjson.loads(payload), indent=2, ensure_ascii=False).translate(_CONTROLS)


def why(key: Key) -> str:
    """Return what the destination said, in a line."""
    said = ": ".join(part for part in (f"{key.code or ''} {key.field}".strip(), key.reason) if part)
    return printable(f"held, it may have arrived: {said}" if key.held else said)


def matching(plan: Plan, destination: str) -> str:
    """Say what a choice covers."""
    if not plan.count:
        return "0 letters match"
    held = f", {plan.held} of them held" if plan.held else ""
    return (
        f"{counted(plan.count, 'dead letter')} selected for {destination}{held}, dead from {utc(plan.first_ms)}"
        f" to {utc(plan.last_ms)}"
    )


def refusal_text(refusal: Refusal) -> str:
    """Say why a corrected record was not taken."""
    what = ": ".join(part for part in (refusal.field, refusal.description) if part)
    return printable(f"record {refusal.number} stays: {what} ({refusal.reason})")


def printable(text: str) -> str:
    """Return a text that cannot command a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
