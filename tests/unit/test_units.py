"""Durations, sizes and times as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walbatch.units import (
    format_bytes,
    format_duration,
    parse_bytes,
    parse_duration_s,
    parse_time_ms,
    rough_count,
    rough_duration,
)

NOW_MS = 1_795_422_370_858  # 2026-11-23T08:26:10.858Z
DAY_MS = 1_795_392_000_000  # 2026-11-23T00:00:00Z


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("200ms", 0.2),
        ("10s", 10.0),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("7d", 604_800.0),
        ("1h30m", 5400.0),
        ("1d1ms", 86_400.001),
        ("1.5h", 5400.0),
        ("30", 30.0),
        ("0.25", 0.25),
        ("0", 0.0),
        (" 10S ", 10.0),
    ],
)
def test_duration_is_read(text: str, seconds: float) -> None:
    """Each unit, a mixture of them and a plain number of seconds are durations."""
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "s", "10x", "-5s", "5m1h", "5m5m", "1e3", "nan", "inf", "10 s", "\u0661\u0660s", "1.s"]
)
def test_duration_is_refused(text: str) -> None:
    """What could be read in two ways, or in none, is no duration."""
    with pytest.raises(ValueError, match="is not a duration; write 200ms"):
        parse_duration_s(text)


@pytest.mark.parametrize("text", ["36501d", "9" * 400, "9" * 400 + "h"])
def test_endless_duration_is_refused(text: str) -> None:
    """A number with too many digits is a typing error and not infinity."""
    with pytest.raises(ValueError, match="longer than 100 years"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.0001, "0s"),
        (0.2, "200ms"),
        (1.5, "1s500ms"),
        (25.0, "25s"),
        (90.0, "1m30s"),
        (604_800.0, "7d"),
        (-0.0001, "0s"),
        (-61.0, "-1m1s"),
    ],
)
def test_duration_is_shown(seconds: float, text: str) -> None:
    """A duration is shown in the units that it fills."""
    assert format_duration(seconds) == text


@given(st.integers(0, 10**12))
def test_shown_duration_reads_back(milliseconds: int) -> None:
    """What is shown, put into a setting, means the same to the millisecond."""
    assert round(parse_duration_s(format_duration(milliseconds / 1000)) * 1000) == milliseconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("1kB", 1000),
        ("1KiB", 1024),
        ("64MiB", 67_108_864),
        ("64 mib", 67_108_864),
        ("2GB", 2_000_000_000),
        ("20GiB", 21_474_836_480),
        ("1TiB", 2**40),
        ("1.5GiB", 1_610_612_736),
    ],
)
def test_size_is_read(text: str, size: int) -> None:
    """Units of 1024, units of 1000 and plain bytes are sizes, in any case of letters."""
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "64M", "64K", "-1", "1.5", "MiB", "1e6", "64MiBB", "\u0666\u0664MiB", "1_000", "1PiB"]
)
def test_size_is_refused(text: str) -> None:
    """An ambiguous unit, a part of a byte or anything else is no size."""
    with pytest.raises(ValueError, match="is not a size; write 64MiB"):
        parse_bytes(text)


def test_endless_size_is_refused() -> None:
    """A number that no 64-bit integer holds is refused before anything is computed with it."""
    with pytest.raises(ValueError, match="larger than any disk"):
        parse_bytes("9" * 5000)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (5, "5B"), (1024, "1KiB"), (1_234_567, "1.2MiB"), (67_108_864, "64MiB"), (21_474_836_480, "20GiB")],
)
def test_size_is_shown(size: int, text: str) -> None:
    """A size is shown in the largest unit that it fills, with a decimal only where it says something."""
    assert format_bytes(size) == text


@given(st.integers(1, 1023), st.sampled_from(["KiB", "MiB", "GiB", "TiB"]))
def test_round_size_reads_back(count: int, unit: str) -> None:
    """A size that was given in whole units is shown as it was given."""
    assert format_bytes(parse_bytes(f"{count}{unit}")) == f"{count}{unit}"


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("15m", NOW_MS - 900_000),
        ("2h", NOW_MS - 7_200_000),
        ("7d", NOW_MS - 604_800_000),
        ("1h30m", NOW_MS - 5_400_000),
        ("0s", NOW_MS),
        ("2026-11-23", DAY_MS),
        ("2026-11-23T00:00:00Z", DAY_MS),
        ("2026-11-23t00:00:00.125z", DAY_MS + 125),
        ("2026-11-23 00:00Z", DAY_MS),
        ("2026-11-23T01:00:00+01:00", DAY_MS),
        ("2026-11-22T16:00:00-08:00", DAY_MS),
        ("2026-11-23T00:00:00.0019999999Z", DAY_MS + 1),
        ("1969-12-31T23:59:59Z", -1000),
    ],
)
def test_time_is_read(text: str, expected_ms: int) -> None:
    """A time is how long ago it was, a day in UTC, or an RFC 3339 time with its offset."""
    assert parse_time_ms(text, NOW_MS) == expected_ms


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "3600", "1795392000000", "2026-11-23T08:30:00", "20261123", "2026-W48-1", "-2h", "23.11.2026"],
)
def test_time_is_refused(text: str) -> None:
    """A time that depends on the machine's zone, or a number of who knows what, is no time."""
    with pytest.raises(ValueError, match="is not a time; write 15m"):
        parse_time_ms(text, NOW_MS)


@pytest.mark.parametrize("text", ["2026-02-30", "2026-13-01", "2026-11-23T24:30:00Z", "2026-11-23T08:00:00+99:00"])
def test_impossible_time_is_refused(text: str) -> None:
    """A day or an hour that does not exist is named as such."""
    with pytest.raises(ValueError, match="is not in the calendar"):
        parse_time_ms(text, NOW_MS)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1.0, "0.0 s"),
        (0.04, "0.0 s"),
        (1.43, "1.4 s"),
        (9.94, "9.9 s"),
        (9.96, "9 s"),
        (59.99, "59 s"),
        (60.0, "1 min"),
        (3599.0, "59 min"),
        (3600.0, "1 h 0 min"),
        (11_100.0, "3 h 5 min"),
        (86_399.0, "23 h 59 min"),
        (273_600.0, "3 d 4 h"),
    ],
)
def test_a_duration_for_people_is_rough(seconds: float, text: str) -> None:
    """Two units at most, rounded down."""
    assert rough_duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (12_400, "12,400"), (999_999, "999,999"), (1_234_567, "1.2 M"), (12_345_678_901, "12,345.7 M")],
)
def test_a_count_for_people_is_rough(number: int, text: str) -> None:
    """Below a million every one is told."""
    assert rough_count(number) == text
