"""A log that an older walbatch wrote, on a disk in memory."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from crash_ledger import state_of
from crash_life import Life
from crash_process import DiskPath

from walbatch.delivery import DELIVERED, Rejected
from walbatch.event import Kind, Offset, track
from walbatch.wal import Lane, driver, migrate, recovery

RECORDS, SENT = 60, 40
LANE = Lane("main", Kind.EVENT)


def write_former(life: Life, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a log of this schema version: most of its records are settled, the last of those as a dead letter."""
    known = migrate.migrations()
    mount = life.machine.disks.mount(life.disk)
    path = cast(Path, DiskPath(life.disk, mount, "events.db"))
    recovery.prepare(path)
    writer = driver.open_writer(path)
    with monkeypatch.context() as former:
        former.setattr(migrate, "migrations", lambda: known[:1])
        migrate.migrate(writer, path)
        _fill(life, writer)
        former.setattr(migrate, "migrations", lambda: known[:version])
        migrate.migrate(writer, path)
    life.ledger.landed = state_of(writer)
    writer.close()
    for name in [name for name in life.disk.files if "before" in name]:
        life.disk.remove(name)
    life.disk.sync_folder()
    life.machine.disks.unmount(mount)


def _fill(life: Life, writer: driver.Connection) -> None:
    records = [
        track(name="a", event_id=f"f{n}", distinct_id="u1", properties={"text": "x" * 500}, now_ms=1_700_000_000_000)
        for n in range(1, RECORDS + 1)
    ]
    size = sum(len(record.payload) for record in records)
    done = sum(len(record.payload) for record in records[:SENT])
    writer.execute("BEGIN")
    writer.executemany(
        "INSERT INTO events (kind, event_id, payload, received_at_ms) VALUES (0, ?, ?, ?)",
        [(record.event_id, record.payload, record.received_at_ms) for record in records],
    )
    writer.execute("UPDATE accepted SET count = ?, bytes = ? WHERE kind = 0", (RECORDS, size))
    writer.execute("INSERT INTO cursors (destination, kind) VALUES ('main', 1)")
    writer.execute(
        "INSERT INTO cursors (destination, kind, settled_through, sent, dead, settled_bytes)"
        " VALUES ('main', 0, ?, ?, 1, ?)",
        (SENT, SENT - 1, done),
    )
    writer.execute("INSERT INTO deliveries VALUES (1, 'main', 0, 1, ?, ?, 1, ?, '200', 1, 2)", (SENT, SENT - 1, done))
    writer.execute("INSERT INTO dead_letters VALUES ('main', ?, 0, 400, 'time', 'is bad', 1, NULL, NULL)", (SENT,))
    writer.execute("INSERT INTO destinations VALUES ('main', 'ok', 0, NULL, NULL)")
    writer.execute("COMMIT")
    ledger = life.ledger
    for n, record in enumerate(records, 1):
        ledger.attempted[record.event_id] = record.payload
        ledger.append_acked(Offset(n), (record.event_id, record.payload), [LANE])
    ledger.settled = {(LANE, Offset(n)): DELIVERED for n in range(1, SENT)}
    ledger.settled[LANE, Offset(SENT)] = Rejected(400, "time", "is bad")
    ledger.tried = set(ledger.settled)


def examine_migrated(life: Life) -> list[str]:
    """Examine a log that was migrated, and the copy that was made before."""
    path = life.process.path.with_name(f"events.db.before-v{migrate.migrations()[-1][0]}")
    if path.name not in life.disk.files:
        return ["lost: the copy"]
    try:
        copy = driver.open_reader(path)
        known = state_of(copy) in life.ledger.former
        checked = copy.execute("PRAGMA integrity_check").fetchall()
    except driver.Error as error:
        return [f"corrupt: the copy: {error}"]
    return life.examine() if known and checked == [("ok",)] else ["corrupt: the copy"]
