"""Durations, sizes and times as people write them. Pure; one grammar for settings, flags and output.

What is wrong is said without repeating the text, which may hold something that nobody should see: the caller, who
knows, puts it in front (`'10x' is not a duration; write ...`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

MAX_DURATION_S = 100 * 365 * 86_400.0
"""A hundred years. More is a typing error, and would overflow a time some day."""

_DURATION_HINT = "is not a duration; write 200ms, 10s, 5m, 1h30m, 7d or a number of seconds"
_SIZE_HINT = "is not a size; write 64MiB, 1.5GiB, 2GB or a number of bytes"
_TIME_HINT = "is not a time; write 15m, 2h or 7d (ago), 2026-11-23 (UTC) or 2026-11-23T08:30:00Z"

_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
# Largest first and each at most once, so that `5m1h` and `5m5m` are typing errors.
_DURATION = re.compile("".join(rf"(?:(?P<{unit}>[0-9]+(?:\.[0-9]+)?){unit})?" for unit in _MS))
_ONE_DECIMAL_BELOW_S = 9.95
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_MILLION = 1_000_000
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")

_BINARY = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12} | {u.lower(): n for u, n in _BINARY.items()}
_SIZE = re.compile(r"([0-9]+)(?:\.([0-9]{1,9}))? ?([A-Za-z]*)")
_MAX_DIGITS = 18  # what SQLite's and everyone's 64-bit integers hold

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_duration_s(text: str) -> float:
    """Return the seconds in `10s`, `200ms`, `5m`, `2h`, `7d`, `1h30m` or a plain number of seconds.

    Raises:
        ValueError: It is none of these; the message says what to write.
    """
    text = text.strip()
    seconds = float(text) if _NUMBER.fullmatch(text) else _with_units_s(text)
    if seconds > MAX_DURATION_S:
        raise ValueError("is longer than 100 years")
    return seconds


def _with_units_s(text: str) -> float:
    match = _DURATION.fullmatch(text.lower())
    if not text or match is None:
        raise ValueError(_DURATION_HINT)
    return sum(float(number) * _MS[unit] for unit, number in match.groupdict().items() if number) / 1000


def format_duration(seconds: float) -> str:
    """Return the duration in the units that it fills: `200ms`, `10s`, `1h30m`, `7d`.

    It is exact to the millisecond, and `parse_duration_s` reads it back. Round first to show less.
    """
    rest = round(abs(seconds) * 1000)
    sign = "-" if seconds < 0 and rest else ""
    parts = []
    for unit, size_ms in _MS.items():
        count, rest = divmod(rest, size_ms)
        if count:
            parts.append(f"{count}{unit}")
    return sign + ("".join(parts) or "0s")


def rough_duration(seconds: float) -> str:
    """Return about how long that is, for people: `1.4 s`, `38 s`, `5 min`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < _ONE_DECIMAL_BELOW_S:
        return f"{max(seconds, 0.0):.1f} s"
    whole = int(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min"
    if whole < _DAY_S:
        hours, rest = divmod(whole, _HOUR_S)
        return f"{hours} h {rest // _MINUTE_S} min"
    days, rest = divmod(whole, _DAY_S)
    return f"{days} d {rest // _HOUR_S} h"


def rough_count(number: int) -> str:
    """Return about how many that is, for people: `12,400`, `1.2 M`."""
    return f"{number:,}" if number < _MILLION else f"{number / _MILLION:,.1f} M"


def parse_bytes(text: str) -> int:
    """Return the bytes in `64MiB` (powers of 1024), `2GB` (powers of 1000) or a plain number, rounded down.

    `64M` is refused: it means one thing to some and the other to the rest.

    Raises:
        ValueError: It is none of these; the message says what to write.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(_SIZE_HINT)
    whole, fraction, unit = match.groups(default="")
    if (unit or "b").lower() not in _BYTES or (fraction and not unit):
        raise ValueError(_SIZE_HINT)
    if len(whole.lstrip("0")) > _MAX_DIGITS:
        raise ValueError("is larger than any disk")
    factor = _BYTES[(unit or "b").lower()]
    decimals: int = 10 ** len(fraction)
    return int(whole) * factor + int(fraction or "0") * factor // decimals


def format_bytes(size: int) -> str:
    """Return the size in the largest unit of 1024 that it fills, with at most one decimal: `64MiB`, `1.2GiB`, `5B`."""
    for unit, factor in _BINARY.items():
        if abs(size) >= factor:
            return f"{size / factor:.1f}".removesuffix(".0") + unit
    return f"{size}B"


def parse_time_ms(text: str, now_ms: int) -> int:
    """Return a moment in milliseconds since 1970: `15m` (ago), `2026-11-23` (its start in UTC) or RFC 3339.

    A time of day without an offset is refused, since it would mean another moment on another machine, and so is a
    plain number, which could be seconds ago, or seconds or milliseconds since 1970.

    Raises:
        ValueError: It is none of these; the message says what to write.
    """
    text = text.strip()
    if _DATE.fullmatch(text):
        return _moment_ms(f"{text}T00:00:00Z")
    if _RFC3339.fullmatch(text):
        return _moment_ms(text.upper())
    if not text or _NUMBER.fullmatch(text) or not _DURATION.fullmatch(text.lower()):
        raise ValueError(_TIME_HINT)
    return now_ms - round(parse_duration_s(text) * 1000)


def _moment_ms(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"is not in the calendar: {error}") from None
    return (moment - _EPOCH) // timedelta(milliseconds=1)
