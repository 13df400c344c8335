"""Kill the server at one call after the other, from its first start to its last checkpoint, under load."""

from __future__ import annotations

import faulthandler
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from kill_sweep import MOST_REPEATS_PER_KILL, Plan, plans, sweep

KILLS_PER_DIRECTORY = 100
PHASES = {"start-up", "append", "settle", "purge", "checkpoint", "shutdown"}
"""What the server must have been doing at some of many kills."""

CONTROL = [Plan(90), Plan(120), Plan(150)]

pytestmark = pytest.mark.crash


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2])  # one for each of two workers
def test_nothing_acknowledged_is_lost_by_a_kill_at_any_call(
    tmp_path: Path, seed: int, rounds: Callable[[int, int], int], matrix: Callable[..., None]
) -> None:
    """Before, in the middle of and after each write, fsync, truncation and removal of the database's files.

    The same kills and the same checker find what a server loses that answers before the commit.
    """
    faulthandler.cancel_dump_traceback_later()  # it is long because there is much to do; the limit above still holds
    planned = list(plans(rounds(20, 510), seed))
    calls, where = Counter[str](), Counter[str]()
    acked = duplicated = 0
    for first in range(0, len(planned), KILLS_PER_DIRECTORY):
        part = planned[first : first + KILLS_PER_DIRECTORY]
        swept = sweep(tmp_path / str(first), part, seed * 1000 + first)
        print(swept.verdict.summary())
        assert not swept.verdict.complaints(most_repeats=MOST_REPEATS_PER_KILL * swept.kills)
        assert len(swept.verdict.acked) > len(part)
        calls, where = calls + swept.calls, where + swept.where
        acked += len(swept.verdict.acked)
        duplicated += len(swept.verdict.duplicated)
    early = sweep(tmp_path / "early", CONTROL, seed, variant=["early_ack_server"]).verdict
    assert early.lost
    phases = {phase for what in where for phase in what.split("+")}
    assert where.total() < KILLS_PER_DIRECTORY or phases >= PHASES, where
    at, during = (", ".join(f"{name} {number}" for name, number in c.most_common()) for c in (calls, where))
    matrix(
        fault=f"SIGKILL at {at}; during {during}",
        rounds=where.total(),
        acked=acked,
        lost=0,
        duplicated=duplicated,
        control=f"answers before the commit: {early.losses()}",
    )
