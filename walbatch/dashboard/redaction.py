"""A record without what it says: names of properties and types of values, for whoever may not see more. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

NAMES = 40
"""Of one object. The rest is counted."""

LONGEST_NAME = 80
"""Characters. What is longer is no name that helps."""

SHORTEST_VALUE = 3
"""Characters. Shorter values would be found inside of ordinary words."""

_TYPES = {str: "text", int: "number", float: "number", bool: "boolean", type(None): "null", list: "list"}


def outline(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the types of a decoded record's values by name, and of the objects directly in it likewise.

    Deeper objects are only called so: their names may be ids.
    """
    return _named({name: _named(_types(v)) if isinstance(v, dict) else _type(v) for name, v in record.items()})


def _types(record: Mapping[str, Any]) -> dict[str, str]:
    return {name: _type(value) for name, value in record.items()}


def _type(value: Any) -> str:
    return _TYPES.get(type(value), "object")


def _named(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first names of an object, short enough to be shown."""
    shown = {_short(name): value for name, value in list(record.items())[:NAMES]}
    return shown | ({"…": f"{len(record) - NAMES} more"} if len(record) > NAMES else {})


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def without_values(text: str, record: Mapping[str, Any]) -> str:
    """Return a destination's words about a record without the values that they quote."""
    quoted = {value for value in _values(record) if len(value) >= SHORTEST_VALUE and value in text}
    for value in sorted(quoted, key=len, reverse=True):
        text = text.replace(value, "…")
    return text


def _values(value: Any) -> Iterator[str]:
    """Yield every text and every number in a value, as it would be printed."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _values(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield str(value)
