"""Bytes that go bad in a stopped log: what a start finds, what it cannot find, and that a refusal changes nothing."""

from __future__ import annotations

import hashlib
import random
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from log_records import EVENTS, NOW, copied, deliver, event, events, executed, ids, open_log

from walbatch.errors import ConfigurationError, CorruptLog, WalbatchError
from walbatch.testing.clock import FakeClock
from walbatch.wal import driver, frames, recovery
from walbatch.wal.files import DATABASE_FILE, journal_file, shm_file, wal_file

FRAME = 24 + 4096
Rows = dict[int, tuple[object, ...]]


@pytest.fixture
async def killed(tmp_path: Path, clock: FakeClock) -> Path:
    """A log that was killed with a part of its records in the database, and 40 commits in the write-ahead log."""
    async with open_log(tmp_path / "first", clock) as log:
        await log.append([event(f"old-{n}", clock, properties={"n": n}) for n in range(300)])
        await deliver(log)
        await executed(log, "PRAGMA wal_checkpoint(TRUNCATE)")
        for n in range(40):
            await log.append([event(f"new-{n}", clock, properties={"n": n})])
        return copied(log.path, tmp_path / "killed")


@pytest.fixture
async def clean(directory: Path, clock: FakeClock) -> Path:
    """A log that was stopped in an orderly way, with records of every kind of row."""
    async with open_log(directory, clock) as log:
        for n in range(20):
            await log.append([event(f"{n}-{m}", clock, properties={"n": m}) for m in range(30)])
            if n % 2:
                await deliver(log)
    return log.path


def fingerprint(directory: Path) -> dict[str, str]:
    """Digests of every file of a log that nobody has open."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in directory.iterdir()}


def rows(database: Path) -> Rows:
    """Every record, by offset, as SQLite recovers it; no file is changed."""
    with recovery.inspecting(database) as connection:
        connection.text_factory = bytes  # a bad byte may make a text that is none
        return {row[0]: row for row in connection.execute("SELECT * FROM events ORDER BY seq").fetchall()}


def flip(file: Path, position: int, mask: int) -> None:
    """Change bits of one byte."""
    with file.open("r+b") as opened:
        opened.seek(position)
        (byte,) = opened.read(1)
        opened.seek(position)
        opened.write(bytes([byte ^ mask]))


def outcome(database: Path) -> Rows | WalbatchError:
    """Start as far as the first look, and return what would be served, or the refusal, which changed no file.

    What is served has changed none either, but for a write-ahead log that SQLite ignores: that is empty.
    """
    before, wal = fingerprint(database.parent), wal_file(database)
    is_ignored = wal.exists() and not frames.is_readable(wal)
    refused: WalbatchError | None = None
    try:
        recovery.prepare(database)
    except WalbatchError as error:
        refused = error
    if is_ignored and not refused:
        before[wal.name] = hashlib.sha256(b"").hexdigest()
    assert fingerprint(database.parent) == before
    return refused or rows(database)


def spoiled(database: Path, file: Callable[[Path], Path], count: int) -> Iterator[tuple[int, Rows | WalbatchError]]:
    """Yield random places in a file, and what a start makes of each byte alone gone bad."""
    chance = random.Random(20261123)
    target = file(database)
    whole = target.read_bytes()
    for _ in range(count):
        position = chance.randrange(len(whole))
        flip(target, position, chance.randrange(1, 256))
        yield position, outcome(database)
        target.write_bytes(whole)


def test_a_bad_byte_in_the_write_ahead_log_never_loses_what_came_before_the_last_commit(
    killed: Path, rounds: Callable[[int, int], int]
) -> None:
    """Either the start is refused, or everything is there but, at most, the transaction that was the last."""
    served = rows(killed)
    assert len(served) == 340
    # The commit frame of the last transaction but one counts as a part of the last: see walbatch.wal.frames.
    frames_of_last = _last_frames(wal_file(killed), transactions=2)
    found: Counter[str] = Counter()
    for position, result in spoiled(killed, wal_file, rounds(300, 3000)):
        frame = (position - 32) // FRAME + 1 if position >= 32 else 0
        if isinstance(result, WalbatchError):
            assert isinstance(result, CorruptLog), (position, result)
            found["refused"] += 1
        elif result == served:
            found["no matter"] += 1  # a byte of the header that means nothing
        else:
            assert frame in frames_of_last, (position, frame)
            assert {seq: served[seq] for seq in result} == result
            assert len(served) - len(result) <= 2
            found["taken for cut short"] += 1
    assert found["refused"] > 10 * found["taken for cut short"]
    assert found["no matter"] * 100 < found["refused"]


def _last_frames(wal: Path, transactions: int) -> set[int]:
    content = wal.read_bytes()
    count = (len(content) - 32) // FRAME
    commits = [n for n in range(1, count + 1) if any(content[32 + (n - 1) * FRAME + 4 : 32 + (n - 1) * FRAME + 8])]
    return set(range(commits[-transactions - 1] + 1, count + 1))


def test_without_the_search_a_bad_byte_loses_records(killed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: SQLite itself takes the log up to the bad byte, and says nothing."""
    monkeypatch.setattr(frames, "damage", lambda _wal, _database: None)
    flip(wal_file(killed), 32 + 3 * FRAME + 100, 0xFF)
    result = outcome(killed)
    assert not isinstance(result, WalbatchError)
    assert len(result) < 310


@pytest.mark.parametrize("position", [0, 7, 11, 17, 21, 25, 31])
def test_a_broken_header_of_the_write_ahead_log_is_found(killed: Path, position: int) -> None:
    """SQLite would ignore the whole file; the database does not have what is in it."""
    flip(wal_file(killed), position, 0x10)
    assert isinstance(outcome(killed), CorruptLog)


def test_a_torn_end_is_the_committed_prefix(killed: Path) -> None:
    """However much of the last, unacknowledged transaction is missing, the rest is served."""
    content = wal_file(killed).read_bytes()
    served = rows(killed)
    last = min(_last_frames(wal_file(killed), transactions=1))
    before = {seq: row for seq, row in served.items() if seq < max(served)}
    for size in range(32 + (last - 1) * FRAME, len(content), 1000):
        wal_file(killed).write_bytes(content[:size])
        assert outcome(killed) == before
    for size in range(32 + (last - 1) * FRAME, len(content), 1000):  # the same, on a file that had its length
        wal_file(killed).write_bytes(content[:size] + bytes(len(content) - size))
        assert outcome(killed) == before


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 56, 32 + 4119, 32 + FRAME, 32 + FRAME + 1])
@pytest.mark.parametrize("rest", [0, 3 * FRAME])
def test_a_log_that_has_just_begun_again_is_served(clean: Path, killed: Path, size: int, rest: int) -> None:
    """A kill at any byte of the first transaction leaves nothing but what the database has."""
    served = rows(clean)
    wal_file(clean).write_bytes(wal_file(killed).read_bytes()[:size] + bytes(rest))
    assert outcome(clean) == served


def test_where_a_look_without_touching_is_not_possible_an_ordinary_one_is_taken(
    clean: Path, killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite cannot read a header without frames in that way (SQLITE_PROTOCOL); that refuses no log."""
    wal_file(clean).write_bytes(wal_file(killed).read_bytes()[:32])
    with monkeypatch.context() as patch:
        patch.setattr(frames, "is_readable", lambda _wal: True)
        with pytest.raises(driver.Error, match="locking protocol"), recovery.inspecting(clean) as connection:
            connection.execute("SELECT * FROM sqlite_schema")
        recovery.prepare(clean)


def test_pages_of_a_torn_transaction_that_came_in_any_order_are_no_damage(killed: Path) -> None:
    """A power cut may leave any sectors of what was not fsynced: that is never refused."""
    content = wal_file(killed).read_bytes()
    served = rows(killed)
    start = 32 + (min(_last_frames(wal_file(killed), transactions=1)) - 1) * FRAME
    before = {seq: row for seq, row in served.items() if seq < max(served)}
    chance = random.Random(5)
    for _ in range(100):
        torn = bytearray(content)
        for sector in range(start // 512, len(content) // 512 + 1):
            if chance.random() < 0.5:
                first, last = max(sector * 512, start), min(sector * 512 + 512, len(content))
                torn[first:last] = chance.choice([bytes(512), content[-last - 512 :][:512]])[: last - first]
        wal_file(killed).write_bytes(torn)
        assert outcome(killed) in (before, served)


def test_a_header_that_was_torn_when_the_log_began_again_is_no_damage(killed: Path) -> None:
    """All of the old content is in the database then, so it may be ignored; stale frames are no damage either."""
    served = rows(killed)
    with closing(driver.open_writer(killed)) as connection:
        connection.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
        taken_over = copied(killed, killed.parent.parent / "taken over")
    content = wal_file(taken_over).read_bytes()
    for size in range(32):
        wal_file(taken_over).write_bytes(bytes(size) + content[size:])
        assert outcome(taken_over) == served


async def test_a_restart_of_the_log_that_is_cut_short_twice_is_no_damage(
    killed: Path, tmp_path: Path, clock: FakeClock
) -> None:
    """First in the middle of the new header, and after the next start just behind the header that is written then."""
    served = rows(killed)
    with closing(driver.open_writer(killed)) as connection:
        connection.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
        first = copied(killed, tmp_path / "cut once")
    old = bytearray(wal_file(first).read_bytes())
    old[15] += 1  # half of a new header: the count of checkpoints; the salts and the checksum are the old ones
    wal_file(first).write_bytes(old)
    recovery.prepare(first)
    with closing(driver.open_writer(first)) as connection:
        connection.execute("UPDATE accepted SET count = count")
        second = copied(first, tmp_path / "cut twice")
    header = wal_file(second).read_bytes()[:32]
    wal_file(second).write_bytes(header + old[32:])
    assert outcome(second) == served
    async with open_log(second.parent, clock) as log:
        await log.append(events("a", clock))


def test_a_bad_byte_in_the_database_is_refused_or_changes_one_value(
    clean: Path, rounds: Callable[[int, int], int]
) -> None:
    """Structure that breaks is found at every start; a byte within a value is not, and no record goes missing by it."""
    served = rows(clean)
    found: Counter[str] = Counter()
    for position, result in spoiled(clean, lambda database: database, rounds(400, 4000)):
        if isinstance(result, WalbatchError):
            assert isinstance(result, CorruptLog | ConfigurationError), (position, result)
            found["refused"] += 1
        elif result == served:
            found["of no record"] += 1
        else:
            changed = {seq for seq in served.keys() | result.keys() if served.get(seq) != result.get(seq)}
            assert len(served) == len(result), position
            assert len(changed) <= 2, (position, changed)  # one; or two offsets, if it is the offset that changed
            found["one value"] += 1
    print(found)
    assert found["refused"] > 20


def test_a_refusal_leaves_every_file_as_it_was(killed: Path) -> None:
    """Also SQLite's index: it is neither changed nor made."""
    flip(wal_file(killed), 32 + 3 * FRAME + 100, 0xFF)
    assert isinstance(outcome(killed), CorruptLog)
    assert not shm_file(killed).exists()
    shm_file(killed).write_bytes(b"\x00" * 32768)
    assert isinstance(outcome(killed), CorruptLog)


@pytest.mark.parametrize("table", ["cursors", "events", "deliveries"])
def test_damage_is_found_after_a_clean_stop(clean: Path, table: str) -> None:
    """A database of ordinary size is checked at every start."""
    with recovery.inspecting(clean) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    flip(clean, (page - 1) * 4096 + 3, 0x7F)  # how many cells the page has
    refused = outcome(clean)
    assert isinstance(refused, CorruptLog)
    assert refused.exit_code == 65
    assert "docs/backup.md" in str(refused)
    assert "walbatch doctor" in str(refused)


def test_a_large_database_is_not_checked_after_a_clean_stop(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a start does not wait for it."""
    monkeypatch.setattr(recovery, "CHECK_MAX_BYTES", 4096)
    with recovery.inspecting(clean) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'deliveries'").fetchone()
    flip(clean, (page - 1) * 4096 + 3, 0x7F)
    recovery.prepare(clean)


def test_tables_of_another_shape_are_refused(clean: Path) -> None:
    """A schema that says something else than its version is damage, told before anything is written."""
    with closing(driver._open(f"{clean.as_uri()}?mode=rw")) as connection:
        connection.execute("ALTER TABLE events RENAME COLUMN payload TO paylaod")
    refused = outcome(clean)
    assert isinstance(refused, CorruptLog)
    assert "payload" in str(refused)
    with closing(driver._open(f"{clean.as_uri()}?mode=rw")) as connection:
        connection.execute("PRAGMA user_version = 0")
    assert isinstance(outcome(clean), CorruptLog)


def journal(first_page: bytes, pages: int) -> bytes:
    """A rollback journal of a database that had some pages, and the first with this content, or none."""
    # https://sqlite.org/fileformat2.html section 3
    head = bytes.fromhex("d9d505f920a163d7") + struct.pack(">IIIII", min(pages, 1), 0, pages, 512, 4096)
    if not pages:
        return head.ljust(512, b"\0")
    checksum = sum(first_page[at] for at in range(4096 - 200, 0, -200))
    return head.ljust(512, b"\0") + struct.pack(">I", 1) + first_page + struct.pack(">I", checksum)


async def test_a_kill_while_a_new_database_is_made_keeps_nobody_out(directory: Path, clock: FakeClock) -> None:
    """What SQLite's rollback journal says was not finished is undone, and the log is made from the beginning."""
    database = half_made(directory, journal(b"", 0))
    async with open_log(directory, clock) as log:
        assert not journal_file(database).exists()
        await log.append(events("a", clock))
        assert ids(await log.fetch(EVENTS, NOW)) == "a"
    assert len(rows(database)) == 1


@pytest.mark.parametrize("kept", [0, 512])
@pytest.mark.parametrize("size", [512, 2048, 4096])
async def test_a_power_cut_while_a_new_database_is_made_keeps_nobody_out(
    directory: Path, clock: FakeClock, size: int, kept: int
) -> None:
    """The first page may be there in part, or as zeros; the journal says that there was no page, so none is missed."""
    database = half_made(directory, journal(b"", 0))
    database.write_bytes(database.read_bytes()[:kept].ljust(size, b"\0"))
    async with open_log(directory, clock) as log:
        await log.append(events("a", clock))
        assert ids(await log.fetch(EVENTS, NOW)) == "a"
    assert len(rows(database)) == 1


def half_made(directory: Path, content: bytes) -> Path:
    """Leave a database of one page, with a write-ahead log to come, and the journal of its making."""
    directory.mkdir()
    database = directory / DATABASE_FILE
    with closing(driver.open_writer(database)):
        pass
    journal_file(database).write_bytes(content)
    return database


def half_taken(database: Path) -> Rows:
    """Leave the same of a copy from `walbatch backup`, and return its records."""
    content = database.read_bytes()
    page = content[:18] + b"\x01\x01" + content[20:4096]
    journal_file(database).write_bytes(journal(page, len(content) // 4096))
    return rows(database)


async def test_a_kill_at_the_first_start_after_a_restore_keeps_nobody_out(clean: Path, clock: FakeClock) -> None:
    """The same while a copy gets a write-ahead log: the next start gives it one."""
    served = half_taken(clean)
    async with open_log(clean.parent, clock):
        assert not journal_file(clean).exists()
    assert rows(clean) == served


def test_a_strangers_journal_is_left_as_it_is(tmp_path: Path) -> None:
    """A database without our mark is refused with all its files as they were."""
    database = tmp_path / "data" / DATABASE_FILE
    database.parent.mkdir()
    with closing(driver._open(f"{database.as_uri()}?mode=rwc")) as connection:
        connection.execute("CREATE TABLE notes (text)")
    journal_file(database).write_bytes(journal(database.read_bytes()[:4096], 2))
    assert isinstance(outcome(database), CorruptLog)


READ = """
import sys
from pathlib import Path
from walbatch.wal import driver
connection = driver.open_reader(Path(sys.argv[1]))
connection.execute(sys.argv[2])
print(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone(), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("statement", ["BEGIN", "SELECT 1"])
def test_who_looks_into_a_stopped_log_keeps_no_server_from_starting(killed: Path, statement: str) -> None:
    """Another process that reads, with SQLite's index in use, is no damage."""
    reader = subprocess.Popen(
        [sys.executable, "-c", READ, str(killed), statement], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert reader.stdin is not None
    assert reader.stdout is not None
    try:
        assert reader.stdout.readline().startswith(b"(")
        recovery.prepare(killed)
    finally:
        reader.communicate()
    assert len(rows(killed)) == 340


@pytest.mark.parametrize(
    ("signs", "is_damage"), [("vv.lcl", True), ("vv.lc.l", False), ("vv.l.l", False), ("vv.lc", False), ("vvvv", False)]
)
def test_only_neighbours_of_a_commit_speak_for_it(signs: str, *, is_damage: bool) -> None:
    """What a larger transaction left, that was rolled back, lies behind a torn one and is no proof of a commit."""
    found = [
        frames._Frame(number, 1, 1 if sign == "c" else 0, b"", linked=sign != ".")
        for number, sign in enumerate(signs, 1)
    ]
    assert (frames._after_a_break(iter(found)) is not None) == is_damage
