"""What `walbatch send` reads: from bytes to lines, from lines to records, from records to batches. Pure.

A line is one JSON object in a shape in which Mixpanel takes it; `walbatch.shapes` tells which.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from walbatch import json_text
from walbatch.errors import InvalidRecord
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.shapes import MAX_MESSAGE_BYTES, shaped

BATCH_LINES = 500
"""Lines of one request: enough to share one fsync, few enough that a repetition costs little."""

BATCH_BYTES = MAX_MESSAGE_BYTES
"""Bytes of one request. A record that is larger by itself is larger than the server takes."""

MAX_LINE = 4 * 2**20
"""Bytes of a line. The record in it has to stay under 1,000,000; escaped text is up to six times as long."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one line was not stored. It names the field and never holds its value."""

    line: int
    field: str
    reason: str
    description: str


@dataclass(slots=True)
class Batch:
    """Lines that go out together: the records, the number of the line that each came from, and what is no record."""

    records: list[pb.Record] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    last_line: int = 0
    """Everything up to this line is in this batch, or in one before it."""
    source_bytes: int = 0
    """How much of the input that was."""

    def __len__(self) -> int:
        return len(self.records) + len(self.refusals)


def split_lines(chunks: Iterable[bytes | None]) -> Iterator[bytes | None]:
    """Yield the lines of a stream without their line breaks, and None wherever the stream pauses.

    A line that is longer than `MAX_LINE` is cut to one byte more, so that memory stays flat and `record` refuses it.
    """
    rest = b""
    for chunk in chunks:
        if chunk is None:
            yield None
            continue
        first, *more = chunk.split(b"\n")
        rest = (rest + first)[: MAX_LINE + 1]
        for part in more:
            yield rest
            rest = part
    if rest:
        yield rest


def batches(lines: Iterable[bytes | None]) -> Iterator[Batch | None]:
    """Yield the lines' records in batches; a pause ends a batch early, and is passed on."""
    batch, size = Batch(), 0
    for number, line in _numbered(lines):
        if line is None:
            if len(batch):
                yield batch
                batch, size = Batch(last_line=batch.last_line), 0
            yield None
            continue
        parsed = _parse(number, line)
        needed = parsed.ByteSize() if isinstance(parsed, pb.Record) else 0
        if len(batch) >= BATCH_LINES or (batch.records and size + needed > BATCH_BYTES):
            yield batch
            batch, size = Batch(), 0
        _add(batch, number, line, parsed)
        size += needed
    if len(batch):
        yield batch


def _numbered(lines: Iterable[bytes | None]) -> Iterator[tuple[int, bytes | None]]:
    number = 0
    for line in lines:
        number += line is not None
        yield number, line


def _add(batch: Batch, number: int, line: bytes, parsed: pb.Record | Refusal | None) -> None:
    match parsed:
        case pb.Record():
            batch.records.append(parsed)
            batch.numbers.append(number)
        case Refusal():
            batch.refusals.append(parsed)
    batch.last_line = number
    batch.source_bytes += len(line) + 1


def _parse(number: int, line: bytes) -> pb.Record | Refusal | None:
    """Return what a line holds; None if it is blank."""
    if not line.strip():
        return None
    try:
        return record(line)
    except InvalidRecord as error:
        return Refusal(number, error.field, error.reason, error.description)


def record(line: bytes) -> pb.Record:
    """Return the record of one line.

    Raises:
        InvalidRecord: It is none; the text says why without repeating any of it.
    """
    if len(line) > MAX_LINE:
        raise InvalidRecord("", "TOO_LARGE", f"is longer than {MAX_LINE} bytes")
    return shaped(json_text.parse(line, ""))
