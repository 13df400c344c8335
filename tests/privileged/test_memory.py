"""The kernel ends the server because memory is short."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from load import Load
from memory_limit import memory_limit
from programs import site
from total_queue import Verdict
from watching import MIB
from with_control import EARLY, Entry, with_control

LIMIT = 384 * MIB
SETTINGS = {"batch_max": 50, "max_in_flight": 1, "retry_base": "50ms", "retry_max": "200ms"}
IN_FLIGHT = 2 * 50
"""Records on their way at most: one batch of events, and one of updates."""


def kill_for_memory(path: Path, times: int, entry: Entry) -> Verdict:
    """Let memory run out under load `times` times, then drain, and judge."""
    with memory_limit(LIMIT) as limit, site(path, **SETTINGS) as here:
        limited = (*limit.entry, *entry)
        sink = here.sink("--latency", "200ms")
        server = here.serve(entry=limited)
        load = Load(here)
        for _ in range(times):
            load.goes_on()
            limit.exceed()
            assert server.wait() == -signal.SIGKILL, server.output()
            server = here.serve(entry=limited)
        load.end()
        sink.kill()
        here.sink()
        verdict = load.settled()
        server.kill()
        return verdict


@pytest.mark.timeout(180)
def test_a_kill_for_lack_of_memory_loses_nothing(
    tmp_path: Path, rounds: Callable[[int, int], int], matrix: Callable[..., None]
) -> None:
    """It is a kill like any other: what was acknowledged is delivered after the next start."""
    times = rounds(2, 10)
    verdict, control = with_control(tmp_path, times, EARLY, kill_for_memory)
    matrix(
        fault="killed for lack of memory",
        rounds=times,
        **verdict.counts(),
        control=f"answers before the commit: {control.losses()}",
    )
    assert verdict.acked
    assert not verdict.complaints(most_repeats=(times + 1) * IN_FLIGHT)
    assert control.lost
