"""What `walbatch doctor` finds: each thing that can be wrong, told with the fix, and nothing where nothing is wrong."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from google.protobuf.internal import api_implementation
from log_records import BAD, EVENTS, NOW, copied, deliver, event, events, open_log, settlement
from version_1 import make_version_1

from walbatch import diagnosis, doctor, reach
from walbatch.delivery import DELIVERED, RETRY, Outcome
from walbatch.diagnosis import Finding, Status
from walbatch.disk_speed import LEAST_SAMPLES, PROBE_FILE, fdatasync
from walbatch.errors import WalbatchError
from walbatch.ownership import Ownership
from walbatch.retry import Condition, State
from walbatch.testing.clock import FakeClock
from walbatch.wal import audit, driver
from walbatch.wal.files import wal_file
from walbatch.wal.sqlite import SqliteLog

LATER_MS = 1_700_000_100_000


CHECKS = ["settings", "sqlite", "programs", "destination", "directory", "file system", "disk", "fdatasync", "server"]
CHECKS += ["write-ahead log", "schema", "integrity", "accounting", "delivery", "clock"]


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings under which everything is in order."""
    for name in [name for name in os.environ if name.startswith("WALBATCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WALBATCH_DESTINATION", "stdout")
    monkeypatch.setattr(doctor, "file_system_of", lambda _directory: 0xEF53)
    monkeypatch.setattr(doctor, "fdatasync", lambda *_, **__: [0.001, 0.002, 0.003])


def ready(_directory: Path) -> tuple[int, str]:
    """A server that accepts records."""
    return 200, "ok"


def look(database: Path, ask: doctor.Ask = ready, now_ms: int = LATER_MS) -> list[Finding]:
    """Everything that is found; no file is changed or made by it."""
    names = sorted(file.name for file in database.parent.iterdir())
    found = list(doctor.examine(database.parent, ask, now_ms))
    assert sorted(file.name for file in database.parent.iterdir()) == names
    return found


def bad(findings: list[Finding]) -> dict[str, str]:
    """What is not in order, by check."""
    return {finding.check: finding.text for finding in findings if finding.status is not Status.OK}


def change(database: Path, *statements: str) -> None:
    """Run statements on a database that nobody has open."""
    with closing(driver._open(f"{database.as_uri()}?mode=rw")) as connection:
        for statement in statements:
            connection.execute(statement)


def test_nothing_is_wrong_with_a_log_in_order(stopped: Path) -> None:
    """Every check says ok, in one line, and the exit code is 0."""
    found = look(stopped)
    assert bad(found) == {}
    assert doctor.exit_code(found) == 0
    assert [finding.check for finding in found] == CHECKS
    assert not any("\n" in finding.text for finding in found)


async def test_a_running_server_is_asked(log: SqliteLog, clock: FakeClock) -> None:
    """Its log is read while it is used; whether it accepts records is its own answer."""
    await log.append(events("a", clock))
    assert bad(look(log.path)) == {}
    refused = look(log.path, lambda _directory: (503, "the disk is full\n"))
    assert "does not accept records: the disk is full" in bad(refused)["server"]
    assert doctor.exit_code(refused) == 1

    def silent(_directory: Path) -> tuple[int, str]:
        raise WalbatchError("it does not answer")

    assert "it does not answer" in bad(look(log.path, silent))["server"]


async def test_the_counters_are_those_of_the_rows_after_everything_that_can_happen(
    directory: Path, clock: FakeClock
) -> None:
    """Outcomes of every kind, replays, discards, purges, destinations that come late or go: the recount agrees."""
    async with open_log(directory, clock, "there", "elsewhere") as log:
        await log.append(events("abcdef", clock))
        await log.append([event("p", clock, properties={"x": 1})])
        batch = await log.fetch(EVENTS, NOW)
        outcomes: list[Outcome] = [DELIVERED, BAD, RETRY, DELIVERED, BAD, DELIVERED, DELIVERED]
        await log.settle(settlement(batch, outcomes))
        await log.append([event("b", clock)._replace(replay_of=batch.offsets[1], destination="there")])
        await log.discard("there", [batch.offsets[4]])
        assert await log.read(audit.differences) == []
    async with open_log(directory, clock, "there", "late") as log:
        await deliver(log)
        await log.append(events("gh", clock))
        assert await log.read(audit.differences) == []
        assert await log.purge(clock.wall_ms() + 1, 100) > 0
        assert await log.read(audit.differences) == []
    assert bad(look(log.path)) == {}


WRONG = {
    "sent": "UPDATE cursors SET sent = sent + 1, accepted = accepted + 1 WHERE destination = 'there' AND kind = 0",
    "pending": "UPDATE cursors SET accepted = accepted + 1 WHERE destination = 'there' AND kind = 0",
    "accepted": "UPDATE cursors SET purged = purged + 1, sent = sent - 1 WHERE destination = 'there' AND kind = 0",
    "dead": "UPDATE cursors SET dead = dead + 1 WHERE destination = 'there' AND kind = 0",
    "held": "UPDATE cursors SET held = held + 1 WHERE destination = 'there' AND kind = 0",
    "pending bytes": "UPDATE cursors SET settled_bytes = 0 WHERE destination = 'there' AND kind = 0",
    "watermark": "UPDATE cursors SET settled_through = 9999 WHERE destination = 'there' AND kind = 1",
    "newest offset": "UPDATE sqlite_sequence SET seq = 1 WHERE name = 'events'",
    "stored records of kind event": "UPDATE accepted SET count = 1 WHERE kind = 0",
    "accepted records": "UPDATE accepted SET count = 1000 WHERE kind = 0",
    "overlapping deliveries": "INSERT INTO deliveries (destination, kind, first_seq, last_seq, sent, dead, bytes, note,"
    " started_at_ms, finished_at_ms) VALUES ('there', 0, 50, 40, 0, 0, 0, '', 0, 0)",
}


@pytest.mark.parametrize(("what", "statement"), WRONG.items(), ids=WRONG)
def test_a_counter_that_the_rows_contradict(stopped: Path, what: str, statement: str) -> None:
    """It is named with both numbers; that is a failure, but no damage of the file."""
    change(stopped, statement)
    found = [finding for finding in look(stopped) if finding.check == "accounting"]
    assert any(f": {what}" in finding.text and "the rows say" in finding.text for finding in found), found
    assert {finding.status for finding in found} == {Status.FAIL}
    assert doctor.exit_code(found) == 1


def test_damage_stops_only_the_checks_that_need_the_rows(stopped: Path) -> None:
    """The exit code is 65, and directory, disk and server are told all the same."""
    content = bytearray(stopped.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 100] = b"\xa5" * 100
    stopped.write_bytes(content)
    found = look(stopped)
    assert "integrity" in bad(found)
    assert doctor.exit_code(found) == 65
    assert {"settings", "directory", "disk", "server"} <= {finding.check for finding in found}
    stopped.write_bytes(b"no database at all " * 1000)
    assert doctor.exit_code(look(stopped)) == 65


def break_frame(wal: Path) -> None:
    """Let a byte of the first frame go bad."""
    content = bytearray(wal.read_bytes())
    content[32 + 24 + 100] ^= 0xFF
    wal.write_bytes(content)


async def test_a_broken_write_ahead_log(log: SqliteLog, clock: FakeClock, tmp_path: Path) -> None:
    """Found without a server; with one, its frames are its own business."""
    for name in "abcdefgh":
        await log.append(events(name, clock))
    killed = copied(log.path, tmp_path / "killed")
    break_frame(wal_file(killed))
    found = list(diagnosis.examine(killed.parent, serving=False, now_ms=LATER_MS))
    assert "commits follow" in bad(found)["write-ahead log"]
    assert doctor.exit_code(found) == 65


def test_a_log_of_another_version(stopped: Path, tmp_path: Path) -> None:
    """A newer one fails, an older one is a warning, and the rows of neither are read; integrity is checked."""
    change(stopped, "PRAGMA user_version = 99")
    found = look(stopped)
    assert "version 99" in bad(found)["schema"]
    assert doctor.exit_code(found) == 1
    older = look(make_version_1(tmp_path / "older"))
    assert bad(older).keys() == {"schema"}
    assert doctor.exit_code(older) == 0
    assert {finding.check for finding in older} >= {"integrity"}
    assert "accounting" not in {finding.check for finding in older}


def test_a_directory_that_others_may_use(stopped: Path) -> None:
    """Modes, links and leftovers are named, each with what to do."""
    stopped.chmod(0o644)
    stopped.parent.chmod(0o755)
    stopped.with_name("events.db.before-v2").touch(0o600)
    stopped.with_name("events.db.before-v3.partial").touch(0o600)
    found = [finding for finding in look(stopped) if finding.check == "directory"]
    assert [finding.fix.split()[0] for finding in found] == ["chmod", "chmod", "remove", "remove"]
    assert doctor.exit_code(found) == 0
    os.link(stopped, stopped.parent.parent / "second name")
    linked = look(stopped)
    assert any("is a link" in finding.text and finding.status is Status.FAIL for finding in linked)


@pytest.mark.parametrize(
    ("number", "status"),
    [(0x6969, Status.FAIL), (0x01021997, Status.FAIL), (0x01021994, Status.WARN), (None, Status.WARN)],
)
def test_file_systems_that_are_none_for_a_log(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, number: int | None, status: Status
) -> None:
    """NFS and its like fail; what goes away with a reboot or a container, or is not known, is a warning."""
    monkeypatch.setattr(doctor, "file_system_of", lambda _directory: number)
    assert [finding.status for finding in look(stopped) if finding.check == "file system"] == [status]


def test_the_file_system_is_asked_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc is one whose number is known; elsewhere than on Linux nothing is known."""
    monkeypatch.undo()
    assert doctor.file_system_of(Path("/proc")) == 0x9FA0
    assert doctor.file_system_of(Path("/nowhere")) is None


@pytest.mark.parametrize(("free", "status"), [(100, Status.FAIL), (400, Status.WARN), (100_000, Status.OK)])
def test_room_on_the_disk(stopped: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: Status) -> None:
    """Below what is to stay free it fails, as the server refuses records then; somewhat above it is a warning."""
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_bavail=free, f_frsize=1024 * 1024))
    assert [finding.status for finding in look(stopped) if finding.check == "disk"] == [status]


@pytest.mark.parametrize(
    ("seconds", "status", "says"),
    [
        (0.000_002, Status.WARN, "after 2 us"),
        (0.000_4, Status.OK, "after 400 us"),
        (0.008, Status.OK, "after 8.0 ms"),
        (0.025, Status.WARN, "after 25.0 ms"),
    ],
)
def test_a_disk_that_is_slow_or_none(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, status: Status, says: str
) -> None:
    """Above 20 ms every acknowledgement is slow; below 20 us nothing was made durable. Both are warnings."""
    monkeypatch.setattr(doctor, "fdatasync", lambda *_, **__: [seconds] * 50)
    (found,) = (finding for finding in look(stopped) if finding.check == "fdatasync")
    assert (found.status, bool(found.fix)) == (status, status is Status.WARN)
    assert says in found.text


def test_the_disk_is_timed_beside_the_log(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some dozens of times, also beside what a killed process has left, and nothing stays there."""
    monkeypatch.setattr(doctor, "fdatasync", fdatasync)
    (stopped.parent / PROBE_FILE).write_bytes(b"left behind")
    assert len(fdatasync(stopped.parent, 0.0)) == LEAST_SAMPLES
    assert len(fdatasync(stopped.parent, 0.0, patience_s=0.0)) == 2
    (found,) = (finding for finding in look(stopped) if finding.check == "fdatasync")
    assert re.fullmatch(r"4 kB are durable after [\d.]+ [mu]s \(p99 [\d.]+ [mu]s\)", found.text)
    assert not (stopped.parent / PROBE_FILE).exists()


@pytest.mark.parametrize(
    ("number", "status", "fix"),
    [
        (errno.ENOSPC, Status.FAIL, "make room"),
        (errno.EROFS, Status.FAIL, "mount the disk writable"),
        (errno.EACCES, Status.WARN, "as the user whose directory it is"),
    ],
)
def test_a_disk_that_cannot_be_timed(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: Status, fix: str
) -> None:
    """A full disk and one that turned read-only fail in words, and the other checks go on."""

    def refuse(*_: object, **__: object) -> list[float]:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(doctor, "fdatasync", refuse)
    found = look(stopped)
    (one,) = (finding for finding in found if finding.check == "fdatasync")
    assert (one.status, os.strerror(number) in one.text, fix in one.fix) == (status, True, True)
    assert [finding.check for finding in found] == CHECKS


def test_offline_no_destination_is_asked(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else is looked at as ever."""

    def never(_destinations: object) -> list[Finding]:
        raise AssertionError("a destination was asked")

    monkeypatch.setattr(reach, "look", never)
    found = list(doctor.examine(stopped.parent, ready, LATER_MS, offline=True))
    assert [finding.check for finding in found] == [check for check in CHECKS if check != "destination"]


def test_the_file_of_destinations_is_wrong(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its problems are told as those of the settings, and nobody is asked."""
    monkeypatch.delenv("WALBATCH_DESTINATION")
    monkeypatch.setenv("WALBATCH_DESTINATIONS_FILE", "nowhere.toml")
    found = look(stopped)
    assert [f.status for f in found if f.check == "settings"] == [Status.FAIL]
    assert "nowhere.toml" in bad(found)["settings"]
    assert "destination" not in {finding.check for finding in found}


async def test_a_destination_in_trouble(directory: Path, clock: FakeClock) -> None:
    """What waits, for how long, and the destination's last error; it is a warning, since it goes on by itself."""
    async with open_log(directory, clock) as log:
        await log.append(events("a", clock))
        batch = await log.fetch(EVENTS, NOW)
        await log.settle(settlement(batch, [RETRY], Condition(State.OPEN, 14, None, "503 Service Unavailable")))
    text = bad(look(log.path, now_ms=clock.wall_ms() + 90_000))["delivery"]
    assert text == "there: 1 pending, the oldest for 1m30s; open after 14 failures: 503 Service Unavailable"


async def test_a_destination_that_is_paused(directory: Path, clock: FakeClock) -> None:
    """A person did it, perhaps another one, and only a person ends it."""
    async with open_log(directory, clock) as log:
        await log.append(events("a", clock))
        await log.pause("there", clock.wall_ms())
    found = bad(look(log.path, now_ms=clock.wall_ms()))["delivery"]
    assert found == "there: 1 pending, the oldest for 0s; paused by a person since 2023-11-14T22:13:20.000Z"


def test_what_waits_for_too_long(stopped: Path, clock: FakeClock) -> None:
    """Also if the destination is well, or is not served any more."""
    assert "oldest for 2h" in bad(look(stopped, now_ms=clock.wall_ms() + 7_200_000))["delivery"]


def test_a_clock_that_was_set_back(stopped: Path, clock: FakeClock) -> None:
    """Records from the future are told."""
    assert "to come" in bad(look(stopped, now_ms=clock.wall_ms() - 3_600_000))["clock"]


def test_all_settings_that_are_wrong_are_told(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a line, and the other checks go on in the directory that was asked for."""
    monkeypatch.setenv("WALBATCH_BATCH_SIZE", "many")
    monkeypatch.setenv("WALBATCH_RETENTION", "soon")
    found = look(stopped)
    assert [f.status for f in found if f.check == "settings"] == [Status.FAIL, Status.FAIL]
    assert [f.status for f in found if f.check == "integrity"] == [Status.OK]
    assert doctor.exit_code(found) == 1


def test_programs_that_will_not_do(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An SQLite with the WAL-reset bug fails, or warns if it was allowed; a slow protobuf is a warning."""
    monkeypatch.setattr(driver, "SQLITE_VERSION", "3.46.1")
    monkeypatch.setattr(api_implementation, "Type", lambda: "python")
    assert bad(look(stopped)).keys() == {"sqlite", "programs"}
    assert doctor.exit_code(look(stopped)) == 1
    monkeypatch.setenv("WALBATCH_ALLOW_AFFECTED_SQLITE", "true")
    assert doctor.exit_code(look(stopped)) == 0


def test_places_without_a_log(tmp_path: Path) -> None:
    """A directory that is not there, or is empty, is no failure: the first start makes it."""
    (tmp_path / "empty").mkdir(mode=0o700)
    for directory in (tmp_path / "nowhere", tmp_path / "empty"):
        found = list(doctor.examine(directory, ready, LATER_MS))
        assert found[-1].status is Status.WARN
        assert "walbatch serve" in found[-1].fix
        assert doctor.exit_code(found) == 0


async def test_a_check_is_given_up_before_the_servers_disk_is_full(
    log: SqliteLog, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write-ahead log that grows while the doctor reads ends the reading, with a warning."""
    await log.append([event(f"{n}", clock) for n in range(500)])
    monkeypatch.setattr(diagnosis, "MAX_WAL_BYTES", 0)
    monkeypatch.setattr(diagnosis, "_STEPS_BETWEEN_LOOKS", 50)
    found = bad(list(diagnosis.examine(log.path.parent, serving=True, now_ms=LATER_MS)))
    assert "given up" in found["integrity"]


def test_a_server_that_starts_meanwhile_is_looked_at_as_one(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of a log without an owner counts only if there was none to the end."""
    looks: list[bool] = []
    examine: Callable[..., object] = diagnosis.examine
    owner = Ownership(stopped.parent)

    def watched(directory: Path, *, serving: bool, now_ms: int) -> object:
        looks.append(serving)
        if len(looks) == 1:
            owner.__enter__()
        return examine(directory, serving=serving, now_ms=now_ms)

    monkeypatch.setattr(diagnosis, "examine", watched)
    list(doctor.examine(stopped.parent, ready, LATER_MS))
    owner.__exit__(None, None, None)
    assert looks == [False, True]
