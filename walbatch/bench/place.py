"""Where `walbatch bench` measures: a directory of its own on the disk of the log, gone at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from walbatch.errors import ConfigurationError, MeasurementFailed
from walbatch.units import format_bytes
from walbatch.wal.reserve import free_bytes

PREFIX = "walbatch-bench-"
BASE_BYTES = 512 * 1024**2
"""Below 256 MiB of free space the server refuses new events; SQLite's logs take up to 100 MiB; the rest is reserve."""

BYTES_PER_S = 160 * 1024**2
"""Of each second of a load: SQLite alone writes the most, half a million rows."""


def beside(data_dir: Path) -> Path:
    """Return a directory on the same disk as a log: the one around it, so that nothing appears among its files.

    Where that is another disk, as with a volume of a container, or may not be written, it is the log's own.
    """
    inside = data_dir.resolve()
    while not inside.is_dir():
        inside = inside.parent
    if inside != data_dir.resolve():  # there is no log yet
        return inside
    around = inside.parent
    is_same_disk = around.stat().st_dev == inside.stat().st_dev
    return around if is_same_disk and os.access(around, os.W_OK | os.X_OK) else inside


@contextmanager
def scratch(directory: Path, seconds: float) -> Iterator[Path]:
    """Yield a new directory for loads of so many seconds; whatever happens, it is removed.

    Raises:
        ConfigurationError: nothing can be written there; the text names --dir.
        MeasurementFailed: the disk has too little room; the text says how much is needed.
    """
    if not directory.is_dir():
        raise ConfigurationError(f"--dir {directory}: there is no such directory; name one on the disk to measure")
    try:
        made = TemporaryDirectory(prefix=PREFIX, dir=directory.resolve())
    except OSError as error:
        raise ConfigurationError(
            f"--dir {directory}: {error.strerror}; name a directory that you may write to, or be the log's user"
        ) from error
    try:
        _check_room(directory, BASE_BYTES + round(BYTES_PER_S * seconds))
        yield Path(made.name)
    finally:
        _remove(made)


def _check_room(directory: Path, need: int) -> None:
    free = free_bytes(directory)
    if free < need:
        raise MeasurementFailed(
            f"--dir {directory}: {format_bytes(free)} are free, and this needs {format_bytes(need)} for a while;"
            " make room, choose another disk, or fewer --seconds"
        )


def _remove(made: TemporaryDirectory[str]) -> None:
    try:
        made.cleanup()
    except BaseException:  # a Ctrl-C at this very moment; there is no second one
        made.cleanup()
        raise
