"""The file system turns read-only under the server, as the kernel makes it after an error of the device.

On ext4 an fdatasync that is under way at that moment can return without an error for what never got to the journal:
seen in 20 of 150 cases with a loop of write and fdatasync alone (Linux 6.18). The byte that walbatch writes after each
commit fails then. To be the same in every run, here the server stands still while it happens.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from file_systems import FileSystem, loop_mounted
from load import Load
from probe import UNKNOWN, track
from programs import Program, Site, site
from total_queue import Verdict
from with_control import EARLY, Entry, with_control

SETTINGS = {"min_free_disk": 0, "retry_base": "50ms", "retry_max": "200ms"}
NOTICED_S = 20.0
"""Without traffic a commit is tried now and then, and the third that fails is the end."""


@contextmanager
def on_ext4(path: Path) -> Iterator[tuple[Site, FileSystem]]:
    """A site with its data on a disk that can fail."""
    with (
        loop_mounted(path / "disk", "ext4") as disk,
        site(path, data_dir=disk.path / "data", **SETTINGS) as here,
    ):
        yield here, disk


def fail_between_two_calls(server: Program, disk: FileSystem) -> None:
    """Turn the file system read-only while no call of the server is under way."""
    server.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, server.process.pid, os.WSTOPPED | os.WNOWAIT)
    disk.fail()
    server.signal(signal.SIGCONT)


def fail_again_and_again(path: Path, times: int, entry: Entry) -> Verdict:
    """Let the file system fail under load `times` times, see the server end each time, then drain, and judge."""
    with on_ext4(path) as (here, disk):
        server = here.serve(entry=entry)
        load = Load(here)
        for _ in range(times):
            load.goes_on()
            fail_between_two_calls(server, disk)
            if entry != EARLY:
                assert track(here).code in UNKNOWN, "nothing is acknowledged any more"
            assert server.wait(NOTICED_S) == 74, server.output()
            disk.unmount()
            disk.mount()
            server = here.serve(entry=entry)
        load.goes_on()
        load.end()
        here.sink()
        return load.settled()


@pytest.mark.timeout(180)
def test_a_disk_that_turns_read_only_ends_the_server_and_loses_nothing(
    tmp_path: Path, rounds: Callable[[int, int], int], matrix: Callable[..., None]
) -> None:
    """Nothing is acknowledged from then on, the exit is 74, and what was acknowledged is there after the next mount."""
    times = rounds(2, 6)
    verdict, control = with_control(tmp_path, times, EARLY, fail_again_and_again)
    matrix(
        fault="file system turns read-only",
        rounds=times,
        **verdict.counts(),
        control=f"answers before the commit: {control.losses()}",
    )
    assert verdict.acked
    assert not verdict.complaints(most_repeats=0)
    assert control.lost


def test_a_read_only_disk_is_noticed_without_traffic(tmp_path: Path) -> None:
    """A server that has nothing to do does not call itself ready on a disk that takes nothing; it exits with 74."""
    with on_ext4(tmp_path) as (here, disk):
        server = here.serve()
        disk.fail()
        assert server.wait(NOTICED_S) == 74, server.output()
        # By three commits that failed, or by the look at the disk after one that had nothing to write.
        assert any(words in server.output() for words in ("commits in a row failed", "takes no more"))


def test_a_start_on_a_read_only_disk_says_so(tmp_path: Path) -> None:
    """The exit is 78, and the text names the setting and the reason."""
    with on_ext4(tmp_path) as (here, disk):
        here.serve().stop()
        subprocess.run(["mount", "-o", "remount,ro", disk.path], check=True)
        done = here.run("serve", check=False)
        assert done.returncode == 78, done.stderr
        assert "WALBATCH_DATA_DIR" in done.stderr
        assert "Read-only file system" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_doctor_says_so_as_well(tmp_path: Path) -> None:
    """It fails in words, with the reason, and looks at the log all the same."""
    with on_ext4(tmp_path) as (here, disk):
        here.serve().stop()
        subprocess.run(["mount", "-o", "remount,ro", disk.path], check=True)
        done = here.run("doctor", "--offline", "--json", check=False)
    found = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    assert (done.returncode, done.stderr) == (1, "")
    assert found["fdatasync"]["status"] == "fail"
    assert "Read-only file system" in found["fdatasync"]["text"]
    assert found["integrity"]["status"] == "ok"
