"""An update of the schema that is killed at each of its points: the old schema or the new one, and all the data."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import migrating
import pytest
from version_1 import make_version_1

from walbatch.errors import WalbatchError
from walbatch.wal import driver, migrate, recovery

pytestmark = pytest.mark.crash

SCRIPT = Path(migrating.__file__)
NEWEST = migrating.ALL[-1][0]


def run(directory: Path, point: str, *options: str) -> int:
    """Update the log until a point is reached, and return the exit code."""
    command = [sys.executable, str(SCRIPT), str(directory), point, *options]
    return subprocess.run(command, check=False, timeout=60).returncode


def complaints(database: Path) -> Iterator[str]:
    """Yield what a kill has spoiled. The log is opened, and left, as it is."""
    copy = database.with_name(f"{database.name}.before-v{NEWEST}")
    for path in (database, copy):
        if path == copy and not copy.exists():
            continue
        try:
            with recovery.inspecting(path) as connection:
                version = migrate.schema_version(connection)
                migrate.check_tables(connection, version)
                later = migrate._columns(connection) - _columns_of(version)
                found = connection.execute("SELECT group_concat(event_id, '') FROM events ORDER BY seq").fetchone()
        except WalbatchError as error:
            yield f"{path.name}: {error}"
            continue
        if path == copy and version != 1:
            yield f"the copy has version {version}"
        if later:
            yield f"{path.name}: version {version} with columns of a later one: {later}"
        if found != ("apbc",):
            yield f"{path.name}: records {found}"


def _columns_of(version: int) -> set[tuple[str, str, str]]:
    with closing(driver.open_scratch()) as scratch:
        for number, sql in migrating.ALL[:version]:
            assert number <= version
            scratch.executescript(sql)
        return migrate._columns(scratch)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Know the migration that the killed program knows."""
    monkeypatch.setattr(migrate, "migrations", lambda: migrating.ALL)


@pytest.mark.usefixtures("known")
def test_a_kill_at_any_point_leaves_one_schema_or_the_other(tmp_path: Path, matrix: Callable[..., None]) -> None:
    """Killed there, the log is whole; started again, the update is finished, with a copy of the first version."""
    points = migrating.points()
    for number, point in enumerate(points):
        database = make_version_1(tmp_path / str(number))
        assert run(database.parent, point) == -signal.SIGKILL, point
        assert not list(complaints(database)), point
        recovery.prepare(database)
        with closing(driver.open_writer(database)) as connection:
            migrate.migrate(connection, database)
        assert not list(complaints(database)), point
        with recovery.inspecting(database) as connection:
            assert migrate.schema_version(connection) == NEWEST, point
        names = {file.name for file in database.parent.iterdir()}
        assert names == {database.name, f"{database.name}.before-v{NEWEST}"}, point
    caught = _control(tmp_path / "control")
    matrix(fault="SIGKILL in a migration", rounds=len(points), acked=4 * len(points), lost=0, control=caught)


def _control(directory: Path) -> str:
    database = make_version_1(directory)
    assert run(database.parent, f"middle of {NEWEST}", "unsafe") == -signal.SIGKILL
    found = list(complaints(database))
    assert found, "a step that is no transaction was not caught"
    return "steps that are no transactions: a half one found"
