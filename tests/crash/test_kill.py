"""Kill the server at random moments under load, and account for every event afterwards."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from load import Load
from programs import eventually, site
from total_queue import Verdict
from with_control import EARLY, Entry, with_control

CLIENTS = 3

pytestmark = pytest.mark.crash


def kill_again_and_again(path: Path, kills: int, entry: Entry) -> Verdict:
    """Run clients against a server that is killed `kills` times, then settle the account."""
    moments = random.Random(20261123)
    with site(path, retry_base="50ms", retry_max="200ms") as here:
        here.sink("--fail-rate", "0.1", "--latency", "5ms", "--seed", "20261123")
        server = here.serve(entry=entry)
        load = Load(here, CLIENTS)
        for _ in range(kills):
            load.goes_on(2000)
            threading.Event().wait(moments.uniform(0, 0.15))  # the moment is the experiment, not a hope
            server.kill()
            server = here.start(*entry)
            if moments.random() < 0.2:  # now and then also during the recovery itself
                threading.Event().wait(moments.uniform(0, 0.6))
                server.kill()
                server = here.start(*entry)
            eventually(partial(here.is_ready, server), "the server is ready again")
        load.end()
        server.kill()
        here.serve()
        return load.settled()


@pytest.mark.timeout(240)
def test_nothing_acknowledged_is_lost_by_kills_of_the_installed_program(
    tmp_path: Path, rounds: Callable[[int, int], int], matrix: Callable[..., None]
) -> None:
    """Every acknowledged record arrives, updates in order; a server that acknowledges too early is caught."""
    kills = rounds(2, 20)
    verdict, control = with_control(tmp_path, kills, EARLY, kill_again_and_again)
    assert len(verdict.acked) > 10 * kills
    assert verdict.complaints() == []
    assert kills < 10 or verdict.duplicated, (
        "no kill fell between a delivery and its settlement: no bytes were compared"
    )
    assert control.lost
    matrix(
        fault="SIGKILL of the installed program at random moments",
        rounds=kills,
        **verdict.counts(),
        control=f"answers before the commit: {control.losses()}",
    )
