"""The disk fills up under load, and gets room again: refused meanwhile, delivered all the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from file_systems import FileSystem, in_memory, loop_mounted
from load import Load
from long_reader import reading
from probe import LIMIT_S, Answer, answers, track
from programs import WALBATCH, Program, Site, eventually, site
from total_queue import Verdict
from watching import MIB
from with_control import EARLY

from walbatch.wal.files import DATABASE_FILE, file_sizes

SIZE_MIB = 64
MIN_FREE = "8MiB"
"""More than a restart or a drain gives back by itself, the 4 MiB or so of the write-ahead log: only the ballast's end
makes room for new records."""

BROKEN = (sys.executable, str(Path(__file__).parent.parent / "support" / "broken_server.py"))
NOT_NOTED = "flusher.store_failed"
"""What a server logs that cannot note what was delivered."""

TRIES = 10
OUTGROWN_BYTES = 13 * MIB
"""More than SQLite's log has ahead."""

PROMPTLY_S = 5.0
DRAIN_S = 10.0


@contextmanager
def on_small_disk(path: Path, kind: str, **settings: object) -> Iterator[tuple[Site, FileSystem]]:
    """A site with its data on a file system of 64 MiB, of either sort."""
    place = path / "disk"
    with (
        in_memory(place, SIZE_MIB) if kind == "tmpfs" else loop_mounted(place, "ext4", SIZE_MIB) as disk,
        site(path, data_dir=disk.path / "data", **settings) as here,
    ):
        yield here, disk


def refused(here: Site) -> Answer | None:
    """Return how an event is refused, if it is."""
    answer = track(here)
    return None if answer.code is grpc.StatusCode.OK else answer


def fill_under_load(here: Site, disk: FileSystem, load: Load) -> Path:
    """Let records pile up, take all the space that is left, and check how the server tells it."""
    load.goes_on(40_000)
    assert here.stats()["pending"] > 100, "there is something to deliver"
    ballast = disk.fill()
    answer = eventually(lambda: refused(here), "new records are refused", PROMPTLY_S)
    assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED, answer
    assert answer.reason == "DISK_FULL"
    assert answer.retry_s == 30
    return ballast


def restart_on_the_full_disk(here: Site, server: Program) -> Program:
    """Kill the server, start it again, and see it serve and refuse."""
    server.kill()
    server = here.start(WALBATCH, "serve")
    eventually(lambda: answers(here, server), "it serves")
    assert track(here).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    return server


def drain_the_full_disk(here: Site, disk: FileSystem) -> None:
    """See everything delivered while there is room for nothing new, and somebody takes whatever is given up."""
    with disk.kept_full():
        sink = here.sink()
        eventually(lambda: here.stats()["pending"] == 0, "everything is delivered", DRAIN_S)
        assert track(here).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    sink.kill()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_a_full_disk_refuses_and_delivers_and_recovers(
    tmp_path: Path, kind: str, rounds: Callable[[int, int], int], matrix: Callable[..., None]
) -> None:
    """New records are refused with the reason, what is pending goes out, and with room again all is well by itself."""
    times = rounds(2, 6)
    settings = {"min_free_disk": MIN_FREE, "retry_base": "50ms", "retry_max": "200ms"}
    with on_small_disk(tmp_path, kind, **settings) as (here, disk):
        server = here.serve()
        load = Load(here)
        for number in range(times):
            ballast = fill_under_load(here, disk, load)
            status, text = here.admin_get("/readyz", LIMIT_S)
            assert (status, "disk" in text) == (503, True)
            storage = here.stats()["storage"]
            assert (storage["accepting"], storage["reason"]) == (False, "DISK_FULL")
            if number % 2:
                assert NOT_NOTED not in server.output()
                server = restart_on_the_full_disk(here, server)
            drain_the_full_disk(here, disk)
            ballast.unlink()
            eventually(lambda: track(here).code is grpc.StatusCode.OK, "records are accepted again", PROMPTLY_S)
            assert here.admin_get("/readyz", LIMIT_S)[0] == 200
        load.end()
        here.sink()
        verdict = load.settled()
        assert "disk" in server.output()
        assert NOT_NOTED not in server.output()
    control = lost_by_early_answers(tmp_path / "control", kind)
    matrix(
        fault=f"disk full, {kind}",
        rounds=times,
        **verdict.counts(),
        control=f"answers before the commit: {control.losses()}",
    )
    assert verdict.acked
    assert not verdict.complaints(most_repeats=0)
    assert control.lost


def lost_by_early_answers(path: Path, kind: str) -> Verdict:
    """Fill the disk of a server that answers before the commit, give it room again, drain, and judge."""
    path.mkdir()
    with on_small_disk(path, kind, min_free_disk=0) as (here, disk):
        here.serve(entry=EARLY)
        load = Load(here)
        load.goes_on()
        ballast = disk.fill()
        load.goes_on(200_000)
        ballast.unlink()
        load.end()
        here.sink()
        return load.settled()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_a_server_without_room_in_its_files_cannot_note_what_it_delivers(tmp_path: Path, kind: str) -> None:
    """The negative control of whoever takes what is given up: a server that has the reserve alone stands still.

    Now and then it is the faster one, and gets its own room back: one of `TRIES` is enough.
    """
    with on_small_disk(tmp_path, kind, min_free_disk=MIN_FREE, retry_base="50ms", retry_max="200ms") as (here, disk):
        server = here.serve(entry=(*BROKEN, "set_no_room_aside"))
        load = Load(here)
        for _ in range(TRIES):
            ballast = fill_under_load(here, disk, load)
            with disk.kept_full():
                sink = here.sink()
                eventually(lambda: NOT_NOTED in server.output() or here.stats()["pending"] == 0, "it has come to that")
                sink.kill()
            if NOT_NOTED in server.output():
                break
            ballast.unlink()
            eventually(lambda: track(here).code is grpc.StatusCode.OK, "records are accepted again", PROMPTLY_S)
        load.end()
        assert NOT_NOTED in server.output()


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_a_long_reader_holds_delivery_up_no_longer_than_it_reads(tmp_path: Path, kind: str) -> None:
    """SQLite cannot begin its log anew until then, and that log has outgrown its room; then all goes out at once."""
    with on_small_disk(tmp_path, kind, min_free_disk=MIN_FREE, retry_base="50ms", retry_max="200ms") as (here, disk):
        server = here.serve()
        load = Load(here)
        load.goes_on()
        with disk_that_fills_while_read(here, disk, load):
            here.sink()
            # Who gets the room of the reserve, the server or the other one, is open.
            eventually(lambda: NOT_NOTED in server.output() or here.stats()["pending"] == 0, "it has come to that")
        with disk.kept_full():
            eventually(lambda: here.stats()["pending"] == 0, "everything is delivered", DRAIN_S)
        load.end()


@contextmanager
def disk_that_fills_while_read(here: Site, disk: FileSystem, load: Load) -> Iterator[None]:
    """Somebody reads, SQLite's log outgrows what it had ahead, and then the disk is kept full, while the block runs."""
    database = here.data / DATABASE_FILE
    with reading(database):
        eventually(lambda: file_sizes(database)[1] > OUTGROWN_BYTES, "the log has outgrown its room")
        fill_under_load(here, disk, load)
        with disk.kept_full():
            yield


def test_the_doctor_on_a_full_disk(tmp_path: Path) -> None:
    """It says that nothing can be written, leaves nothing behind, and looks at the log all the same."""
    with on_small_disk(tmp_path, "tmpfs", min_free_disk=0) as (here, disk):
        here.serve().stop()
        disk.fill()
        before = sorted(here.data.iterdir())
        done = here.run("doctor", "--offline", "--json", check=False)
        assert sorted(here.data.iterdir()) == before
    found = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    assert (done.returncode, done.stderr) == (1, "")
    assert found["fdatasync"]["status"] == "fail"
    assert "No space left" in found["fdatasync"]["text"]
    assert found["integrity"]["status"] == "ok"
