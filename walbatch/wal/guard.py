"""Notice that the files under an open log are not its files any more: deleted, moved away, or replaced.

The open descriptors go on working, so SQLite would commit into files that nobody finds at the next start. Everything
can still be read through them, so it is saved before the process ends.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

from walbatch.errors import ConfigurationError, StorageFailed
from walbatch.ownership import Ownership
from walbatch.wal.copying import copy_into
from walbatch.wal.driver import Connection, Error
from walbatch.wal.files import journal_file, rescued_files, shm_file, wal_file


class Guard:
    """Knows the files that a connection has open. Make it after the first transaction: only then is there a -wal."""

    def __init__(self, database: Path, ownership: Ownership) -> None:
        self._database = database
        self._ownership = ownership
        self._known = {path: _identity(path) for path in (database, wal_file(database))}

    @property
    def replaced(self) -> Path | None:
        """The file that is gone, or another one; None if both are what they were."""
        return next((path for path, identity in self._known.items() if _identity(path) != identity), None)

    def check(self, connection: Connection) -> None:
        """Return if what was committed is on a disk that works, in files that are where they were; some microseconds.

        Raises:
            OSError: the disk takes no more, so that an fsync just before may not be true.
            StorageFailed: they are not where they were. What the connection still sees, all that was acknowledged, is
                saved if that is possible, and the text says where. Nothing may be acknowledged any more.
        """
        self._ownership.check_disk()
        if path := self.replaced:
            saved = self._save(connection)
            raise StorageFailed(f"{path} was deleted, moved or replaced under the running server. {saved}")

    def _save(self, connection: Connection) -> str:
        database = self._database.name
        names = (self._database.with_name(f"{database}.rescued-{number}") for number in count(1))
        copy = next(name for name in names if not name.exists())
        try:
            copy_into(connection, copy)
        except (Error, OSError) as error:
            return f"What it held could not be saved ({error}); if the files were moved, put them back, all of them"
        return (
            f"Everything that was acknowledged is in {copy}. With no {database} in its place the next start goes on"
            f" with that; else move {database}, {database}-wal and {database}-shm away first"
        )


def adopt(database: Path) -> None:
    """Go on with what was saved when the files of an earlier server were taken away. Called before the log is opened.

    Raises:
        ConfigurationError: there is a database as well, and only a person can know which one is meant.
    """
    copies = rescued_files(database)
    if not copies:
        return
    if database.exists():
        raise ConfigurationError(
            f"{copies[-1]} has what was acknowledged before the files of an earlier server were taken away. To go on"
            f" with that, move {database.name}, {database.name}-wal and {database.name}-shm away; to go on without it,"
            " move the copy away"
        )
    for rest in (
        wal_file(database),
        shm_file(database),
        journal_file(database),
    ):  # of the file that is gone; the copy is complete
        rest.unlink(missing_ok=True)
    copies[-1].rename(database)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat(follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino
