"""Bring a database to this program's schema: numbered files, forward only, one transaction each."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from walbatch.errors import CorruptLog, SchemaTooNew
from walbatch.wal.driver import Connection

APPLICATION_ID = 0x57414C42
"""`WALB`: written into the database's header, so that no stranger's file is ever migrated."""


def migrations() -> list[tuple[int, str]]:
    """Return each schema version and its SQL, in order."""
    folder = files("walbatch.migrations")
    found = sorted((f.name, f.read_text()) for f in folder.iterdir() if f.name.endswith(".sql"))
    return [(int(name.split("_", 1)[0]), sql) for name, sql in found]


def schema_version(connection: Connection) -> int:
    """Return the database's schema version; 0 is an empty one.

    Raises:
        CorruptLog: it is a database, but not one of ours.
        SchemaTooNew: a newer walbatch wrote it.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    identity = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if identity != APPLICATION_ID and (identity or version or tables):
        raise CorruptLog("the database in the data directory is not walbatch's; it was left as it is")
    newest = migrations()[-1][0]
    if version > newest:
        raise SchemaTooNew(
            f"the database has schema version {version}, this walbatch knows {newest}: it was written by a newer one."
            " Nothing was changed; run that version again, or a newer one"
        )
    return version


def pending(connection: Connection) -> list[tuple[int, str]]:
    """Return the migrations that the database still needs."""
    version = schema_version(connection)
    return [(number, sql) for number, sql in migrations() if number > version]


def migrate(connection: Connection, path: Path) -> list[int]:
    """Apply what is pending and return the new versions. A copy is made first, unless the database is empty.

    Each step is one transaction with its version number in it: a crash leaves either the old schema or the new one.
    """
    steps = pending(connection)
    if steps and schema_version(connection):
        _copy_before(connection, path, steps[-1][0])
    for number, sql in steps:
        connection.executescript(
            f"BEGIN EXCLUSIVE; {sql} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}; COMMIT;"
        )
    return [number for number, _ in steps]


def _copy_before(connection: Connection, path: Path, version: int) -> None:
    copy = path.with_name(f"{path.name}.before-v{version}")
    copy.unlink(missing_ok=True)
    os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # as private as the original
    connection.execute("VACUUM INTO ?", (str(copy),))
    for target in (copy, copy.parent):
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
