"""How the life of a record looks: as JSON-ready values, and as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from .dead_view import printable, record_text, why
from .table import counted

if TYPE_CHECKING:
    from walbatch.life import Life
    from walbatch.wal.dead_letters import Letter
    from walbatch.wal.fates import Delivery, Fate

_UNWANTED = {
    "filtered": "not for it: its filter keeps such records back",
    "older": "not for it: it was added after this record was accepted",
}


def document(life: Life, *, reveal: bool) -> dict[str, Any]:
    """Return everything about a record, for `--json`; the record itself only with `reveal`."""
    from walbatch.event import Kind
    from walbatch.stats import rfc3339

    row = life.row
    return {
        "seq": row.offset,
        "kind": Kind(row.kind).name.lower(),
        "name": _name(life),
        "event_id": row.event_id,
        "bytes": len(row.payload.encode()),
        "accepted_at": rfc3339(row.received_at_ms),
        "replay_of": row.replay_of,
        "destinations": [_fate_document(fate) for fate in life.fates],
        "record": orjson.loads(row.payload) if reveal else None,
    }


def _fate_document(fate: Fate) -> dict[str, Any]:
    from walbatch.stats import rfc3339

    condition, delivery, letter = fate.condition, fate.delivery, fate.letter
    return {
        "name": fate.destination,
        "status": fate.status,
        "state": condition.state.value,
        "failures": condition.failures,
        "retry_at": None if condition.retry_at_ms is None else rfc3339(condition.retry_at_ms),
        "last_error": condition.last_error,
        "paused_at": None if fate.paused_at_ms is None else rfc3339(fate.paused_at_ms),
        "about_to_be_sent": fate.is_intended,
        "delivery": delivery
        and {
            "started_at": rfc3339(delivery.started_at_ms),
            "finished_at": rfc3339(delivery.finished_at_ms),
            "answer": delivery.note,
            "sent": delivery.sent,
            "dead": delivery.dead,
            "bytes": delivery.bytes,
        },
        "letter": letter
        and {
            "code": letter.key.code,
            "field": letter.key.field,
            "reason": letter.key.reason,
            "held": bool(letter.key.held),
            "at": rfc3339(letter.at_ms),
            "resolution": letter.resolution,
            "resolved_at": None if letter.resolved_at_ms is None else rfc3339(letter.resolved_at_ms),
        },
        "copies": [{"seq": number, "status": status} for number, status in fate.copies],
    }


def text(life: Life, *, serving: bool, reveal: bool) -> str:
    """Return everything about a record, for people."""
    from walbatch.event import Kind
    from walbatch.stats import rfc3339
    from walbatch.units import format_bytes

    row = life.row
    size = format_bytes(len(row.payload.encode()))
    facts = [
        ("record", f"{row.offset}, {Kind(row.kind).name.lower()} {_name(life)}, {size}"),
        ("id", row.event_id),
        ("accepted", rfc3339(row.received_at_ms)),
        *([("repeats", f"record {row.replay_of}")] if row.replay_of is not None else []),
        *((fate.destination, one) for fate in life.fates for one in _told(life, fate, serving=serving)),
    ]
    width = max(len(name) for name, _ in facts)
    lines = [printable(f"{name:<{width}}  {fact}") for name, fact in facts]
    return "\n".join([*lines, record_text(row.payload)] if reveal else lines)


def _told(life: Life, fate: Fate, *, serving: bool) -> list[str]:
    """Say what became of a record at one destination."""
    told = [_status(life, fate, serving=serving)]
    if fate.delivery is not None:
        told.append(_delivered(fate.delivery))
    told += [f"repeated by record {number}, which is {status}" for number, status in fate.copies]
    return told


def _status(life: Life, fate: Fate, *, serving: bool) -> str:
    from walbatch.stats import rfc3339
    from walbatch.units import format_duration

    if fate.letter is not None:
        return _letter(fate.letter)
    match fate.status:
        case "pending":
            return f"pending: {_holding(fate, serving=serving)}"
        case "sent" if fate.delivery is not None:
            took_s = (fate.delivery.finished_at_ms - life.row.received_at_ms) / 1000
            return f"sent at {rfc3339(fate.delivery.finished_at_ms)}, {format_duration(took_s)} after it was accepted"
        case "sent":
            return "sent; when is not on record any more"
        case status:
            return _UNWANTED[status]


def _holding(fate: Fate, *, serving: bool) -> str:
    """Say why a record was not sent yet."""
    from walbatch.stats import rfc3339

    if fate.paused_at_ms is not None:
        return f"delivery is paused by a person since {rfc3339(fate.paused_at_ms)}; it goes out after `walbatch resume`"
    if not serving:
        return "no server is running; it goes out after `walbatch serve`"
    condition = fate.condition
    if condition.state == "ok":
        return "it is being sent" if fate.is_intended else "it waits for its batch, or is being sent"
    next_try = "at once" if condition.retry_at_ms is None else f"at {rfc3339(condition.retry_at_ms)}"
    failures = counted(condition.failures, "failure")
    return f"the destination is {condition.state} after {failures}: {condition.last_error}; next try {next_try}"


def _letter(letter: Letter) -> str:
    from walbatch.stats import rfc3339

    word = "held" if letter.key.held else "dead"
    ended = f", {letter.resolution} at {rfc3339(letter.resolved_at_ms)}" if letter.resolved_at_ms is not None else ""
    said = why(letter.key).removeprefix("held, ")
    return f"{word} since {rfc3339(letter.at_ms)}{ended}: {said} (group {letter.key.id})"


def _delivered(delivery: Delivery) -> str:
    from walbatch.units import format_bytes, format_duration

    others = counted(delivery.sent + delivery.dead - 1, "other")
    took = format_duration((delivery.finished_at_ms - delivery.started_at_ms) / 1000)
    return f"in a delivery with {others}, {format_bytes(delivery.bytes)}, which took {took}: {delivery.note}"


def _name(life: Life) -> str:
    from walbatch.event import Kind, described

    return described(Kind(life.row.kind), orjson.loads(life.row.payload))[0]
