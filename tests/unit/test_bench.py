"""`walbatch bench` without processes: which figures are refused, where it measures, and what it says of a disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest

from walbatch.bench import disk, place
from walbatch.bench.loads import Checked, Load
from walbatch.bench.measure import Drain, Figures
from walbatch.bench.place import beside, scratch
from walbatch.bench.processes import Walbatch
from walbatch.bench.report import WIDTH, text
from walbatch.disk_speed import Fdatasync, fdatasync
from walbatch.errors import ConfigurationError, MeasurementFailed

FSYNCED = "DURABILITY_FSYNCED"
FOUND = Figures(
    disk=Fdatasync(1.08, 12.3, 900),
    warnings=(),
    acknowledged_means="fsynced",
    one=Load(events=900, events_per_s=300.4, p50_ms=2.7, p99_ms=4.1, durability=FSYNCED),
    many=Load(events=6000, events_per_s=2100.0, p50_ms=28.2, p99_ms=41.4, durability=FSYNCED),
    batch=Load(events=40_000, events_per_s=14_000.0, durability=FSYNCED),
    stream=Load(events=60_000, events_per_s=20_000.0, durability=FSYNCED),
    sqlite_rows_per_s=100_000.0,
    drain=Drain(150_000, 120_000.0, 457.2),
)


class Server:
    """Tells what it accepted so far: one of the numbers at each question."""

    def __init__(self, *accepted: int) -> None:
        self._accepted = iter(accepted)

    def stats(self) -> dict[str, int]:
        """Return the next number."""
        return {"accepted": next(self._accepted)}


def checked(*accepted: int) -> Checked:
    """Return loads on such a server."""
    return Checked(cast("Walbatch", Server(*accepted)), 1.0)


def test_a_server_that_accepted_less_than_it_answered_has_no_figures() -> None:
    """One event that was answered and is not counted makes the command fail with 1, and say so."""
    with pytest.raises(MeasurementFailed, match="10 events were answered, and the server accepted 9") as failed:
        checked(5, 14).checked(lambda: Load(events=10))
    assert failed.value.exit_code == 1


@pytest.mark.parametrize("after", [15, 17])
def test_more_than_was_answered_may_be_accepted(after: int) -> None:
    """A call whose stream was reset may have been stored."""
    load = Load(events=10)
    assert checked(5, after).checked(lambda: load) is load


def test_it_measures_beside_the_log(tmp_path: Path) -> None:
    """Nothing appears among the files of the log where its parent is on the same disk."""
    (tmp_path / "data").mkdir()
    assert beside(tmp_path / "data") == tmp_path


def test_without_a_log_it_measures_where_it_would_be(tmp_path: Path) -> None:
    """The data directory is not made."""
    assert beside(tmp_path / "not" / "there") == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_log_with_a_disk_of_its_own_is_measured_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume's parent is another disk, and a parent that may not be written is no place: the directory itself is."""
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert beside(tmp_path / "data") == tmp_path / "data"
    monkeypatch.undo()
    if not Path("/dev/shm").is_mount():  # noqa: S108  a file system of its own, where there is one
        pytest.skip("no other file system at /dev/shm")
    assert beside(Path("/dev/shm")) == Path("/dev/shm")  # noqa: S108


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_the_directory_is_removed_whatever_happens(tmp_path: Path, error: type[BaseException] | None) -> None:
    """Also what is in it."""

    def use() -> Iterator[Path]:
        with scratch(tmp_path, 1.0) as made:
            (made / "server").mkdir()
            yield made
            if error:
                raise error

    if error:
        with pytest.raises(error):
            list(use())
    else:
        (made,) = use()
        assert made.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_removal_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C just while the directory is removed leaves nothing either."""
    real = TemporaryDirectory.cleanup
    interrupts = iter([KeyboardInterrupt])

    def cleanup(made: Any) -> None:
        for interrupt in interrupts:
            raise interrupt
        real(made)

    monkeypatch.setattr(TemporaryDirectory, "cleanup", cleanup)
    with pytest.raises(KeyboardInterrupt), scratch(tmp_path, 1.0):
        pass
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_said_before_anything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is free, what is needed, and what can be done."""
    monkeypatch.setattr(place, "free_bytes", lambda _: 300 * 1024**2)
    with (
        pytest.raises(MeasurementFailed, match=r"--dir .*: 300MiB are free, and this needs 992MiB .*--seconds"),
        scratch(tmp_path, 3.0),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """The option and the fix are named."""
    with (
        pytest.raises(ConfigurationError, match=r"--dir .*: there is no such directory; name one"),
        scratch(tmp_path / "absent", 1.0),
    ):
        pass
    assert not (tmp_path / "absent").exists()


def test_a_disk_that_is_too_fast_is_called_none(tmp_path: Path) -> None:
    """Nobody takes the figures of memory for those of a disk."""
    found = list(disk.warnings(tmp_path, Fdatasync(0.002, 0.01, 100)))
    assert any(
        "fdatasync takes 2 us" in warning and "nothing here survives a power cut" in warning for warning in found
    )
    assert not any("fdatasync" in warning for warning in disk.warnings(tmp_path, Fdatasync(0.1, 0.4, 100)))


def test_a_file_system_in_memory_is_named() -> None:
    """By the check of `walbatch doctor`."""
    memory = Path("/dev/shm")  # noqa: S108  what is measured is the file system itself
    if not memory.is_mount():
        pytest.skip("no file system in memory at /dev/shm")
    warnings = list(disk.warnings(memory, Fdatasync.of(fdatasync(memory, 0.0))))
    assert "tmpfs" in warnings[0]
    assert "survives a power cut" in warnings[-1]


def test_the_text_begins_with_what_people_ask_and_how_durable_it_is() -> None:
    """The rate, what an OK meant, and the disk's own time stand in one sentence."""
    said = " ".join(text(FOUND, "here", 3.0).split())
    assert said.startswith(
        "64 callers: 2,100 events/s, each acknowledged once fsynced (p99 41 ms); this disk's fdatasync takes 1.08 ms."
    )
    assert "every answer said DURABILITY_FSYNCED" in said
    assert "acknowledged means fsynced" in said


def test_answers_that_were_less_durable_are_not_called_fsynced() -> None:
    """One load whose answers said something else is enough."""
    found = replace(FOUND, stream=replace(FOUND.stream, durability="DURABILITY_BUFFERED"))
    said = " ".join(text(found, "here", 3.0).split())
    assert "each acknowledged as DURABILITY_BUFFERED, DURABILITY_FSYNCED" in said
    assert "once fsynced" not in said


def test_a_warning_stands_above_the_figures() -> None:
    """It is read before they are."""
    lines = text(replace(FOUND, warnings=("it is no disk",)), "here", 3.0).splitlines()
    assert lines.index("WARNING: it is no disk.") < next(n for n, line in enumerate(lines) if "events/s  " in line)


def test_the_text_fits_80_columns() -> None:
    """With large numbers as well."""
    huge = Load(events=10**9, events_per_s=100_000.0, p50_ms=9_876.0, p99_ms=9_999.0, durability=FSYNCED)
    found = replace(FOUND, one=huge, many=huge, batch=huge, stream=huge, sqlite_rows_per_s=1e6)
    assert max(map(len, text(found, "here", 3.0).splitlines())) <= WIDTH
