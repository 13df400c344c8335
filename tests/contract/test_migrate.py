"""From one schema to the next: a copy first, then each step as one transaction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from log_records import EVENTS, NOW, executed, ids, mode, modes_in, open_log

from walbatch.errors import StorageFailed
from walbatch.event import Kind
from walbatch.testing.clock import FakeClock
from walbatch.wal import Lane, driver, migrate

NEXT = (4, "ALTER TABLE events ADD COLUMN extra TEXT;")


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
    upgrade(*NEXT)
    async with open_log(stopped.parent, clock) as log:
        assert (await executed(log, "PRAGMA user_version")) == [(4,)]
        assert ids(await log.fetch(EVENTS, NOW)) == "b"
    copy = stopped.with_name("events.db.before-v4")
    connection = driver.open_reader(copy)
    assert connection.execute("PRAGMA user_version").fetchone() == (3,)
    assert connection.execute("SELECT group_concat(event_id, '') FROM events").fetchone() == ("ab",)
    connection.close()
    assert mode(copy) == 0o600


async def test_a_new_database_needs_no_copy(directory: Path, clock: FakeClock) -> None:
    """Before the first migration there is nothing to keep; opening again migrates nothing."""
    for _ in range(2):
        async with open_log(directory, clock):
            pass
    assert modes_in(directory).keys() == {"events.db", "walbatch.lock", "walbatch.reserve"}


async def test_a_migration_that_fails_leaves_the_old_schema(
    stopped: Path, clock: FakeClock, upgrade: Callable[[int, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step is one transaction with its number: afterwards the former program goes on as before."""
    upgrade(4, "CREATE TABLE half (done); SELECT no_such_function();")
    with pytest.raises(StorageFailed, match="no_such_function"):
        await open_log(stopped.parent, clock).__aenter__()
    monkeypatch.undo()
    async with open_log(stopped.parent, clock) as log:
        assert not (await executed(log, "SELECT * FROM sqlite_schema WHERE name = 'half'"))
        assert ids(await log.fetch(EVENTS, NOW)) == "b"


VERSION_1 = """
INSERT INTO events (seq, kind, event_id, payload, received_at_ms) VALUES
  (1, 0, 'a', '{"event":"a","properties":{"time":1,"distinct_id":"u1"}}', 5),
  (2, 1, 'p', '{"$distinct_id":"u1","$set":{}}', 6),
  (3, 0, 'b', '{"event":"b","properties":{"time":2,"distinct_id":"u1"}}', 7),
  (4, 0, 'c', '{"event":"c","properties":{"time":3,"distinct_id":"u1"}}', 8);
UPDATE accepted SET count = 3, bytes = 150 WHERE kind = 0;
UPDATE accepted SET count = 1, bytes = 31 WHERE kind = 1;
INSERT INTO cursors (destination, kind, settled_through, sent, dead, settled_bytes) VALUES
  ('there', 0, 3, 1, 1, 100), ('there', 1, 0, 0, 0, 0), ('elsewhere', 0, 0, 0, 0, 0), ('elsewhere', 1, 0, 0, 0, 0);
INSERT INTO dead_letters (destination, seq, kind, code, field, reason, at_ms) VALUES ('there', 3, 0, 400, 'f', 'r', 9);
INSERT INTO destinations (name, state, failures, last_error) VALUES ('there', 'open', 7, '503');
"""
"""A log of the first schema: at `there` a was sent, b refused, and c and p wait; `elsewhere` got nothing yet."""


def make_version_1(directory: Path) -> None:
    """Make such a log."""
    directory.mkdir(mode=0o700)
    connection = driver.open_writer(directory / "events.db")
    sql = migrate.migrations()[0][1]
    connection.executescript(f"{sql} PRAGMA application_id = {migrate.APPLICATION_ID}; PRAGMA user_version = 1;")
    connection.executescript(VERSION_1)
    connection.close()


async def test_a_log_of_the_first_version_goes_on_with_all_its_counts(directory: Path, clock: FakeClock) -> None:
    """The counts of each destination, its condition and its dead letters are those of before; groups are added."""
    make_version_1(directory)
    async with open_log(directory, clock, "there", "elsewhere", "third") as log:
        backlog = await log.backlog()
        assert ids(await log.fetch(EVENTS, NOW)) == "c"
        assert ids(await log.fetch(Lane("elsewhere", Kind.EVENT), NOW)) == "abc"
        assert ids(await log.fetch(Lane("elsewhere", Kind.PROFILE), NOW)) == "p"
    counts = {
        (d.name, lane.name): (lane.accepted, lane.pending, lane.sent, lane.dead)
        for d in backlog.destinations
        for lane in d.lanes
    }
    assert counts == {
        ("elsewhere", "events"): (3, 3, 0, 0),
        ("elsewhere", "profiles"): (1, 1, 0, 0),
        ("elsewhere", "groups"): (0, 0, 0, 0),
        ("there", "events"): (3, 1, 1, 1),
        ("there", "profiles"): (1, 1, 0, 0),
        ("there", "groups"): (0, 0, 0, 0),
        ("third", "events"): (0, 0, 0, 0),
        ("third", "profiles"): (0, 0, 0, 0),
        ("third", "groups"): (0, 0, 0, 0),
    }
    conditions = {destination.name: destination.condition.failures for destination in backlog.destinations}
    assert conditions == {"there": 7, "elsewhere": 0, "third": 0}
