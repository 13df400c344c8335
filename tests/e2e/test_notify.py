"""The server under a service manager: what it is told, and when, over its own socket."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from faultshim import SYNC
from notify_socket import Facts, NotifySocket
from programs import WALBATCH, Site, eventually, site
from shimmed import shimmed

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

pytestmark = pytest.mark.e2e

HUNG_LOOP = (sys.executable, str(Path(__file__).parent.parent / "support" / "hung_loop_server.py"))
WATCHDOG_S = 1.0


@pytest.fixture(params=["path", "abstract"])
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[NotifySocket]:
    """A service manager that every program of the test is told of, with a watchdog."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@walbatch-{os.getpid()}-{tmp_path.name}"
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    monkeypatch.setenv("WATCHDOG_USEC", str(round(WATCHDOG_S * 1e6)))
    with NotifySocket(name) as socket:
        yield socket


def is_ready(facts: Facts) -> bool:
    """Whether the start is over."""
    return "READY" in facts


def is_stopping(facts: Facts) -> bool:
    """Whether the stop has begun."""
    return "STOPPING" in facts


def is_silent(manager: NotifySocket) -> bool:
    """Whether nothing comes within the time after which a manager would restart the server."""
    try:
        manager.next(WATCHDOG_S)
    except TimeoutError:
        return True
    return False


def track(here: Site) -> pb.TrackEventResponse:
    """Send one event, without waiting for a server that is not there."""
    with grpc.insecure_channel(f"127.0.0.1:{here.grpc_port}") as channel:
        event = pb.Event(name="Tick", distinct_id="u1", properties_json="{}")
        return AnalyticsServiceStub(channel).TrackEvent(pb.TrackEventRequest(event=event), timeout=10)


def test_from_the_start_to_the_stop(manager: NotifySocket, tmp_path: Path) -> None:
    """READY comes when an event is answered and the commands find the server, WATCHDOG until the end, STOPPING at TERM.

    Before it is ready it asks for time; what it says for people names the address.
    """
    with site(tmp_path) as here:
        here.sink()
        server = here.start(WALBATCH, "serve")
        *starting, ready = manager.until(is_ready)
        assert track(here).durability == pb.DURABILITY_FSYNCED
        health = here.run("health", check=False)
        assert (health.stdout, health.stderr) == ("ok\n", ""), server.output()
        assert {"STATUS": "Starting: reading the log"} in starting
        assert any("EXTEND_TIMEOUT_USEC" in facts for facts in starting)
        assert ready["STATUS"] == f"Accepting records on 127.0.0.1:{here.grpc_port}"

        assert manager.next() == manager.next() == manager.next() == {"WATCHDOG": "1"}

        server.signal(signal.SIGTERM)
        *serving, stopping = manager.until(is_stopping)
        assert all(facts == {"WATCHDOG": "1"} for facts in serving)
        assert stopping["STATUS"] == "Stopping: one last flush, at most 25 s"
        assert server.wait() == 0


def test_a_refusal_is_told_to_people(manager: NotifySocket, tmp_path: Path) -> None:
    """A server that has no room is up, so it is ready; its status says what is wrong, without a restart loop."""
    with site(tmp_path, min_free_disk="1000TiB") as here:
        server = here.start(WALBATCH, "serve")
        manager.until(is_ready)
        refused = manager.until(lambda facts: "Refusing new records" in facts.get("STATUS", ""))[-1]
        assert "are kept free" in refused["STATUS"]
        server.stop()
        assert is_stopping(manager.until(is_stopping)[-1])


def test_a_hung_event_loop_gives_no_sign_of_life(manager: NotifySocket, tmp_path: Path) -> None:
    """The manager would restart it: nothing comes for as long as it waits."""
    with site(tmp_path) as here:
        server = here.serve(entry=HUNG_LOOP)
        manager.until(is_ready)
        server.signal(signal.SIGUSR1)
        eventually(lambda: is_silent(manager), "no sign of life for as long as the manager waits")
        assert server.process.poll() is None, "it is silent, and has not ended"


def test_a_disk_that_hangs_is_no_hung_event_loop(manager: NotifySocket, tmp_path: Path) -> None:
    """A commit or a checkpoint waits in its thread, however long; a restart would not help the disk."""
    with shimmed(tmp_path) as loaded:
        loaded.shim.hang(SYNC)
        waiting = loaded.stub.Ingest.future(pb.IngestRequest(records=loaded.attempted("one")), timeout=60)
        eventually(lambda: loaded.shim.waiting, "a commit waits for the disk")
        manager.waiting()
        for _ in range(4):
            manager.until(lambda facts: "WATCHDOG" in facts)
        loaded.shim.disarm()
        waiting.result()


def test_a_wrong_setting_is_never_ready(manager: NotifySocket, tmp_path: Path) -> None:
    """It ends with 78, which the unit knows not to try again."""
    with site(tmp_path, batch_size="none") as here:
        assert here.start(WALBATCH, "serve").wait() == 78
        assert not any(map(is_ready, manager.waiting()))
