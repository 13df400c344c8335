"""Zeroing what SQLite left between the rows of a page, in real database files."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from walbatch.wal import gaps
from walbatch.wal.gaps import Layout, TooLarge


@pytest.fixture(params=["INCREMENTAL", "NONE"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A closed database of about 2,000 pages whose rows have moved, with pages that say what the others are, or not."""
    path = tmp_path / "some.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA auto_vacuum = {request.param}")
    connection.execute("PRAGMA secure_delete = 1")
    connection.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)")
    connection.execute("CREATE TABLE w (k TEXT PRIMARY KEY, v TEXT) WITHOUT ROWID")
    chance = random.Random(1)
    connection.execute("BEGIN")
    for n in range(12_000):
        text = "left" * chance.choice([5, 50, 100, 2000])
        connection.execute("INSERT INTO t VALUES (?, ?)", (n, text if n % 20 else text * 3))
        connection.execute("INSERT INTO w VALUES (?, ?)", (f"{chance.random()}", text[:300]))
    connection.execute("DELETE FROM t WHERE k % 7 < 4")
    connection.execute("DELETE FROM w WHERE k > '0.3' AND k < '0.8'")
    connection.execute("COMMIT")
    connection.close()
    return path


@pytest.fixture
def descriptor(database: Path) -> Iterator[int]:
    """The file of the database."""
    descriptor = os.open(database, os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def content(database: Path) -> tuple[list[object], list[object], list[object]]:
    """Everything that is in the tables, and whether the file is sound."""
    connection = sqlite3.connect(database)
    found = [connection.execute(query).fetchall() for query in ("SELECT * FROM t", "SELECT * FROM w")]
    check = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    return found[0], found[1], check


def test_gaps_are_zeroed_and_nothing_else_is(database: Path, descriptor: int) -> None:
    """Rows and structure stay as they were, also beyond the second page that says what others are."""
    before = content(database)
    unclean = gaps.find(descriptor)
    assert before[2] == [("ok",)]
    assert os.fstat(descriptor).st_size > 1700 * 4096
    assert len(unclean) > 20
    assert gaps.clean(descriptor, [*unclean, 2, 822, 10**6]) == len(unclean)
    assert gaps.find(descriptor) == []
    assert content(database) == before


def test_where_the_maps_are() -> None:
    """The second page, then each 820th for pages of 4 KiB; one that would hold the lock byte comes a page later."""
    form = Layout(4096, 4096, mapped=True)
    assert [number for number in range(1, 2000) if gaps._is_map(number, form)] == [2, 822, 1642]
    lock = 2**30 // 512 + 1
    small = Layout(512, 512, mapped=True)
    near = [number for number in range(lock - 200, lock + 200) if gaps._is_map(number, small)]
    assert {(number - 2) % 103 for number in near if number < lock} == {0}
    assert all((number - 2) % 103 == (number == lock + 1) for number in near)


def test_a_database_that_is_too_large_to_tell_pages_apart_is_refused(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than to guess."""
    monkeypatch.setattr(gaps, "MAX_PAGES", 100)
    with pytest.raises(TooLarge, match="VACUUM"):
        gaps.find(descriptor)
