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


def record(**found: Any) -> pb.Record:
    """Return the record of an object."""
    made: pb.Record = intake.record(orjson.dumps(found))
    return made


def event(**properties: Any) -> pb.Event:
    """Return the event that these properties make."""
    return record(event="E", properties=properties).event


def refusal(line: bytes) -> tuple[str, str]:
    """Return field and reason of the refusal of a line."""
    with pytest.raises(InvalidRecord) as caught:
        intake.record(line)
    return caught.value.field, caught.value.reason


def test_an_event_in_mixpanels_shape_fills_the_fields() -> None:
    """Properties that have a field of their own move there; the others travel as the text of one JSON object."""
    made = event(
        distinct_id="u1", time=1517966773840, plan="Größe M",
        **{"$insert_id": "a-1", "$user_id": "u1", "$device_id": "d1", "ip": "192.0.2.1"},
    )  # fmt: skip
    assert (made.name, made.event_id, made.distinct_id) == ("E", "a-1", "u1")
    assert (made.user_id, made.device_id, made.ip) == ("u1", "d1", "192.0.2.1")
    assert made.event_time.ToMilliseconds() == 1517966773840
    assert made.properties_json == '{"plan":"Größe M"}'


def test_numbers_survive() -> None:
    """Integers of 64 bits and fractions arrive as they were written."""
    line = b'{"event":"E","properties":{"a":9223372036854775807,"b":1.0,"c":-0.5,"d":null,"e":[1,{"f":true}]}}'
    assert intake.record(line).event.properties_json.encode() == line[len(b'{"event":"E","properties":') : -1]


@pytest.mark.parametrize("time", [1517966773840, 1517966773840.0, 1517966773.84])
def test_time_is_milliseconds_or_seconds(time: float) -> None:
    """A time that would be in 1970 as milliseconds counts seconds."""
    assert event(time=time).event_time.ToMilliseconds() == 1517966773840


def test_a_missing_time_stays_missing() -> None:
    """Then it is the server that says when it was."""
    assert not event().HasField("event_time")
    assert not event(time=None).HasField("event_time")


def test_a_missing_id_is_made() -> None:
    """Each record gets an id before it is sent, so that a repetition is recognised."""
    made = [event().event_id, event().event_id, record(**{"$distinct_id": "u", "$set": {}}).profile_update.update_id]
    assert all(len(event_id) == 36 for event_id in made)
    assert len(set(made)) == 3


def test_whole_numbers_are_ids_too() -> None:
    """Systems that count their users write numbers."""
    assert event(distinct_id=42, **{"$user_id": 42}).distinct_id == "42"


def test_tokens_are_dropped() -> None:
    """The server has its own; they are not sent, whichever way they are spelt."""
    made = record(event="E", token="t", properties={"token": "t", "$token": "t", "a": 1}).event
    assert made.properties_json == '{"a":1}'
    update = record(**{"$token": "t", "$distinct_id": "u", "$time": 1, "$ip": "0", "$set": {"a": 1}}).profile_update
    assert update.set.json == '{"a":1}'


@pytest.mark.parametrize("operation", ["set", "set_once"])
def test_a_profile_update_has_one_operation(operation: str) -> None:
    """Both operations that the server knows can be sent."""
    update = record(**{"$distinct_id": "u1", f"${operation}": {"plan": "pro"}}).profile_update
    assert update.distinct_id == "u1"
    assert update.WhichOneof("operation") == operation
    assert getattr(update, operation).json == '{"plan":"pro"}'


@pytest.mark.parametrize(
    ("line", "field", "reason"),
    [
        (b"secret", "", "NOT_JSON"),
        (b'{"event": "secret"', "", "NOT_JSON"),
        (b'{"event": NaN}', "", "NOT_JSON"),
        (b'{"event": "\xff"}', "", "NOT_JSON"),
        (b'["event"]', "", "NOT_AN_OBJECT"),
        (b'{"name": "secret"}', "", "UNKNOWN"),
        (b'{"event": 5}', "event.name", "NOT_TEXT"),
        (b'{"event": "E", "time": 5}', "event.time", "UNKNOWN"),
        (b'{"event": "E", "properties": ["secret"]}', "event.properties", "NOT_AN_OBJECT"),
        (b'{"event": "E", "properties": {"distinct_id": true}}', "event.distinct_id", "NOT_TEXT"),
        (b'{"event": "E", "properties": {"$insert_id": ["secret"]}}', "event.event_id", "NOT_TEXT"),
        (b'{"event": "E", "properties": {"time": "secret"}}', "event.event_time", "NOT_A_NUMBER"),
        (b'{"event": "E", "properties": {"time": true}}', "event.event_time", "NOT_A_NUMBER"),
        (b'{"event": "E", "properties": {"time": 1e300}}', "event.event_time", "IN_THE_FUTURE"),
        (b'{"event": "E", "properties": {"a": ' + b"[" * 300 + b"]" * 300 + b"}}", "event.properties", "NOT_JSON"),
        (b'{"$distinct_id": "u"}', "profile_update.operation", "REQUIRED"),
        (b'{"$distinct_id": "u", "$set": {}, "$set_once": {}}', "profile_update.operation", "REQUIRED"),
        (b'{"$distinct_id": "u", "$add": {"n": 1}}', "profile_update.$add", "UNKNOWN"),
        (b'{"$distinct_id": "u", "$set": "secret"}', "profile_update.set", "NOT_AN_OBJECT"),
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


def test_text_that_is_no_unicode_is_refused() -> None:
    """An argument of the command line can hold bytes that are no text."""
    for found in ({"event": "\udcff"}, {"event": "E", "properties": {"a": "\udcff"}}):
        with pytest.raises(InvalidRecord):
            intake.shaped(found)


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
