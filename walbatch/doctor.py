"""What `walbatch doctor` finds out: settings, programs, destinations, directory, disk, owner, and the log.

The checks of the log are in `walbatch.diagnosis`, those of the destinations in `walbatch.reach`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from google.protobuf.internal import api_implementation

from walbatch import diagnosis, ownership, reach
from walbatch.destinations import Destination, configured
from walbatch.diagnosis import Finding, Status
from walbatch.disk_speed import IMPLAUSIBLE_MS, Fdatasync, fdatasync
from walbatch.errors import ConfigurationError, WalbatchError
from walbatch.settings import Settings
from walbatch.settings import examine as examine_settings
from walbatch.sources import env_name
from walbatch.units import format_bytes
from walbatch.wal import driver
from walbatch.wal.files import DATABASE_FILE, file_sizes

Ask = Callable[[Path], tuple[int, str]]
"""Asks the server that owns a directory whether it is ready: the status of its answer, and the text."""

REMOTE = {
    0x6969: "NFS",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB",
    0x517B: "SMB",
    0x01021997: "9p",
    0x5346414F: "AFS",
    0x00C36400: "Ceph",
}
"""File systems by the number in statfs(2) whose locks or shared memory SQLite cannot trust."""

PASSING = {0x01021994: "tmpfs, which a reboot empties", 0x794C7630: "a container's own layer, which goes with it"}

SLOW_MS = 20.0
"""Of a fdatasync: every acknowledgement waits for one, and a disk that turns does it in less."""

PATIENCE_S = 5.0
"""For all samples of a slow disk."""

DAMAGED_EXIT, FAILED_EXIT = 65, 1


def examine(data_dir: Path | None, ask: Ask, now_ms: int, *, offline: bool = False) -> Iterator[Finding]:
    """Yield what every check found, one after the other.

    The log is only read. A scratch file beside it times the disk, and is removed. Unless `offline`, each destination is
    asked whether it takes the credentials, without a record.
    """
    problems, settings, destinations = _settings(data_dir)
    yield from problems
    yield _sqlite(settings)
    yield _programs()
    yield from () if offline else reach.look(destinations)
    directory = settings.data_dir
    if not directory.is_dir():
        yield Finding("directory", Status.WARN, f"{directory} is not there", "`walbatch serve` makes it")
        return
    yield from _directory(directory)
    yield file_system(directory)
    yield _space(directory, settings.min_free_disk)
    yield _speed(directory)
    serving = ownership.is_owned(directory)
    yield _owner(directory, ask, serving=serving)
    found = list(diagnosis.examine(directory, serving=serving, now_ms=now_ms))
    if ownership.is_owned(directory) is not serving:  # it was started or stopped meanwhile: look as that asks for
        found = list(diagnosis.examine(directory, serving=not serving, now_ms=now_ms))
    yield from found


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 65 if the log is damaged, 1 if anything else fails, else 0."""
    if any(finding.damaged for finding in findings):
        return DAMAGED_EXIT
    return FAILED_EXIT if any(finding.status is Status.FAIL for finding in findings) else 0


def _settings(data_dir: Path | None) -> tuple[list[Finding], Settings, dict[str, Destination]]:
    """Return what is wrong with the settings, what can be used of them, and the destinations if nothing is wrong."""
    found = examine_settings({"data_dir": data_dir}, need_destination=True)
    problems = list(found.problems)
    destinations: dict[str, Destination] = {}
    if not problems:
        try:
            destinations = configured(found.settings)
        except ConfigurationError as error:
            problems = str(error).splitlines()
    findings = [Finding("settings", Status.FAIL, line) for line in problems]
    told = Finding("settings", Status.OK, f"destinations: {', '.join(destinations)}")
    return findings or [told], found.settings, destinations


def _sqlite(settings: Settings) -> Finding:
    if not driver.is_affected(driver.SQLITE_VERSION):
        return Finding("sqlite", Status.OK, driver.SQLITE_VERSION)
    status = Status.WARN if settings.allow_affected_sqlite else Status.FAIL
    text = f"{driver.SQLITE_VERSION} can lose committed rows (WAL-reset bug, fixed in 3.51.3)"
    return Finding("sqlite", status, text, "install pysqlite3 >= 0.6.1 from its wheel")


def _programs() -> Finding:
    implementation = api_implementation.Type()
    text = (
        f"Python {platform.python_version()}, grpcio {version('grpcio')},"
        f" protobuf {version('protobuf')} ({implementation})"
    )
    if implementation == "upb":
        return Finding("programs", Status.OK, text)
    fix = "install protobuf from its wheel, unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION: this one is far slower"
    return Finding("programs", Status.WARN, text, fix)


def _directory(directory: Path) -> Iterator[Finding]:
    """Can others read it, does it belong to us, and are there links or leftovers?"""
    found = [*_ownership(directory), *_modes(directory), *_links(directory), *_leftovers(directory)]
    yield from found or [Finding("directory", Status.OK, f"{directory}, for its owner only")]


def _ownership(directory: Path) -> Iterator[Finding]:
    for path in (directory, directory / DATABASE_FILE):
        if path.exists() and path.stat().st_uid != os.geteuid():
            text = f"{path} belongs to user {path.stat().st_uid}, and this is user {os.geteuid()}"
            yield Finding("directory", Status.WARN, text, "run walbatch, and this, as the user whose directory it is")


def _modes(directory: Path) -> Iterator[Finding]:
    for path in (directory, *sorted(directory.iterdir())):
        try:
            found = path.lstat().st_mode
        except FileNotFoundError:  # a server has removed it meanwhile
            continue
        mode = stat.S_IMODE(found)
        if not stat.S_ISLNK(found) and mode & 0o077:
            wanted = "0700" if stat.S_ISDIR(found) else "0600"
            text = f"others may use {path} (mode {mode:04o})"
            yield Finding("directory", Status.WARN, text, f"chmod {wanted} {path}")


def _links(directory: Path) -> Iterator[Finding]:
    path = directory / DATABASE_FILE
    if path.is_symlink() or (path.exists() and path.stat().st_nlink > 1):
        fix = "put the file itself here, under this one name; to have it elsewhere, move the whole directory"
        yield Finding("directory", Status.FAIL, f"{path} is a link, which `walbatch serve` refuses", fix)


def _leftovers(directory: Path) -> Iterator[Finding]:
    for path in sorted(directory.glob("*.partial")):
        yield Finding("directory", Status.WARN, f"{path} is of a copy that was not finished", "remove it")
    for path in sorted(directory.glob(f"{DATABASE_FILE}.before-v*[0-9]")):
        text = f"{path} is the log before an update of its schema ({format_bytes(path.stat().st_size)})"
        yield Finding("directory", Status.WARN, text, "remove it when you will not go back; it holds records")


def file_system(directory: Path) -> Finding:
    """Say whether a directory is on a disk of this machine."""
    number = file_system_of(directory)
    if number is None:
        return Finding("file system", Status.WARN, "is not known on this system", "make sure that it is a local disk")
    if number in REMOTE:
        text = f"{directory} is on {REMOTE[number]}, on which SQLite can lose and damage data"
        return Finding("file system", Status.FAIL, text, "use a local disk")
    if number in PASSING:
        return Finding("file system", Status.WARN, f"{directory} is on {PASSING[number]}", "use a disk or a volume")
    return Finding("file system", Status.OK, f"a local one ({number:#x})")


def file_system_of(directory: Path) -> int | None:
    """Return the number of the file system's type, from statfs(2); None where that is not Linux's."""
    if sys.platform != "linux":
        return None
    answer = ctypes.create_string_buffer(512)
    if ctypes.CDLL(None).statfs(os.fsencode(directory), answer):
        return None
    return int.from_bytes(answer.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder)


def _space(directory: Path, min_free_bytes: int) -> Finding:
    disk = os.statvfs(directory)
    free = disk.f_bavail * disk.f_frsize
    database, wal = file_sizes(directory / DATABASE_FILE)
    text = f"{format_bytes(free)} free; the log has {format_bytes(database + wal)}"
    if free < min_free_bytes:
        text += f"; below {format_bytes(min_free_bytes)} ({env_name('min_free_disk')}) new records are refused"
        return Finding("disk", Status.FAIL, text, "make room; it recovers by itself")
    if free < 2 * min_free_bytes or free < database:
        return Finding("disk", Status.WARN, text, "make room, for an update of the schema and for what comes in")
    return Finding("disk", Status.OK, text)


def _speed(directory: Path) -> Finding:
    """How long does the disk take to make something durable, and does it look like a disk?"""
    try:
        disk = Fdatasync.of(fdatasync(directory, 0.0, patience_s=PATIENCE_S))
    except OSError as error:
        text = f"nothing can be written to {directory}: {error.strerror}"
        if error.errno in {errno.EACCES, errno.EPERM}:
            return Finding("fdatasync", Status.WARN, text, "run this as the user whose directory it is")
        return Finding(
            "fdatasync", Status.FAIL, text, "make room, or mount the disk writable; look into the system's log"
        )
    text = f"4 kB are durable after {_time(disk.p50_ms)} (p99 {_time(disk.p99_ms)})"
    if disk.p50_ms > SLOW_MS:
        return Finding("fdatasync", Status.WARN, text, "every acknowledgement waits for one: use a faster disk")
    if disk.p50_ms < IMPLAUSIBLE_MS:
        fix = "this is no disk, or one that does not keep its word: nothing here survives a power cut; use another"
        return Finding("fdatasync", Status.WARN, text, fix)
    return Finding("fdatasync", Status.OK, text)


def _time(ms: float) -> str:
    return f"{ms:.1f} ms" if ms >= 1 else f"{ms * 1000:.0f} us"


def _owner(directory: Path, ask: Ask, *, serving: bool) -> Finding:
    if not serving:
        return Finding("server", Status.OK, "none has this directory; what is pending goes out after `walbatch serve`")
    pid = ownership.owner(directory).get("pid", "unknown")
    try:
        status, text = ask(directory)
    except WalbatchError as error:
        return Finding("server", Status.FAIL, f"pid {pid}: {error}", "look into its log; is it still starting?")
    if status != 200:  # noqa: PLR2004
        return Finding("server", Status.FAIL, f"pid {pid} does not accept records: {text.strip()}", "look into its log")
    return Finding("server", Status.OK, f"pid {pid} accepts records")
