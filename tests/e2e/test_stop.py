"""How the server ends: by a signal, in order and in time, without losing anything."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from load import Load
from programs import WALBATCH, eventually, site
from total_queue import judge

pytestmark = pytest.mark.e2e

SUPPORT = Path(__file__).parent.parent / "support"
EVENT = ("send", "--event", "Tick", "--distinct-id", "u1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_flushes_what_waits_and_exits_with_0(tmp_path: Path, number: signal.Signals) -> None:
    """What is pending goes out at once although no batch is due, and the log is left clean."""
    with site(tmp_path, flush_interval="1h") as here:
        here.sink()
        server = here.serve()
        here.run(*EVENT)
        server.signal(number)
        assert server.wait() == 0
        assert len(here.delivered()) == 1
        assert (here.data / "events.db").exists()
        assert not (here.data / "events.db-wal").exists()


COLLECTING = """
import atexit, gc
from importlib.metadata import entry_points
atexit.register(lambda: print("collecting:", gc.isenabled()))
(script,) = entry_points(group="console_scripts", name="walbatch")
script.load()(["serve"])
"""


def test_a_server_frees_what_refers_to_itself(tmp_path: Path) -> None:
    """It starts with Python's collector switched off, and each call that gRPC serves leaves a cycle."""
    with site(tmp_path) as here:
        server = here.serve(entry=(sys.executable, "-c", COLLECTING))
        server.stop()
        assert "collecting: True" in server.output()


def test_a_stop_under_load_loses_nothing(tmp_path: Path) -> None:
    """Clients that send through a stop and a start find every acknowledged event at the destination."""
    with site(tmp_path) as here:
        here.sink()
        server = here.serve()
        load = Load(here, clients=1)
        for _ in range(3):
            load.goes_on(7500)
            assert server.stop() == 0
            server = here.serve()
        load.end()
        here.drained()
        verdict = judge([log.read_text() for log in load.logs], here.delivered_lines())
        assert verdict.acked
        assert not verdict.lost
        assert not verdict.unexpected


def test_a_hung_destination_is_not_waited_for_beyond_the_grace(tmp_path: Path) -> None:
    """The last flush is cut off, the exit is 0 within the grace, and the event goes out after the next start."""
    with site(tmp_path, shutdown_grace="3s") as here:
        hung = here.sink("--latency", "60s")
        server = here.serve()
        here.run(*EVENT)
        eventually(lambda: here.stats()["in_flight"], "the request is under way")
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 3.5
        assert here.stats()["pending"] == 1
        assert here.stats()["destinations"][0]["failures"] == 0, "an interrupted delivery is no failure"
        hung.kill()
        here.sink()
        here.serve()
        assert here.drained()["sent"] == 1


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Whoever insists does not wait for the grace, and loses nothing either."""
    with site(tmp_path, shutdown_grace="60s") as here:
        hung = here.sink("--latency", "60s")
        server = here.serve()
        here.run(*EVENT)
        eventually(lambda: here.stats()["in_flight"], "the request is under way")
        server.signal(signal.SIGTERM)
        eventually(lambda: "service.stopping" in server.output(), "it is stopping")
        server.signal(signal.SIGTERM)
        assert server.wait(2) == 128 + signal.SIGTERM
        hung.kill()
        here.sink()
        here.serve()
        assert here.drained()["sent"] == 1


def test_a_disk_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """The watchdog ends the process when the grace is over, and the next start has everything."""
    with site(tmp_path, shutdown_grace="2s", flush_interval="1h") as here:
        here.sink()
        server = here.serve(entry=(sys.executable, str(SUPPORT / "hung_disk_server.py")))
        here.run(*EVENT)
        began = time.monotonic()
        assert server.stop() == 70
        assert 1.5 < time.monotonic() - began < 5
        assert "nothing acknowledged is lost" in server.output()
        here.serve()
        assert here.drained()["sent"] == 1


def test_a_reader_that_stopped_reading_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """With stdout as the destination and a full pipe the process ends within its grace; what is left stays stored."""
    text = "".join(f'{{"event": "Tick", "properties": {{"text": "{"x" * 250}", "n": {n}}}}}\n' for n in range(1000))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    held_open = os.open(pipe, os.O_RDWR)  # so that neither end waits for the other to open it
    with site(tmp_path, destination="stdout", shutdown_grace="3s") as here:
        server = here.serve(entry=("sh", "-c", f'exec "$0" serve > {pipe}', WALBATCH))
        here.run("send", "-", text=text)
        eventually(lambda: here.stats()["in_flight"], "the pipe is full")
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 6
    os.close(held_open)
