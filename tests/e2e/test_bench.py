"""The benchmark of the README, cut short: it measures every case, and says what it says there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

BENCH = Path(__file__).parents[2] / "bench" / "run.py"
CASES = ("unary, 1 in flight", "unary, 10 in flight", "unary, 64 in flight", "batches of 50", "stream of batches of 50")


@pytest.mark.timeout(240)
def test_the_benchmark_prints_a_rate_for_every_case() -> None:
    """Both servers run, load reaches them, and the backlog drains; how fast is no matter of a test."""
    result = subprocess.run(
        [sys.executable, str(BENCH), "--rounds", "1", "--seconds", "0.3", "--drain", "2000"],
        capture_output=True,
        text=True,
        check=True,
    )
    for case in CASES:
        line = next(line for line in result.stdout.splitlines() if line.startswith(case))
        ceiling, ours = (float(rate.replace(",", "")) for rate in re.findall(r"([\d,]+) ev/s", line))
        assert ceiling > 0
        assert ours > 0
    assert re.search(r"^drain of 2,000 or more +[\d,]+ ev/s$", result.stdout, re.MULTILINE)
    assert not result.stderr
