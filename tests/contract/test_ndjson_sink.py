"""The archive of files: what is settled is on the disk, and a finished file holds whole lines only."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from walbatch.clock import SystemClock
from walbatch.delivery import DELIVERED, Answer, Hold, Settled
from walbatch.errors import ConfigurationError
from walbatch.event import Kind
from walbatch.sinks.ndjson import FINISH_AGAIN_S, NdjsonSink
from walbatch.testing.clock import FakeClock

WRITTEN = Settled([DELIVERED], "written")
FIRST = "events-20231114T221320Z-000001.ndjson"  # a FakeClock begins at that moment
LOCK = ".lock"


def event(number: int, text: str = "") -> str:
    """Return the payload of an event."""
    return f'{{"event":"Zürich","properties":{{"n":{number},"text":"{text}"}}}}'


def line(number: int, text: str = "") -> str:
    """Return the line of an event."""
    return f'{{"endpoint":"/import","record":{event(number, text)}}}\n'


def sink_in(
    directory: Path, clock: FakeClock | None = None, rotate_bytes: int = 1_000_000, rotate_s: float = 3600.0
) -> NdjsonSink:
    """Return a sink that does not rotate by itself, unless told otherwise."""
    return NdjsonSink(directory, rotate_bytes=rotate_bytes, rotate_s=rotate_s, clock=clock or FakeClock())


async def send(sink: NdjsonSink, *numbers: int) -> Answer:
    """Send events."""
    return await sink.send(Kind.EVENT, [event(number) for number in numbers])


def files(directory: Path) -> dict[str, str]:
    """Return the content of every file but the lock, by name, in order."""
    return {path.name: path.read_text() for path in sorted(directory.iterdir()) if path.name != LOCK}


def numbers(directory: Path) -> list[int]:
    """Return what every file holds, in the order of the files' names; every line must be whole."""
    lines = [text for content in files(directory).values() for text in content.splitlines()]
    return [orjson.loads(text)["record"]["properties"]["n"] for text in lines]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let this process write no file beyond a size: the write that crosses it is cut short, the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_each_record_is_one_line(tmp_path: Path) -> None:
    """A line names the endpoint and holds the record's own text, for every kind, in the order of sending."""
    async with sink_in(tmp_path) as sink:
        assert await sink.send(Kind.EVENT, [event(1), event(2)]) == Settled([DELIVERED] * 2, "written")
        assert await sink.send(Kind.PROFILE, ['{"$distinct_id":"u1"}']) == WRITTEN
        assert await sink.send(Kind.GROUP, ['{"$group_key":"k"}']) == WRITTEN
        expected = line(1) + line(2)
        expected += '{"endpoint":"/engage","record":{"$distinct_id":"u1"}}\n'
        expected += '{"endpoint":"/groups","record":{"$group_key":"k"}}\n'
        assert files(tmp_path) == {f"{FIRST}.open": expected}
    assert files(tmp_path) == {FIRST: expected}


async def test_the_directory_is_made_and_nobody_else_may_read(tmp_path: Path) -> None:
    """The archive holds personal data, so only this user may read it."""
    directory = tmp_path / "deep" / "archive"
    async with sink_in(directory) as sink:
        await send(sink, 1)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / FIRST).stat().st_mode) == 0o600


async def test_a_file_is_finished_by_size(tmp_path: Path) -> None:
    """The batch that reaches the size finishes the file; files are numbered in order, and no batch is torn apart."""
    async with sink_in(tmp_path, rotate_bytes=len(line(1).encode()) * 3) as sink:
        for first in range(1, 13, 2):
            await send(sink, first, first + 1)
    assert list(files(tmp_path)) == [FIRST.replace("01.", f"0{number}.") for number in (1, 2, 3)]
    assert numbers(tmp_path) == list(range(1, 13))


async def test_a_file_is_finished_by_age(tmp_path: Path) -> None:
    """An old file is finished even if nothing more comes; the next one is named after its own beginning."""
    clock = FakeClock()
    async with sink_in(tmp_path, clock, rotate_s=60.0) as sink:
        await send(sink, 1)
        assert await clock.sleeper(0.5) == 60.0
        await clock.advance(59.0)
        await send(sink, 2)
        assert list(files(tmp_path)) == [f"{FIRST}.open"]
        await clock.advance(1.0)
        await sink._run(lambda: None)  # what the clock has begun is done before this
        assert files(tmp_path) == {FIRST: line(1) + line(2)}
        await send(sink, 3)
    assert list(files(tmp_path)) == [FIRST, "events-20231114T221420Z-000002.ndjson"]


async def test_no_empty_file_is_left(tmp_path: Path) -> None:
    """Without a record there is no file."""
    async with sink_in(tmp_path):
        pass
    assert files(tmp_path) == {}


async def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    """One process writes in a directory; the next may as soon as the first has ended."""
    async with sink_in(tmp_path) as sink:
        with pytest.raises(ConfigurationError, match=re.escape(str(tmp_path)) + r".*another process writes there"):
            await sink_in(tmp_path).__aenter__()
        assert await send(sink, 1) == WRITTEN
    async with sink_in(tmp_path) as sink:
        assert await send(sink, 2) == WRITTEN
    assert numbers(tmp_path) == [1, 2]


async def test_a_directory_that_is_none_is_told_at_the_start(tmp_path: Path) -> None:
    """Where no directory can be, the error names the path."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=re.escape(f"{tmp_path}/file cannot be used as an archive")):
        await sink_in(tmp_path / "file").__aenter__()


@pytest.mark.parametrize("torn", ["", line(3)[:-9], line(3, "x" * 200_000)[:-1], "\0" * 70_000])
async def test_what_a_crash_has_left_is_finished(tmp_path: Path, torn: str) -> None:
    """A torn last line is cut off, whole lines are kept, and the numbers go on behind them."""
    left = "events-20200101T000000Z-000041.ndjson"
    (tmp_path / f"{left}.open").write_text(line(1) + line(2) + torn)
    async with sink_in(tmp_path) as sink:
        assert files(tmp_path) == {left: line(1) + line(2)}
        await send(sink, 3)
    assert list(files(tmp_path)) == [left, FIRST.replace("000001", "000042")]


async def test_a_crash_before_the_first_line_leaves_nothing(tmp_path: Path) -> None:
    """A file with no whole line in it is deleted, and files of somebody else are left alone."""
    (tmp_path / f"{FIRST}.open").write_text(line(1)[:-1])
    (tmp_path / "events-mine.ndjson.open").write_text("x")
    async with sink_in(tmp_path):
        assert files(tmp_path) == {"events-mine.ndjson.open": "x"}


async def test_a_disk_that_takes_no_more_holds(tmp_path: Path) -> None:
    """A write that is cut short leaves no torn line; the batch goes out when there is room, and to a new file."""
    async with sink_in(tmp_path) as sink:
        assert await send(sink, 1) == WRITTEN
        with largest_file(65_536):
            for _ in range(2):
                answer = await sink.send(Kind.EVENT, [event(2, "x" * 40_000), event(3, "x" * 40_000)])
                assert answer == Hold(f"cannot write in {tmp_path}: {os.strerror(errno.EFBIG)}")
                assert numbers(tmp_path) == [1]
            assert await send(sink, 4) == WRITTEN
        assert await send(sink, 2) == WRITTEN
    assert numbers(tmp_path) == [1, 4, 2]


async def test_a_failed_first_write_leaves_no_file(tmp_path: Path) -> None:
    """If not even the first batch fits, no empty file stays behind."""
    async with sink_in(tmp_path) as sink:
        with largest_file(100):
            assert isinstance(await sink.send(Kind.EVENT, [event(1, "x" * 1000)]), Hold)
        assert files(tmp_path) == {}


async def test_after_a_failed_fsync_the_file_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is cut back to what an earlier fsync confirmed, and the batch is written to another one."""
    fsync, trouble = os.fsync, [errno.EIO, errno.EIO]

    def failing(descriptor: int) -> None:
        if trouble:
            raise OSError(trouble.pop(), "Input/output error")
        fsync(descriptor)

    async with sink_in(tmp_path) as sink:
        await send(sink, 1)
        monkeypatch.setattr(os, "fsync", failing)  # there is no other way to a disk that fails just here
        assert await send(sink, 2) == Hold(f"cannot write in {tmp_path}: Input/output error")
        assert files(tmp_path) == {f"{FIRST}.open": line(1)}
        assert isinstance(await send(sink, 2), Hold), "finishing the first file failed"
        assert await send(sink, 2) == WRITTEN
        assert files(tmp_path) == {FIRST: line(1), f"{FIRST.replace('01.', '02.')}.open": line(2)}


async def test_trouble_while_finishing_by_age_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be finished when it is old is finished a minute later, without a new record."""
    fsync, trouble, clock = os.fsync, [errno.EIO], FakeClock()

    def failing(descriptor: int) -> None:
        if trouble:
            raise OSError(trouble.pop(), "Input/output error")
        fsync(descriptor)

    async with sink_in(tmp_path, clock, rotate_s=60.0) as sink:
        await send(sink, 1)
        await clock.sleeper(0.5)
        monkeypatch.setattr(os, "fsync", failing)
        await clock.advance(60.0)
        assert await clock.sleeper(0.5) == FINISH_AGAIN_S
        assert list(files(tmp_path)) == [f"{FIRST}.open"]
        await clock.advance(FINISH_AGAIN_S)
        await sink._run(lambda: None)
        assert files(tmp_path) == {FIRST: line(1)}


async def test_a_directory_that_is_removed_holds_until_it_is_back(tmp_path: Path) -> None:
    """Nothing is written, and nothing settled, while the directory is missing: it is not made again behind a mount."""
    directory, aside = tmp_path / "archive", tmp_path / "aside"
    async with sink_in(directory) as sink:
        await send(sink, 1)
        directory.rename(aside)
        for _ in range(2):
            assert await send(sink, 2) == Hold(f"cannot write in {directory}: No such file or directory")
        directory.mkdir()
        assert await send(sink, 2) == WRITTEN
        with pytest.raises(ConfigurationError):
            await sink_in(directory).__aenter__()
    assert numbers(directory) == [2]
    assert numbers(aside) == [1]


async def test_a_directory_that_became_a_file_holds(tmp_path: Path) -> None:
    """The reason names the path, whatever is there instead."""
    directory = tmp_path / "archive"
    async with sink_in(directory) as sink:
        directory.rename(tmp_path / "aside")
        directory.touch()
        assert await send(sink, 1) == Hold(f"cannot write in {directory}: Not a directory")


async def test_a_file_that_is_deleted_takes_nothing_with_it_that_is_not_settled(tmp_path: Path) -> None:
    """Writing to a deleted file succeeds; it is noticed, and the batch is written to another file."""
    async with sink_in(tmp_path) as sink:
        await send(sink, 1)
        (tmp_path / f"{FIRST}.open").unlink()
        assert await send(sink, 2) == Hold(
            f"cannot write in {tmp_path}: {FIRST}.open was deleted or moved while it was written"
        )
        assert await send(sink, 2) == WRITTEN
    assert numbers(tmp_path) == [2]


async def test_a_lock_that_is_deleted_is_taken_again(tmp_path: Path) -> None:
    """Somebody who tidies up the lock loses no record and lets no second writer in."""
    async with sink_in(tmp_path) as sink:
        await send(sink, 1)
        (tmp_path / LOCK).unlink()
        assert await send(sink, 2) == WRITTEN
        with pytest.raises(ConfigurationError):
            await sink_in(tmp_path).__aenter__()
    assert numbers(tmp_path) == [1, 2]


async def test_cancelling_leaves_whole_lines(tmp_path: Path) -> None:
    """A cancelled batch is written whole or not at all, and never into the middle of the next one."""
    async with sink_in(tmp_path) as sink:
        for first in range(0, 40, 2):
            sending = asyncio.create_task(send(sink, first, first + 1))
            await asyncio.sleep(0)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
        assert await send(sink, 98, 99) == Settled([DELIVERED] * 2, "written")
    found = numbers(tmp_path)
    assert found[-2:] == [98, 99]
    assert [n + 1 for n in found[::2]] == found[1::2]


WRITER = """
import asyncio, sys
from pathlib import Path
from walbatch.clock import SystemClock
from walbatch.event import Kind
from walbatch.sinks.ndjson import NdjsonSink

async def main():
    text = "x" * 20_000
    async with NdjsonSink(Path(sys.argv[1]), rotate_bytes=1_500_000, rotate_s=60.0, clock=SystemClock()) as sink:
        for batch in range(1_000_000):
            await sink.send(Kind.EVENT, [
                '{"event":"E","properties":{"n":%d,"text":"%s"}}' % (batch * 20 + i, text) for i in range(20)])
            print(batch, flush=True)

asyncio.run(main())
"""


def killed_after(batches: int, directory: Path) -> int:
    """Run a writer, kill it after so many batches were settled, and return how many it has told of."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(batches):
            writer.stdout.readline()
        writer.kill()
        return batches + len(writer.stdout.read().split())


def without_copies(found: Sequence[int]) -> list[int]:
    """Return numbers in the order in which they first come."""
    return list(dict.fromkeys(found))


async def test_a_killed_writer_loses_nothing_that_was_settled(tmp_path: Path) -> None:
    """After kill -9 in the middle every settled record is there, in order, and every line is whole."""
    for batches in (1, 5, 23):
        directory = tmp_path / str(batches)
        settled = await asyncio.to_thread(killed_after, batches, directory) * 20
        async with sink_in(directory, FakeClock(SystemClock().wall_ms())) as sink:
            left = numbers(directory)
            assert left[:settled] == list(range(settled))
            assert len(left) <= settled + 20, "of the batches that were not told of, one may have been settled"
            await send(sink, *left[settled:], 10_000)
        assert without_copies(numbers(directory)) == [*left, 10_000]
        assert not [name for name in files(directory) if name.endswith(".open")]
