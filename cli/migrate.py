"""`walbatch migrate`: bring the database to this version's schema without serving."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import DataDir, local_settings


def migrate(
    data_dir: DataDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is pending.")] = False,
) -> None:
    """Update the database's schema; `walbatch serve` does the same when it starts. A copy is kept beside it.

    Examples:
        walbatch migrate --dry-run
        walbatch migrate
    """
    from walbatch.ownership import Ownership
    from walbatch.wal import driver, recovery
    from walbatch.wal import migrate as schema
    from walbatch.wal.files import DATABASE_FILE

    settings = local_settings(data_dir)
    driver.check_version(allow_affected=settings.allow_affected_sqlite)
    database = settings.data_dir / DATABASE_FILE
    with Ownership(settings.data_dir):
        recovery.prepare(database)
        connection = driver.open_writer(database)
        try:
            before = schema.schema_version(connection)
            steps = (
                [number for number, _ in schema.pending(connection)]
                if dry_run
                else schema.migrate(connection, database)
            )
        except driver.Error as error:
            raise recovery.broken(database, error) from error
        finally:
            connection.close()
    if not steps:
        typer.echo(f"schema version {before}: nothing to do")
    else:
        verb = "would be applied" if dry_run else "applied"
        typer.echo(f"schema version {before}: {', '.join(map(str, steps))} {verb}")
