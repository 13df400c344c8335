"""Look into a log from outside of the process that serves it, or while nobody does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from walbatch.errors import ConfigurationError, CorruptLog, StorageFailed
from walbatch.wal import driver, migrate
from walbatch.wal.files import DATABASE_FILE


@contextmanager
def reading(directory: Path) -> Iterator[driver.Connection]:
    """Yield a read-only connection to a directory's log. It changes nothing and keeps nobody from writing.

    Raises:
        ConfigurationError: there is no log, or one that only another version of walbatch can read.
        CorruptLog: it is damaged.
        StorageFailed: it cannot be read.
    """
    database = directory / DATABASE_FILE
    none = f"there is no log in {directory} (WALBATCH_DATA_DIR, --data-dir); `walbatch serve` makes one"
    if not database.exists():
        raise ConfigurationError(none)
    try:
        connection = driver.open_reader(database)
        try:
            if migrate.schema_version(connection) == 0:
                raise ConfigurationError(none)
            yield connection
        finally:
            connection.close()
    except driver.Error as error:
        if driver.is_damage(error):
            raise CorruptLog(f"{database} is damaged ({error}); see `walbatch doctor`") from error
        raise StorageFailed(f"{database} cannot be read: {error}") from error
