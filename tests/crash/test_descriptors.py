"""More connections than the server may have file descriptors."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from load import Load
from probe import track
from programs import WALBATCH, Site, eventually, site

pytestmark = pytest.mark.crash

LIMIT = 80
IDLE_CONNECTIONS = 250


@contextmanager
def idle_connections(here: Site) -> Iterator[None]:
    """Hold connections open that say nothing."""
    held: list[socket.socket] = []
    try:
        for _ in range(IDLE_CONNECTIONS):
            with suppress(OSError):
                held.append(socket.create_connection(("127.0.0.1", here.grpc_port), timeout=1))
        yield
    finally:
        for connection in held:
            connection.close()


def accepted(here: Site) -> bool:
    """Say whether a new client's event is accepted."""
    return track(here).code is grpc.StatusCode.OK


def crowd_out(here: Site, load: Load, times: int) -> int:
    """Take the descriptors and give them back, several times; return how often a new client found none."""
    turned_away = 0
    for _ in range(times):
        with idle_connections(here):
            turned_away += not accepted(here)
            load.goes_on(5000)
        eventually(lambda: accepted(here), "new clients are served again")
    return turned_away


def test_idle_connections_beyond_the_limit_cost_nothing(
    tmp_path: Path, rounds: Callable[[int, int], int], matrix: Callable[..., None]
) -> None:
    """New clients wait, those that are connected go on, nothing acknowledged is lost, and all is well afterwards."""
    times = rounds(1, 5)
    with site(tmp_path, retry_base="50ms", retry_max="200ms") as here:
        here.sink()
        server = here.serve(entry=("prlimit", f"--nofile={LIMIT}", WALBATCH, "serve"))
        load = Load(here)
        load.goes_on(5000)
        turned_away = crowd_out(here, load, times)
        load.end()
        assert here.drained()["accepted"]
        assert "Traceback" not in server.output()
        verdict = load.settled()
    (tmp_path / "control").mkdir()
    with site(tmp_path / "control") as here:
        here.serve()
        control = crowd_out(here, Load(here), 1)
    matrix(
        fault="no file descriptor left",
        rounds=times,
        **verdict.counts(),
        control=f"without the limit {control} of 1 new clients turned away, with it {turned_away} of {times}",
    )
    assert turned_away == times
    assert control == 0
    assert verdict.acked
    assert not verdict.complaints()
