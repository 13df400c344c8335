"""From one schema to the next: a copy first, then each step as one transaction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from log_records import EVENTS, NOW, ids, mode, modes_in, open_log

from walbatch.errors import StorageFailed
from walbatch.testing.clock import FakeClock
from walbatch.wal import driver, migrate

SECOND = (2, "ALTER TABLE events ADD COLUMN extra TEXT;")


@pytest.fixture
def upgrade(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], None]:
    """A way to add a migration to those that the program knows."""
    known = migrate.migrations()

    def add(number: int, sql: str) -> None:
        monkeypatch.setattr(migrate, "migrations", lambda: [*known, (number, sql)])

    return add


@pytest.mark.usefixtures("open_umask")
async def test_a_copy_is_made_before_an_upgrade(
    stopped: Path, clock: FakeClock, upgrade: Callable[[int, str], None]
) -> None:
    """The old database stays beside the new one, whole, for its owner only; the log goes on with the new one."""
    upgrade(*SECOND)
    async with open_log(stopped.parent, clock) as log:
        assert list(await log._writer.execute_fetchall("PRAGMA user_version")) == [(2,)]
        assert ids(await log.fetch(EVENTS, NOW)) == "b"
    copy = stopped.with_name("events.db.before-v2")
    connection = driver.open_reader(copy)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT group_concat(event_id, '') FROM events").fetchone() == ("ab",)
    connection.close()
    assert mode(copy) == 0o600


async def test_a_new_database_needs_no_copy(directory: Path, clock: FakeClock) -> None:
    """Before the first migration there is nothing to keep; opening again migrates nothing."""
    for _ in range(2):
        async with open_log(directory, clock):
            pass
    assert modes_in(directory).keys() == {"events.db", "walbatch.lock"}


async def test_a_migration_that_fails_leaves_the_old_schema(
    stopped: Path, clock: FakeClock, upgrade: Callable[[int, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step is one transaction with its number: afterwards the former program goes on as before."""
    upgrade(2, "CREATE TABLE half (done); SELECT no_such_function();")
    with pytest.raises(StorageFailed, match="no_such_function"):
        await open_log(stopped.parent, clock).__aenter__()
    monkeypatch.undo()
    async with open_log(stopped.parent, clock) as log:
        assert not list(await log._writer.execute_fetchall("SELECT * FROM sqlite_schema WHERE name = 'half'"))
        assert ids(await log.fetch(EVENTS, NOW)) == "b"
