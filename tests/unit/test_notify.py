"""What the service manager is told, read from a real socket."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from notify_socket import NotifySocket
from structlog.testing import capture_logs

from walbatch.notify import INTERVAL_S, Manager
from walbatch.testing.clock import FakeClock


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_each_fact_is_one_datagram(tmp_path: Path, *, abstract: bool) -> None:
    """The manager gets lines of NAME=value, at a path or at an abstract name, which is written with @."""
    name = f"@walbatch-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with NotifySocket(name) as socket, Manager(name) as manager:
        manager.status("Starting")
        manager.ready("Accepting")
        manager.stopping("Stopping")
        assert socket.next() == {"STATUS": "Starting"}
        assert socket.next() == {"READY": "1", "STATUS": "Accepting"}
        assert socket.next() == {"STOPPING": "1", "STATUS": "Stopping"}


def test_a_status_is_one_line(tmp_path: Path) -> None:
    """A line break within it would begin another fact."""
    with NotifySocket(str(tmp_path / "notify")) as socket, Manager(socket.name) as manager:
        manager.status("Refusing\nREADY=1")
        assert socket.next() == {"STATUS": "Refusing READY=1"}


async def test_signs_of_life_come_twice_in_the_time_that_the_watchdog_waits(tmp_path: Path, clock: FakeClock) -> None:
    """Until it is ready each of them extends the time for the start as well."""
    with NotifySocket(str(tmp_path / "notify")) as socket, Manager(socket.name, watchdog_s=30.0) as manager:
        alive = asyncio.create_task(manager.keep_alive(clock))
        assert await clock.sleeper() == 15.0
        assert socket.next() == {"WATCHDOG": "1", "EXTEND_TIMEOUT_USEC": "45000000"}
        manager.ready("Accepting")
        assert "READY" in socket.next()
        await clock.advance(14.9)
        assert socket.waiting() == []
        await clock.advance(0.2)
        assert socket.waiting() == [{"WATCHDOG": "1"}]
        alive.cancel()


async def test_a_start_is_extended_without_a_watchdog_as_well(tmp_path: Path, clock: FakeClock) -> None:
    """Afterwards there is nothing more to say."""
    with NotifySocket(str(tmp_path / "notify")) as socket, Manager(socket.name) as manager:
        alive = asyncio.create_task(manager.keep_alive(clock))
        assert await clock.sleeper() == INTERVAL_S
        assert socket.next() == {"EXTEND_TIMEOUT_USEC": str(round(3e6 * INTERVAL_S))}
        manager.ready("Accepting")
        assert "READY" in socket.next()
        await clock.advance(INTERVAL_S)
        assert socket.waiting() == []
        alive.cancel()


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({"WATCHDOG_USEC": "4000000"}, 2.0),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}, INTERVAL_S),
        ({"WATCHDOG_USEC": "soon"}, INTERVAL_S),
        ({"WATCHDOG_USEC": "0"}, INTERVAL_S),
        ({}, INTERVAL_S),
    ],
)
async def test_the_environment_says_how_often(environ: dict[str, str], interval_s: float, clock: FakeClock) -> None:
    """A watchdog for another process, or none that can be understood, is none."""
    with Manager.of(environ) as manager:
        alive = asyncio.create_task(manager.keep_alive(clock))
        assert await clock.sleeper() == interval_s
        alive.cancel()


def test_nobody_is_told_without_a_socket() -> None:
    """Started by hand, or by a manager that asks for nothing, the server says nothing and complains of nothing."""
    with capture_logs() as logs, Manager.of({}) as manager:
        manager.ready("Accepting")
        manager.stopping("Stopping")
    assert logs == []


async def test_what_a_manager_has_not_heard_is_told_again(tmp_path: Path, clock: FakeClock) -> None:
    """Nothing waits for one that is gone: it is logged once, and hears everything once it is back."""
    name = str(tmp_path / "notify")
    with Manager(name, watchdog_s=30.0) as manager:
        with capture_logs() as logs:
            manager.ready("Accepting")
            manager.status("Refusing")
        with NotifySocket(name) as socket:
            alive = asyncio.create_task(manager.keep_alive(clock))
            assert await clock.sleeper() == 15.0
            assert socket.next() == {"READY": "1", "STATUS": "Refusing", "WATCHDOG": "1"}
            await clock.advance(15.0)
            assert socket.next() == {"WATCHDOG": "1"}
            alive.cancel()
    assert [(line["event"], line["log_level"]) for line in logs] == [("notify.failed", "warning")]


def test_a_manager_that_does_not_read_holds_up_nothing(tmp_path: Path) -> None:
    """Its queue takes so many datagrams; the last status is what it hears when it reads again."""
    with NotifySocket(str(tmp_path / "notify")) as socket, Manager(socket.name) as manager:
        for number in range(2000):
            manager.status(f"number {number}")
        assert len(socket.waiting()) < 2000
        manager.status("the last")
        assert socket.waiting() == [{"STATUS": "the last"}]
