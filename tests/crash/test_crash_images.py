"""Thousands of power cuts, each at one write or sync of the log, on a disk in memory that forgets what it may forget.

The log's own code runs (`crash_process`), on a SQLite that writes to a simulated disk (`crash_sqlite`, `crash_disk`).
Every image is started as `serve` would start it, and compared with what had been acknowledged (`crash_ledger`): no
record and no settlement is missing, none is there that was not asked for, a COMMIT under way is there as a whole or
not at all, the counts add up, `integrity_check` finds nothing. From some images a second power cut follows during the
start, and a third. The last tests break the promise on purpose: the same checker finds it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from crash_disk import broken, works
from crash_former import examine_migrated, write_former
from crash_life import Life, Tally, survey
from crash_process import Machine, System, simulated

from walbatch.errors import CommitFailed, StorageFailed
from walbatch.wal import driver, frames, migrate, recovery
from walbatch.wal.disk import CHECKPOINT_BYTES
from walbatch.wal.driver import Connection
from walbatch.wal.files import wal_file
from walbatch.wal.transaction import Chore

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

OFTEN = 48 * 1024
"""Bytes between two checkpoints where those are what it is about: two or three commits."""

WRITING = ("append", "fetch", "settle")

Matrix = Callable[..., None]
Rounds = Callable[[int, int], int]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Where disks in memory are mounted. Nothing is stored on a real one."""
    machine = simulated(tmp_path, monkeypatch)
    yield machine
    machine.disks.unregister()


def ordinary(life: Life) -> None:
    """Everything that a log is used for."""
    life.photograph(0.05)
    life.start()
    life.work(30)


def checkpoints(life: Life) -> None:
    """A small log between checkpoints; the database itself is written by nothing else."""
    life.checkpoint_bytes = OFTEN
    life.photograph(lambda _operation, name: 0.2 if name == "events.db" else 0.01)
    life.start()
    life.work(20)


def starts(life: Life) -> None:
    """Killed again and again, and photographed while it starts."""
    life.start()
    for _ in range(4):
        life.work(6)
        life.kill()
        life.photograph(0.2)
        life.start()
        life.photograph(0)


def purges(life: Life) -> None:
    """Retention deletes what is settled everywhere, and gives pages back to the file system."""
    life.start()
    life.work(20, *WRITING)
    life.photograph(0.15)
    for _ in range(3):
        life.purge()
        life.process.writer.execute("PRAGMA incremental_vacuum(5)").fetchall()
        life.work(3, *WRITING)
    life.restart()


def fsync_fails_once(life: Life) -> None:
    """One fsync fails, of a commit or of a checkpoint, and the process goes on; after another one it ends."""
    life.checkpoint_bytes = life.chance.choice((OFTEN, CHECKPOINT_BYTES))
    life.photograph(0.02)
    life.start()
    life.work(8, *WRITING)
    life.disk.refuse = broken("sync", after=life.chance.randint(0, 4))
    for _ in range(5):
        life.append()
    life.disk.refuse = works
    if life.chance.random() < 0.5:
        leave_a_hole(life)
    else:
        life.stop()
        life.start()
        leave_a_hole(life, after=1)
    start_again(life)


def leave_a_hole(life: Life, *, after: int = 0) -> None:
    """Fail the last commit of a process, whose rows the next one will find in memory, though the disk lacks them."""
    life.disk.refuse = broken("sync", after=after)
    life.append()


def behind_a_hole(life: Life) -> None:
    """The last fsync of a process fails, and the next process appends."""
    life.start()
    life.work(8, *WRITING)
    leave_a_hole(life)
    start_again(life)


def checkpoint_of_a_hole(life: Life) -> None:
    """The same in a -wal that had been emptied before, photographed while the next process starts."""
    life.start()
    life.work(20, *WRITING)
    life.stop()
    life.start()
    leave_a_hole(life, after=1)  # the first fsync of an empty -wal is of its header alone
    life.kill()
    life.disk.refuse = works
    life.photograph(lambda _operation, name: 0.3 if name == "events.db" else 0.0)
    life.start()


def fsync_fails_for_ever(life: Life) -> None:
    """Every fsync fails until the log gives up; then it starts again, on a disk that works."""
    life.start()
    life.work(10, *WRITING)
    life.photograph(0.05)
    life.disk.refuse = broken("sync", float("inf"))
    with suppress(StorageFailed):
        while True:
            life.append()
    start_again(life)


def writes_fail(life: Life) -> None:
    """The disk is full, or refuses to write, for a while; then it works again, and the process goes on."""
    life.checkpoint_bytes = life.chance.choice((OFTEN, CHECKPOINT_BYTES))
    life.photograph(0.02)
    life.start()
    life.work(6, *WRITING)
    for code in (errno.ENOSPC, errno.EIO):
        life.disk.refuse = broken("write", life.chance.choice((1, 20)), after=life.chance.randint(0, 20), code=code)
        with suppress(StorageFailed):
            for _ in range(4):
                life.append()
        life.disk.refuse = works
        life.work(3, *WRITING)
    start_again(life)


def fail(connection: Connection) -> int:
    """Run a statement that fails."""
    return connection.execute("SELECT * FROM nothing").rowcount


def rolls_back(life: Life) -> None:
    """Large groups get to -wal before they are complete, and fail; what they leave is written over by smaller ones."""
    life.start()
    for _ in range(3):
        life.process.writer.execute("PRAGMA cache_size = 8")  # as if each of them had megabytes
        before = len(life.disk.files["events.db-wal"].cache)
        with suppress(CommitFailed):
            life.process.write(life.records(life.chance.randint(100, 200)), Chore(fail))
        assert len(life.disk.files["events.db-wal"].cache) > before
        life.photograph(lambda operation, _name: float(operation == "sync"))
        for _ in range(8):
            life.commit(life.records(life.chance.randint(1, 3)))
        life.photograph(0.02)
        life.work(2, *WRITING)
        life.restart()


def start_again(life: Life) -> None:
    """Kill the process, start another on the same disk, which has forgotten nothing yet, and go on."""
    life.kill()
    life.disk.refuse = works
    life.photograph(lambda _operation, name: 0.4 if name == "events.db" else 0.1)
    life.start()
    for _ in range(3):
        life.append()
    life.work(6, *WRITING)


ROWS: dict[str, tuple[Callable[[Life], None], int, int]] = {
    "power cut at any write or sync": (ordinary, 60, 1300),
    "power cut during a checkpoint": (checkpoints, 40, 700),
    "power cut during recovery": (starts, 40, 800),
    "power cut during purge and vacuum": (purges, 30, 500),
    "fsync fails once, restart, power cut": (fsync_fails_once, 40, 700),
    "fsync fails for ever, restart, power cut": (fsync_fails_for_ever, 30, 500),
    "writes fail, restart, power cut": (writes_fail, 20, 400),
    "power cut after large groups that failed": (rolls_back, 40, 700),
}
"""What is told in the table, the life, and the images of `make test` and of `make faults`."""


@pytest.mark.parametrize("fault", ROWS)
def test_nothing_acknowledged_is_lost(machine: Machine, rounds: Rounds, matrix: Matrix, fault: str) -> None:
    """Whatever the disk has of what was under way: all that was acknowledged is there, and nothing else."""
    live, few, many = ROWS[fault]
    tally = survey(machine, rounds(few, many), live)
    print(tally)
    assert tally.acked > tally.lives
    assert len(tally.depths) > 1 or tally.images < 100, "no second cut was made"
    assert not tally.bad, tally.examples[:5]
    matrix(fault=fault, rounds=tally.images, acked=tally.acked, lost=0)


@pytest.mark.parametrize("version", range(1, migrate.migrations()[-1][0]))
def test_a_migration_loses_nothing(
    machine: Machine, rounds: Rounds, matrix: Matrix, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """From each older schema to the newest: the log is the old one or the new one, and the copy of the old is whole."""
    tally = survey(machine, rounds(30, 500), migration(version, monkeypatch), examine=examine_migrated)
    print(tally)
    assert not tally.bad, tally.examples[:5]
    matrix(fault=f"power cut during migration from {version}", rounds=tally.images, acked=tally.acked, lost=0)


def test_a_copy_that_is_not_synced_is_caught(
    machine: Machine, rounds: Rounds, matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the fsync of the copy a migration may be durable before the copy is."""
    live = migration(1, monkeypatch)
    monkeypatch.setattr(System, "fsync", lambda _system, _descriptor: None)
    tally = survey(machine, rounds(30, 200), live, examine=examine_migrated, deep=0)
    print(tally)
    assert tally.bad["corrupt"] + tally.bad["lost"]
    matrix(fault="control: the copy is not synced", rounds=tally.images, acked=tally.acked, lost=0, control=told(tally))


def migration(version: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[Life], None]:
    """Return the life of a log of an older schema that is started by this walbatch."""

    def live(life: Life) -> None:
        write_former(life, version, monkeypatch)
        life.photograph(0.15)
        life.start()
        life.work(3, *WRITING)

    return live


def without_the_rewrite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open -wal as it is."""
    monkeypatch.setattr(recovery, "rewrite_wal", lambda _wal: None)


def without_any_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, and at the start neither a search for damage nor a checkpoint."""
    without_the_rewrite(monkeypatch)
    monkeypatch.setattr(frames, "damage", lambda _wal, _database: None)
    monkeypatch.setattr(driver, "checkpoint", lambda _connection: True)


def without_the_wal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete -wal, as people do to free space."""
    prepare = recovery.prepare

    def delete_and_prepare(database: Path) -> None:
        wal_file(database).unlink(missing_ok=True)
        prepare(database)

    monkeypatch.setattr(recovery, "prepare", delete_and_prepare)


def former_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take any commit behind a break for a proof of damage, if anything that is linked comes later."""

    def after_a_break(signs: Iterator[frames._Frame]) -> str | None:
        broken = committed = False
        for frame in signs:
            if broken and frame.linked and committed:
                return "a rule that was wrong"
            if broken and frame.linked:
                committed = frame.size_after > 0
            broken = broken or not frame.linked
        return None

    monkeypatch.setattr(frames, "_after_a_break", after_a_break)


def synchronous(value: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Set `PRAGMA synchronous` to something else."""
    return lambda monkeypatch: monkeypatch.setitem(driver._WRITER_PRAGMAS, "synchronous", value)


CONTROLS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[Life], None], set[str], set[str]]] = {
    "synchronous=NORMAL": (synchronous(1), ordinary, {"lost"}, {"conservation"}),
    "synchronous=OFF": (synchronous(0), checkpoints, {"corrupt", "lost"}, set()),
    "-wal is not written again": (without_any_cure, behind_a_hole, {"lost"}, {"corrupt", "conservation"}),
    "a checkpoint instead": (without_the_rewrite, checkpoint_of_a_hole, {"corrupt"}, set()),
    "leftovers are taken for damage": (former_search, rolls_back, {"corrupt"}, {"lost"}),
    "-wal is deleted": (without_the_wal, starts, {"lost"}, set()),
}
"""What is done wrong, where, what must come of it, and what must not."""


@pytest.mark.parametrize("control", CONTROLS)
def test_what_breaks_the_promise_is_caught(
    machine: Machine, rounds: Rounds, matrix: Matrix, monkeypatch: pytest.MonkeyPatch, control: str
) -> None:
    """A setting or an order that is known to lose or to corrupt does so here, so the rows above mean something."""
    spoil, live, expected, excluded = CONTROLS[control]
    spoil(monkeypatch)
    tally = survey(machine, rounds(60, 300), live, deep=0)
    print(tally)
    assert expected <= tally.bad.keys()
    assert not excluded & tally.bad.keys()
    matrix(
        fault=f"control: {control}", rounds=tally.images, acked=tally.acked, lost=tally.bad["lost"], control=told(tally)
    )


def told(tally: Tally) -> str:
    """Say what the checker found."""
    return ", ".join(f"{count} {kind}" for kind, count in tally.bad.most_common())
