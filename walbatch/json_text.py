"""JSON text in and out, without anything being lost on the way.

orjson is strict about most of it. What it would change without a word is refused here: an integer beyond 64 bits,
which it reads as a float, and NaN, which it writes as null. What it refuses is told apart, so that every refusal has a
reason of its own. The same name twice in one object is left alone: the last one counts.
"""

from __future__ import annotations

import json
from math import inf, isfinite
from typing import Any, NoReturn

import orjson

from walbatch.errors import InvalidRecord

LOW, HIGH = -(2.0**63), 2.0**64
"""A float strictly between these was no integer beyond 64 bits, which is what orjson reads exactly."""

_LEVELS = 8
"""How deep numbers are looked at. Far deeper than any record may be nested."""

_MAX_DIGITS = 20
"""Digits and sign of the longest integer of 64 bits."""

_DEPTH = 200
"""orjson writes 254 levels; any document that is nested this deeply was refused for that."""


def parse(text: str | bytes, field: str, *, exact: bool = True) -> dict[str, Any]:
    """Return the one JSON object that a text holds; if not `exact`, integers beyond 64 bits are the caller's to find.

    Raises:
        InvalidRecord: It is no JSON (NOT_JSON, NOT_FINITE, NOT_UNICODE, TOO_DEEP), holds an integer beyond 64 bits
            (INTEGER_TOO_LARGE), or is something else than an object. The text says where, and quotes nothing.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        # The error's own text can quote the document, which may hold personal data: say only where it is.
        line = f"line {error.lineno} " if error.lineno > 1 else ""
        where = f"from {line}column {error.colno} on"
        refuse_if_known(text, field, f" ({where})")
        raise InvalidRecord(field, "NOT_JSON", f"is not valid JSON {where}") from None
    if not isinstance(value, dict):
        raise InvalidRecord(field, "NOT_AN_OBJECT", 'must be one JSON object, such as {"plan": "pro"}')
    if exact and _beyond(value, LOW, HIGH, _LEVELS):
        refuse_if_known(text, field)
    return value


def dump(value: Any, field: str) -> str:
    """Return a value as the shortest JSON text.

    Raises:
        InvalidRecord: JSON cannot hold it (NOT_FINITE, NOT_UNICODE, INTEGER_TOO_LARGE, TOO_DEEP or NOT_JSON).
    """
    if _beyond(value, -inf, inf, _LEVELS):
        raise InvalidRecord(field, "NOT_FINITE", "has a number that is NaN or an infinity")
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        refuse(value, field)


def refuse(value: Any, field: str) -> NoReturn:
    """Say why orjson cannot write a value."""
    rest = [(value, 0)]
    while rest:
        found, depth = rest.pop()
        if depth > _DEPTH:
            raise InvalidRecord(field, "TOO_DEEP", f"is nested more than {_DEPTH} levels deep")
        match found:
            case str():
                check_unicode(found, field)
            case int() if not _fits(found):
                raise _too_large(field, "")
            case dict():
                rest += ((inner, depth + 1) for pair in found.items() for inner in pair)
            case list() | tuple():
                rest += ((inner, depth + 1) for inner in found)
    raise InvalidRecord(field, "NOT_JSON", "has a value that JSON cannot hold")


def check_unicode(value: str, field: str) -> None:
    """Refuse a text with half a surrogate pair, which has no bytes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRecord(field, "NOT_UNICODE", "has half a surrogate pair, which is no character") from None


def _fits(number: int) -> bool:
    return -(2**63) <= number < 2**64


def _beyond(value: Any, low: float, high: float, levels: int) -> bool:
    """Say whether there is a float that is not strictly between two others. NaN is not."""
    match value:
        case float():
            return not low < value < high
        case dict() if levels:
            return any(_beyond(inner, low, high, levels - 1) for inner in value.values())
        case list() if levels:
            return any(_beyond(inner, low, high, levels - 1) for inner in value)
        case _:
            return False


def refuse_if_known(text: str | bytes, field: str, where: str = "") -> None:
    """Raise what is wrong with a text, if the slower and more patient parser of the standard library can tell."""

    def integer(digits: str) -> int:
        if len(digits) > _MAX_DIGITS or not _fits(int(digits)):
            raise _too_large(field, where)
        return 0

    def number(digits: str) -> float:
        if not isfinite(float(digits)):
            raise InvalidRecord(field, "NOT_FINITE", f"has a number that no double can hold{where}")
        return 0.0

    def constant(_: str) -> NoReturn:
        raise InvalidRecord(field, "NOT_FINITE", f"has a number that is NaN or an infinity, which is no JSON{where}")

    try:
        found = json.loads(
            text if isinstance(text, str) else text.decode(),
            parse_int=integer,
            parse_float=number,
            parse_constant=constant,
        )
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeError:
        raise InvalidRecord(field, "NOT_UNICODE", f"has text that is not valid Unicode{where}") from None
    except RecursionError:
        raise InvalidRecord(field, "TOO_DEEP", f"is nested too deeply{where}") from None
    except ValueError:
        return


def _too_large(field: str, where: str) -> InvalidRecord:
    return InvalidRecord(
        field, "INTEGER_TOO_LARGE", f"has an integer beyond 64 bits, which would be rounded; send it as text{where}"
    )
