"""The sink that prints."""

from __future__ import annotations

import io
import os
import sys

import orjson
import pytest

from walbatch.delivery import DELIVERED, Hold, Settled
from walbatch.event import Kind
from walbatch.sinks.lines import as_lines
from walbatch.sinks.stdout import StdoutSink

EVENT = '{"event":"Zürich","properties":{"n":1.0}}'
UPDATE = '{"$distinct_id":"u1","$set":{"plan":"pro"}}'


async def test_each_record_is_one_line() -> None:
    """A line names the endpoint and holds the record's own text."""
    stream = io.StringIO()
    async with StdoutSink(stream) as sink:
        assert await sink.send(Kind.EVENT, [EVENT, EVENT]) == Settled([DELIVERED, DELIVERED], "written")
        assert await sink.send(Kind.PROFILE, [UPDATE]) == Settled([DELIVERED], "written")
    lines = stream.getvalue().splitlines()
    assert lines == [f'{{"endpoint":"/import","record":{EVENT}}}'] * 2 + [f'{{"endpoint":"/engage","record":{UPDATE}}}']
    assert orjson.loads(lines[2])["record"]["$set"] == {"plan": "pro"}


async def test_bytes_are_utf8_whatever_the_locale_says() -> None:
    """A text stream with a narrow encoding gets the payload's bytes underneath."""
    raw = io.BytesIO()
    async with StdoutSink(io.TextIOWrapper(raw, encoding="ascii")) as sink:
        await sink.send(Kind.EVENT, [EVENT])
        assert raw.getvalue().decode() == f'{{"endpoint":"/import","record":{EVENT}}}\n'


async def test_standard_output_is_the_default(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Without a stream the records go to standard output, flushed."""
    async with StdoutSink() as sink:
        await sink.send(Kind.PROFILE, [UPDATE])
    assert capfdbinary.readouterr().out.endswith(b'"record":' + UPDATE.encode() + b"}\n")


async def test_a_reader_that_has_gone_holds() -> None:
    """A broken pipe keeps the records; it is no verdict on them."""
    reader, writer = os.pipe()
    os.close(reader)
    with io.FileIO(writer, "w") as stream:
        async with StdoutSink(stream) as sink:
            assert await sink.send(Kind.EVENT, [EVENT]) == Hold("cannot write to the output: Broken pipe")


async def test_a_closed_stream_holds() -> None:
    """Nor is a stream that somebody closed."""
    stream = io.BytesIO()
    stream.close()
    async with StdoutSink(stream) as sink:
        assert await sink.send(Kind.EVENT, [EVENT]) == Hold("cannot write to the output: it is closed")


class Sips(io.RawIOBase):
    """An unbuffered stream that takes a few bytes at a time, and then none."""

    def __init__(self, capacity: int) -> None:
        self.taken = bytearray()
        self.capacity = capacity

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, data: object, /) -> int | None:
        """Take at most seven bytes, until there is no more room."""
        part = bytes(memoryview(data))[: min(7, self.capacity - len(self.taken))]  # type: ignore[arg-type]
        self.taken += part
        return len(part) or None


async def test_an_unbuffered_stream_gets_everything() -> None:
    """A stream that takes a part of each write is written to until all is out."""
    stream = Sips(capacity=sys.maxsize)
    async with StdoutSink(stream) as sink:
        assert isinstance(await sink.send(Kind.EVENT, [EVENT, EVENT]), Settled)
    assert stream.taken.decode() == f'{{"endpoint":"/import","record":{EVENT}}}\n' * 2


async def test_a_stream_that_would_block_holds() -> None:
    """A non-blocking stream whose reader is behind keeps the records."""
    async with StdoutSink(Sips(capacity=10)) as sink:
        assert await sink.send(Kind.EVENT, [EVENT]) == Hold("cannot write to the output: its reader is behind")


def test_lines_name_the_endpoint_of_each_kind() -> None:
    """What is written instead of sent says where it would have gone."""
    assert as_lines(Kind.GROUP, [UPDATE]) == f'{{"endpoint":"/groups","record":{UPDATE}}}\n'
    assert as_lines(Kind.EVENT, []) == ""
