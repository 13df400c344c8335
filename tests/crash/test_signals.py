"""Stop signals under load, while the destination answers and while it hangs."""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from bad_destination import destinations
from probe import UNKNOWN
from programs import Program, eventually, site
from settled import settled_account
from steady_client import steady
from total_queue import judge
from watching import drained

pytestmark = pytest.mark.crash

BROKEN = (sys.executable, str(Path(__file__).parent.parent / "support" / "broken_server.py"))
GRACE_S = 3.0
SLACK_S = 2.0
"""For the end of the process itself, on a machine that is busy."""
IN_FLIGHT, LARGEST_BATCH = 3, 50
SETTINGS = {
    "shutdown_grace": f"{GRACE_S}s",
    "retry_base": "50ms",
    "retry_max": "200ms",
    "flush_interval": "50ms",
    "max_in_flight": IN_FLIGHT - 1,  # of events, beside one request with updates
    "batch_max": LARGEST_BATCH,
}


def stop(server: Program, *, twice: bool) -> float:
    """Send SIGTERM, once or twice, check the exit code, and return how long the end took after the last one."""
    server.signal(signal.SIGTERM)
    if twice:
        eventually(lambda: "service.stopping" in server.output(), "it is stopping")
        server.signal(signal.SIGTERM)
    began_s = time.monotonic()
    code = server.wait()
    assert code == (128 + signal.SIGTERM if twice else 0), server.output()
    return time.monotonic() - began_s


@pytest.mark.timeout(120)
def test_stop_signals_under_load(
    tmp_path: Path, matrix: Callable[..., None], rounds: Callable[[int, int], int]
) -> None:
    """One signal: exit 0 within the grace; a second one: exit 143 within a second; and nothing is lost by either."""
    times = rounds(1, 3)
    moments = random.Random(20261123)
    with site(tmp_path, **SETTINGS) as here, destinations() as there:
        one = there.add(here.out)
        here.delivers_to(one.port)
        server = here.serve()
        with steady(f"127.0.0.1:{here.grpc_port}", tmp_path / "client.log", updates=True) as client:
            for hung, twice in [(False, False), (True, False), (True, True)] * times:
                there.switch(one, "no answer" if hung else "good")
                acked = client.acked
                eventually(lambda: client.acked > acked + 100, "the client goes on")  # noqa: B023
                eventually(lambda: one.arrivals, "the destination is asked")
                threading.Event().wait(moments.uniform(0, 0.1))  # the moment is the experiment, not a hope
                took_s = stop(server, twice=twice)
                assert took_s < (1.0 if twice else GRACE_S) + SLACK_S, server.output()
                server = here.serve()
        assert {failure.partition(":")[0] for failure in client.failures} <= {code.name for code in UNKNOWN}, (
            client.failures
        )
        there.switch(one, "good")
        verdict = settled_account(here, [client.log])
    assert not verdict.dead
    assert not verdict.complaints(most_repeats=times * IN_FLIGHT * LARGEST_BATCH)
    matrix(
        fault="SIGTERM, and a second one, under load and with a hung destination",
        rounds=3 * times,
        **verdict.counts(),
        control=f"answered before the commit: {lost_by_early_answers(tmp_path / 'control')} lost",
    )


def lost_by_early_answers(path: Path) -> int:
    """Return how many records are lost at a stop by a server that acknowledges before it stores."""
    path.mkdir()
    with site(path, **SETTINGS) as here, destinations() as there:
        one = there.add(here.out)
        here.delivers_to(one.port)
        server = here.serve(entry=(*BROKEN, "answer_long_before_the_commit"))
        with steady(f"127.0.0.1:{here.grpc_port}", path / "client.log") as client:
            eventually(lambda: client.acked > 100, "the client sends")
            server.signal(signal.SIGTERM)
            server.wait()
            here.serve()
        drained(here)
        lost = len(judge([client.log.read_text()], one.lines()).lost)
    assert lost
    return lost
