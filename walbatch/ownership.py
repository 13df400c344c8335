"""Who may write in a data directory: one process, by a lock that the kernel frees when that process ends.

The lock is on a file of its own. On the database itself it would be lost as soon as anything in the process closed
any descriptor of the database (https://sqlite.org/howtocorrupt.html section 2.2).

It is outside of the package `walbatch.wal`, since every command asks it, and importing that package takes 20 ms.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from walbatch.errors import ConfigurationError, LogLocked, StorageFailed

LOCK_FILE = "walbatch.lock"

TRIES, TRY_AGAIN_S = 10, 0.02


class Ownership:
    """The exclusive right to one data directory, as a context. Makes the directory, for this user only.

    Raises:
        LogLocked: another process has it; the text names that process.
        ConfigurationError: it cannot be made, or not be written in.
        StorageFailed: the disk reports an I/O error.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = -1

    def __enter__(self) -> Self:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._directory / LOCK_FILE, flags, 0o600)
        except OSError as error:
            if error.errno == errno.EIO:
                raise StorageFailed(f"{self._directory} cannot be read: the disk reports an I/O error") from error
            raise ConfigurationError(
                f"WALBATCH_DATA_DIR: {self._directory} cannot be used ({error.strerror});"
                " it must be a directory that this user may write in"
            ) from error
        if not self._take():
            os.close(self._descriptor)
            pid = owner(self._directory).get("pid", "unknown")
            raise LogLocked(
                f"{self._directory} is in use by the process with pid {pid};"
                " stop that one first, or use another data directory"
            )
        self.announce()
        return self

    def _take(self) -> bool:
        """Try for a moment: `is_owned` of another process holds the lock while it looks."""
        for _ in range(TRIES):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(TRY_AGAIN_S)
            else:
                return True
        return False

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def check_disk(self) -> None:
        """Write a byte that is there already; an OSError says that the disk takes no more.

        When ext4 gives up (`errors=remount-ro`, an aborted journal) in the middle of an fdatasync, that call can still
        return success for what never got to the disk: 20 of 150 times on Linux 6.18. A write right after it fails.
        """
        try:
            os.pwrite(self._descriptor, b"{", 0)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:  # some need room even to write what is there
                raise

    def announce(self, **facts: str) -> None:
        """Write who owns the directory, and what others need to reach the owner, into the lock file."""
        text = json.dumps({"pid": os.getpid(), **facts}).encode()
        os.pwrite(self._descriptor, text, 0)  # over what is there: a full disk has no room for a block given up before
        os.ftruncate(self._descriptor, len(text))


def owner(directory: Path) -> dict[str, Any]:
    """Return what the lock file says; empty if there is none, or none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        facts: dict[str, Any] = json.loads((directory / LOCK_FILE).read_text())
        return facts
    return {}


def is_owned(directory: Path) -> bool:
    """Say whether some process has the directory at this moment."""
    try:
        descriptor = os.open(directory / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
