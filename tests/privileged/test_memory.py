"""The kernel ends the server because memory is short."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from file_systems import MIB
from load import Load
from memory_limit import MemoryLimit, memory_limit
from programs import WALBATCH, Site, site
from total_queue import Verdict

EARLY = (sys.executable, str(Path(__file__).parent.parent / "support" / "early_ack_server.py"))
LIMIT = 384 * MIB
SETTINGS = {"batch_max": 50, "max_in_flight": 1, "retry_base": "50ms", "retry_max": "200ms"}
IN_FLIGHT = 2 * 50
"""Records on their way at most: one batch of events, and one of updates."""


def kill_for_memory(here: Site, limit: MemoryLimit, times: int, entry: tuple[str, ...]) -> Verdict:
    """Let memory run out under load `times` times, then drain, and judge."""
    entry = (*limit.entry, *entry)
    sink = here.sink("--latency", "200ms")
    server = here.serve(entry=entry)
    load = Load(here)
    for _ in range(times):
        load.goes_on()
        limit.exceed()
        assert server.wait() == -signal.SIGKILL, server.output()
        server = here.serve(entry=entry)
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
    verdicts = {}
    for name, count, entry in (("walbatch", times, (WALBATCH, "serve")), ("control", 2, EARLY)):
        (tmp_path / name).mkdir()
        with (
            memory_limit(LIMIT) as limit,
            site(tmp_path / name, **SETTINGS) as here,
        ):
            verdicts[name] = kill_for_memory(here, limit, count, entry)
    verdict, control = verdicts["walbatch"], verdicts["control"]
    matrix(
        fault="killed for lack of memory",
        rounds=times,
        acked=len(verdict.acked),
        lost=len(verdict.lost),
        duplicated=len(verdict.duplicated),
        control=f"answers before the commit: {len(control.lost):,} of {len(control.acked):,} lost",
    )
    assert verdict.acked
    assert not verdict.complaints(most_repeats=(times + 1) * IN_FLIGHT)
    assert control.lost
