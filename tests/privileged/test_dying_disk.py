"""The disk stands still in the middle of an fsync, and then the file system gives up: the server is not stopped for it.

On ext4 the fdatasync that is under way when the journal is aborted can return without an error for what is nowhere. To
meet that moment the file system is on an image in another one, which is frozen: whatever is asked of the disk waits.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from file_systems import FileSystem, loop_mounted
from load import Load
from programs import WALBATCH, Program, Site, eventually, site
from settled import read_stored
from total_queue import Verdict

BELIEVING = (sys.executable, str(Path(__file__).parent.parent / "support" / "broken_server.py"), "believe_every_fsync")
SETTINGS = {"min_free_disk": 0, "retry_base": "50ms", "retry_max": "200ms"}
ENDS_WITHIN_S = 20.0
MOST_TRIES = 30
"""Of the control, which loses in about every third one: 14 of 38, Linux 6.18."""


@contextmanager
def disk_on_a_disk(path: Path) -> Iterator[tuple[FileSystem, FileSystem]]:
    """A file system, and the one that its image is in."""
    with loop_mounted(path, "ext4", 256) as below, loop_mounted(path / "disk", "ext4") as disk:
        yield disk, below


def waits_for_the_disk(server: Program) -> bool:
    """Say whether a thread of the server is in a call that the disk does not answer."""
    threads = Path(f"/proc/{server.process.pid}/task").glob("*/stat")
    return any(thread.read_text().rpartition(")")[2].split()[0] == "D" for thread in threads)


def fail_in_an_fsync(server: Program, disk: FileSystem, below: FileSystem) -> None:
    """Turn the file system read-only while a call of the server is under way."""
    with below.frozen():
        eventually(lambda: waits_for_the_disk(server), "a call is under way")
        failing = subprocess.Popen(["mount", "-o", "remount,abort", disk.path])
        eventually(lambda: "abort" in disk.options(), "the journal is aborted")
    assert failing.wait(ENDS_WITHIN_S) == 0


@contextmanager
def loaded(path: Path, entry: Sequence[str]) -> Iterator[tuple[Site, Load, Callable[[], None]]]:
    """A server under load, and a way to let its disk fail, see it end, mount the disk again, and go on with another."""
    path.mkdir()
    with disk_on_a_disk(path / "below") as (disk, below), site(path, data_dir=disk.path / "data", **SETTINGS) as here:
        server = here.serve(entry=entry)
        load = Load(here)

        def fail() -> None:
            nonlocal server
            fail_in_an_fsync(server, disk, below)
            assert server.wait(ENDS_WITHIN_S) == 74, server.output()
            disk.unmount()
            disk.mount()
            server = here.serve(entry=entry)
            load.goes_on()

        load.goes_on()
        yield here, load, fail


def verdict_of(here: Site, load: Load) -> Verdict:
    """End the load, and deliver, for the first time."""
    load.end()
    here.sink()
    return load.settled()


def acked_by_now(load: Load) -> set[str]:
    """Return what the clients, which are at work, have written down as acknowledged."""
    lines = [line for log in load.logs for line in log.read_text().rpartition("\n")[0].splitlines()]
    return {line.removeprefix("ack ") for line in lines if line.startswith("ack ")}


def stored_now(here: Site) -> set[str]:
    """Return what the log has; nothing is delivered yet, so that is all there ever was."""
    return {record["id"] for record in read_stored(here.data)}


def believed(path: Path) -> tuple[int, Verdict]:
    """Let the disk of a server that believes every fsync fail until something is lost; return how often, and what."""
    with loaded(path, BELIEVING) as (here, load, fail):
        tries = 0
        while tries < MOST_TRIES and not acked_by_now(load) - stored_now(here):
            fail()
            tries += 1
        return tries, verdict_of(here, load)


@pytest.mark.timeout(300)
def test_a_disk_that_dies_in_an_fsync_loses_nothing(
    tmp_path: Path, rounds: Callable[[int, int], int], matrix: Callable[..., None]
) -> None:
    """What an fsync that was under way says is not believed alone: whatever was acknowledged is there after a mount."""
    times = rounds(3, 20)
    with loaded(tmp_path / "walbatch", (WALBATCH, "serve")) as (here, load, fail):
        for _ in range(times):
            fail()
        verdict = verdict_of(here, load)
    tries, control = believed(tmp_path / "control")
    matrix(
        fault="file system turns read-only in an fsync",
        rounds=times,
        acked=len(verdict.acked),
        lost=len(verdict.lost),
        duplicated=len(verdict.duplicated),
        control=f"every fsync is believed: {len(control.lost):,} of {len(control.acked):,} lost, at try {tries}",
    )
    assert verdict.acked
    assert not verdict.complaints(most_repeats=0)
    assert control.lost
