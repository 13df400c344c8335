"""Kill the server at random moments under load, and account for every event afterwards."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from load import Load
from programs import WALBATCH, Site, eventually, site
from total_queue import Verdict

SUPPORT = Path(__file__).parent.parent / "support"
CLIENTS = 3

pytestmark = pytest.mark.crash


def kill_again_and_again(here: Site, kills: int, seed: int, entry: tuple[str, ...]) -> Verdict:
    """Run clients against a server that is killed `kills` times, then settle the account."""
    moments = random.Random(seed)
    here.sink("--fail-rate", "0.1", "--latency", "5ms", "--seed", str(seed))
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
    verdict = load.settled()
    print(verdict.summary())
    return verdict


@pytest.mark.timeout(240)
def test_nothing_acknowledged_is_lost_by_kills_of_the_installed_program(
    tmp_path: Path, rounds: Callable[[int, int], int], matrix: Callable[..., None]
) -> None:
    """Every acknowledged record arrives, updates in order; a server that acknowledges too early is caught."""
    kills = rounds(2, 20)
    with site(tmp_path, retry_base="50ms", retry_max="200ms") as here:
        verdict = kill_again_and_again(here, kills, seed=20261123, entry=(WALBATCH, "serve"))
    assert len(verdict.acked) > 10 * kills
    assert verdict.complaints() == []
    assert kills < 10 or verdict.duplicated, (
        "no kill fell between a delivery and its settlement: no bytes were compared"
    )
    control_path = tmp_path / "control"
    control_path.mkdir()
    with site(control_path, retry_base="50ms", retry_max="200ms") as here:
        early = (sys.executable, str(SUPPORT / "early_ack_server.py"))
        control = kill_again_and_again(here, 2, seed=1, entry=early)
    assert control.lost
    matrix(
        fault="SIGKILL of the installed program at random moments",
        rounds=kills,
        acked=len(verdict.acked),
        lost=len(verdict.lost),
        duplicated=len(verdict.duplicated),
        control=f"answers before the commit: {len(control.lost)} of {len(control.acked)} lost",
    )
