"""Somebody takes the database's files away under the running server: by hand, with a script, by a restore."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from load import Load
from programs import WALBATCH, Site, site
from total_queue import Verdict

pytestmark = pytest.mark.crash

UNGUARDED = (sys.executable, str(Path(__file__).parent.parent / "support" / "unguarded_server.py"))
DATABASE = ("events.db", "events.db-wal", "events.db-shm")
PROMPTLY_S = 5.0


def deleted(data: Path) -> None:
    """Delete the database."""
    (data / "events.db").unlink()


def replaced(data: Path) -> None:
    """Move another file into its place."""
    other = data / "other"
    other.touch()
    other.rename(data / "events.db")


def wal_deleted(data: Path) -> None:
    """Delete the write-ahead log, to free space."""
    (data / "events.db-wal").unlink()


def take_under_load(here: Site, take: Callable[[Path], None], entry: tuple[str, ...]) -> Verdict:
    """Take files away under load, do what the server's last words say, drain, and judge."""
    server = here.serve(entry=entry)
    load = Load(here, clients=1)
    load.goes_on()
    take(here.data)
    if entry == UNGUARDED:
        load.goes_on()
        server.kill()
    else:
        assert server.wait(PROMPTLY_S) == 74, server.output()
        (rescued,) = here.data.glob("events.db.rescued-*")
        assert str(rescued) in server.output()
        assert "Traceback" not in server.output()
        for name in DATABASE:
            if (here.data / name).exists():
                (here.data / name).rename(here.data / f"{name}.away")
        rescued.rename(here.data / "events.db")
    here.sink()
    here.serve()
    load.goes_on(2000)
    load.end()
    return load.settled()


@pytest.mark.parametrize(
    ("fault", "take"),
    [("database deleted", deleted), ("database replaced", replaced), ("write-ahead log deleted", wal_deleted)],
)
def test_files_that_are_taken_away_cost_nothing(
    tmp_path: Path,
    fault: str,
    take: Callable[[Path], None],
    rounds: Callable[[int, int], int],
    matrix: Callable[..., None],
) -> None:
    """The server exits with 74 before it acknowledges anything more, and what it had is in the copy that it names."""
    times = rounds(1, 2)
    verdicts = []
    for name, entry in (*((f"{n}", (WALBATCH, "serve")) for n in range(times)), ("control", UNGUARDED)):
        (tmp_path / name).mkdir()
        with site(tmp_path / name, retry_base="50ms", retry_max="200ms", min_free_disk=0) as here:
            verdicts.append(take_under_load(here, take, entry))
    *verdicts, control = verdicts
    matrix(
        fault=fault,
        rounds=times,
        acked=sum(len(v.acked) for v in verdicts),
        lost=sum(len(v.lost) for v in verdicts),
        duplicated=sum(len(v.duplicated) for v in verdicts),
        control=f"without the check: {control.losses()}",
    )
    for verdict in verdicts:
        assert verdict.acked
        assert not verdict.complaints(most_repeats=0)
        assert not verdict.unexpected
    assert control.lost


def test_the_next_start_goes_on_with_the_copy(tmp_path: Path) -> None:
    """Where the database is missing there is nothing to do, as the text says whatever is left of it."""
    with site(tmp_path, min_free_disk=0) as here:
        server = here.serve()
        load = Load(here, clients=1)
        load.goes_on()
        deleted(here.data)
        assert server.wait(PROMPTLY_S) == 74, server.output()
        load.end()
        here.sink()
        here.serve()
        assert not load.settled().complaints(most_repeats=0)
