"""What `walbatch send` reads: lines, records, batches."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from walbatch.errors import InvalidRecord
from walbatch.pb.analytics.v1 import service_pb2 as pb

intake: Any = import_module("walbatch.cli.intake")  # by name, as the entry point does: the product never imports it


def refusal(line: bytes) -> tuple[str, str]:
    """Return field and reason of the refusal of a line."""
    with pytest.raises(InvalidRecord) as caught:
        intake.record(line)
    return caught.value.field, caught.value.reason


@pytest.mark.parametrize(
    ("line", "field", "reason"),
    [
        (b"secret", "", "NOT_JSON"),
        (b'{"event": "secret"', "", "NOT_JSON"),
        (b'{"event": NaN}', "", "NOT_FINITE"),
        (b'{"event": "E", "properties": {"secret": 1e999}}', "", "NOT_FINITE"),
        (b'{"event": "E", "properties": {"secret": 18446744073709551616}}', "", "INTEGER_TOO_LARGE"),
        (b'{"event": "\xff"}', "", "NOT_UNICODE"),
        (b'{"event": "\\ud800"}', "", "NOT_UNICODE"),
        (b'["event"]', "", "NOT_AN_OBJECT"),
        (b'{"name": "secret"}', "", "UNKNOWN"),
        (b'{"event": "E", "properties": {"a": "' + b"x" * 2**20 + b'"}}', "", "TOO_LARGE"),
        (b" " * (4 * 2**20) + b"{", "", "TOO_LARGE"),
    ],
    ids=lambda value: value[:60].decode(errors="replace") if isinstance(value, bytes) else "",
)
def test_what_is_no_record_is_refused(line: bytes, field: str, reason: str) -> None:
    """A refusal names the field, and its text holds nothing of the line."""
    with pytest.raises(InvalidRecord) as caught:
        intake.record(line)
    assert (caught.value.field, caught.value.reason) == (field, reason)
    assert "secret" not in str(caught.value)


def test_numbers_survive() -> None:
    """Integers of 64 bits and fractions arrive as they were written."""
    line = b'{"event":"E","properties":{"a":9223372036854775807,"b":1.0,"c":-0.5,"d":null,"e":[1,{"f":true}]}}'
    assert intake.record(line).event.properties_json.encode() == line[len(b'{"event":"E","properties":') : -1]


def split(chunks: Sequence[bytes | None]) -> list[bytes | None]:
    """Return the lines of chunks."""
    return list(intake.split_lines(chunks))


@given(st.lists(st.binary(max_size=6)), st.lists(st.integers(0, 40)))
def test_lines_do_not_depend_on_where_the_chunks_end(parts: list[bytes], cuts: list[int]) -> None:
    """However a stream is cut into chunks, its lines are those of the whole."""
    whole = b"\n".join(parts)
    ends = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    chunks = [whole[start:end] for start, end in pairwise(ends)]
    expected = whole.split(b"\n")
    assert split(chunks) == (expected if expected[-1] else expected[:-1])


def test_a_pause_does_not_end_a_line() -> None:
    """A writer may be interrupted within a line."""
    assert split([b"a\nb", None, b"c\n", None]) == [b"a", None, b"bc", None]


def test_an_endless_line_is_cut() -> None:
    """What is kept of a line without an end is as much as it takes to refuse it; the next line is intact."""
    first, second = split([b"x" * 2**20] * 6 + [b"\nnext"])
    assert first is not None
    assert len(first) == 4 * 2**20 + 1
    assert refusal(first) == ("", "TOO_LARGE")
    assert second == b"next"


def good(number: int, size: int = 0) -> bytes:
    """Return a good line."""
    return orjson.dumps({"event": f"E{number}", "properties": {"text": "x" * size}})


def test_batches_know_where_each_record_came_from() -> None:
    """Blank lines count as lines and are no records; what is no record stands among the refusals of its batch."""
    (batch,) = intake.batches([good(1), b"", b"  \r", b"no", good(5), b""])
    assert [found.event.name for found in batch.records] == ["E1", "E5"]
    assert batch.numbers == [1, 5]
    assert [(found.line, found.reason) for found in batch.refusals] == [(4, "NOT_JSON")]
    assert batch.last_line == 6


def test_a_batch_has_at_most_500_lines() -> None:
    """The 501st line begins another batch, good or not."""
    sizes = [(len(batch), batch.last_line) for batch in intake.batches([good(n) for n in range(501)])]
    assert sizes == [(500, 500), (1, 501)]
    assert [len(batch) for batch in intake.batches([b"no"] * 501)] == [500, 1]


def test_a_batch_has_at_most_a_mebibyte() -> None:
    """A record that no longer fits begins another batch."""
    found = list(intake.batches([good(n, 400_000) for n in range(5)]))
    assert [len(batch) for batch in found] == [2, 2, 1]
    assert all(pb.IngestRequest(records=batch.records).ByteSize() < 2**20 for batch in found)


def test_a_pause_ends_a_batch() -> None:
    """What is there is sent before more is waited for; a pause without anything new is only passed on."""
    found = list(intake.batches([good(1), good(2), None, None, b"", None, good(4)]))
    assert [batch and batch.last_line for batch in found] == [2, None, None, None, 4]


def test_no_lines_no_batches() -> None:
    """Nothing is made of nothing."""
    assert list(intake.batches([])) == []
    assert list(intake.batches([b"", b" "])) == []
