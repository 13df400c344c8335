"""Take out of a destination's words what they quote of records, since those words go into logs and `stats`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

MIN_CHARACTERS = 4
"""Shorter values are not looked for: they would be found inside ordinary words."""

MARK = "…"

_WORD = re.compile(r"""[^\s"'`,;:=<>(){}\[\]|]+""")

_ENVELOPE = frozenset({"event", "properties", "time", "distinct_id", "$distinct_id", "$insert_id", "$group_id"})
"""Words that are in every record, though not as a value."""


def unquoted(text: str, payloads: Sequence[str]) -> str:
    """Return a text with a mark in place of each id and each value of a property that one of the payloads has.

    Names of events and of properties stay: they say what is wrong. What is quoted in part, changed or within another
    word is not recognised. Only payloads that have a word of the text are decoded: the text should be short.
    """
    words = {word for found in _WORD.findall(text) if len(word := found.strip(".!?")) >= MIN_CHARACTERS} - _ENVELOPE
    similar = [payload for payload in payloads if any(word in payload for word in words)]
    quoted = {value for payload in similar for value in _values(_carried(payload)) if value in text}
    for value in sorted(quoted, key=len, reverse=True):
        text = text.replace(value, MARK)
    return text


def _carried(payload: str) -> Any:
    record = orjson.loads(payload)
    return record.get("properties", record)  # an update has everything at the top


def _values(value: Any) -> Iterator[str]:
    """Yield every text and number at any depth, as it would be quoted."""
    match value:
        case dict():
            for inner in value.values():
                yield from _values(inner)
        case list():
            for inner in value:
                yield from _values(inner)
        case bool() | None:
            return
        case _:
            text = str(value)
            if len(text) >= MIN_CHARACTERS:
                yield text
