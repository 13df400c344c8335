"""Bring a database to this program's schema: numbered files, forward only, one transaction each.

What a kill leaves, by where it happens
    while the copy is made      the old schema, and a part of a copy that the next migration removes
    after it has its name       the old schema, and the whole copy; the next migration makes it anew
    within a step               the schema before that step: its transaction is undone when the log is opened
    after a step                the schema of that step, and the copy; the next start goes on with the step after it
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from walbatch.errors import CorruptLog, SchemaTooNew, StorageFailed
from walbatch.units import format_bytes
from walbatch.wal import driver
from walbatch.wal.copying import copy_into, partial_of
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
    if tables and not version:
        raise CorruptLog("the database has tables and no schema version, so it is damaged; it was left as it is")
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


def check_tables(connection: Connection, version: int) -> None:
    """Compare the tables and columns with those of a schema version; what people added does not matter.

    Raises:
        CorruptLog: one is missing, or is another.
    """
    scratch = driver.open_scratch()
    try:
        for number, sql in migrations():
            if number <= version:
                scratch.executescript(sql)
        wanted = _columns(scratch)
    finally:
        scratch.close()
    different = wanted - _columns(connection)
    if different:
        table, column, kind = min(different)
        raise CorruptLog(f"the database is damaged: its table {table} has no column {column} {kind}")


def _columns(connection: Connection) -> set[tuple[str, str, str]]:
    rows = connection.execute(
        "SELECT t.name, c.name, c.type FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table'"
    )
    return set(rows.fetchall())


def migrate(connection: Connection, path: Path) -> list[int]:
    """Apply what is pending and return the new versions. A copy is made first, unless the database is empty.

    Each step is one transaction with its version number in it: a crash leaves either the old schema or the new one.
    `check_room` was asked before the database was opened to write.
    """
    steps = pending(connection)
    if steps and schema_version(connection):
        copy_before(connection, path)
    for number, sql in steps:
        connection.executescript(
            f"BEGIN EXCLUSIVE; {sql} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}; COMMIT;"
        )
    return [number for number, _ in steps]


def version_in(copy: Path) -> int:
    """Return the schema version of a file that nobody has open."""
    with copy.open("rb") as file:
        return int.from_bytes(file.read(64)[60:], "big")  # https://sqlite.org/fileformat2.html section 1.3


def check_room(connection: Connection, path: Path) -> None:
    """Return if there is nothing to migrate, or room for the copy that is made before it.

    Raises:
        StorageFailed: there is too little. Make room, and start again.
    """
    if schema_version(connection) == 0 or not pending(connection):
        return
    pages, page_size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    copy = _copy_before(path)
    if _is_kept(copy, connection):
        return
    disk = os.statvfs(path.parent)
    left = (file.stat().st_size for file in (copy, partial_of(copy)) if file.exists())  # which makes room for the new
    free = disk.f_bavail * disk.f_frsize + sum(left)
    if free < pages * page_size:
        raise StorageFailed(
            f"the database's schema must be updated, and {format_bytes(free)} are free on the disk of {path.parent}:"
            f" too little for a copy of the {format_bytes(pages * page_size)} as they are now."
            " Nothing was changed; make room, and start again"
        )


def copy_before(connection: Connection, path: Path) -> None:
    """Keep the database as it is before it is migrated: complete, or not under that name.

    If a migration was killed between two of its steps, the copy from before the first one stays; one that was killed
    before that has left a copy that may be out of date.
    """
    copy = _copy_before(path)
    if not _is_kept(copy, connection):
        copy.unlink(missing_ok=True)  # first, as there may be room for one only
        copy_into(connection, copy)


def _copy_before(path: Path) -> Path:
    return path.with_name(f"{path.name}.before-v{migrations()[-1][0]}")


def _is_kept(copy: Path, connection: Connection) -> bool:
    """Say whether there is a copy of an earlier schema than the database has by now."""
    return copy.exists() and version_in(copy) < schema_version(connection)
