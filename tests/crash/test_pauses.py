"""The whole process stands still for seconds, as in a virtual machine that is paused, and goes on."""

from __future__ import annotations

import random
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from bad_destination import BadDestination, destinations
from programs import WALBATCH, Site, eventually, site
from settled import settled_account
from steady_client import SteadyClient
from total_queue import Verdict

pytestmark = pytest.mark.crash

BROKEN = (sys.executable, str(Path(__file__).parent.parent / "support" / "broken_server.py"))
IN_FLIGHT, LARGEST_BATCH = 3, 20
SETTINGS = {
    "mixpanel_timeout": "500ms",  # shorter than any pause, so that every timer under way expires in it
    "retry_base": "50ms",
    "retry_max": "200ms",
    "flush_interval": "50ms",
    "max_in_flight": IN_FLIGHT - 1,  # of events, beside one request with updates
    "batch_size": LARGEST_BATCH,
    "batch_max": LARGEST_BATCH,
}


def pause_again_and_again(
    here: Site, one: BadDestination, client: SteadyClient, times: int, entry: Sequence[str]
) -> Verdict:
    """Pause a server under load, drain, and judge."""
    moments = random.Random(20261123)
    here.delivers_to(one.port)
    one.latency_s = 0.1  # so that some request is always between being taken and being answered
    server = here.serve(entry=entry)
    client.start()
    for _ in range(times):
        acked = client.acked
        eventually(lambda: client.acked > acked + 200, "the client goes on")  # noqa: B023
        server.signal(signal.SIGSTOP)
        threading.Event().wait(moments.uniform(1, 2))  # how long it stands still is the experiment, not a hope
        server.signal(signal.SIGCONT)
        eventually(lambda: here.is_ready(server), "it is ready", 2)
    client.stop()
    return settled_account(here, [client.log])


@pytest.mark.timeout(120)
def test_a_process_that_stood_still(
    tmp_path: Path, matrix: Callable[..., None], rounds: Callable[[int, int], int]
) -> None:
    """It goes on at once, loses nothing, and delivers twice at most what was on its way when it stopped."""
    times = rounds(2, 8)
    verdict = paused(tmp_path / "row", times, (WALBATCH, "serve"))
    assert not verdict.dead
    assert not verdict.complaints(most_repeats=bound(times))
    control = paused(tmp_path / "control", 1, (*BROKEN, "forget_what_was_delivered"))
    assert control.repeats > bound(1)
    matrix(
        fault="SIGSTOP for seconds, then SIGCONT, under load",
        rounds=times,
        **verdict.counts(),
        control=f"settlements forgotten: {control.repeats} delivered again, {bound(1)} allowed",
    )


def bound(times: int) -> int:
    """Return how many records may arrive twice: all that can be on their way, each time."""
    return times * IN_FLIGHT * LARGEST_BATCH


def paused(path: Path, times: int, entry: Sequence[str]) -> Verdict:
    """Do it all on a site of its own."""
    path.mkdir()
    with site(path, **SETTINGS) as here, destinations() as there:
        client = SteadyClient(f"127.0.0.1:{here.grpc_port}", path / "client.log", updates=True)
        try:
            return pause_again_and_again(here, there.add(here.out), client, times, entry)
        finally:
            client.stop()
