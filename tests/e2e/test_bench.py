"""The benchmark of docs/performance.md, with small sizes: it measures every case, and says what it says there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

BENCH = Path(__file__).parents[2] / "bench" / "run.py"
RATES = {
    "TrackEvent, 64 in flight": 1,
    "TrackEvent, 10 callers": 1,
    "Ingest with 50 events, 8 callers": 1,
    "IngestStream, 50 events a request": 1,
    "drain of 20,000 events": 2,
    "Ingest with 50 events at 50,000 pending": 1,
    "drain at 50,000 pending": 1,
}
"""What is measured as a rate beside another, and beside how many others at least, with no tool installed."""
NUMBERS = (
    "TrackEvent, 1 caller, p50",
    "TrackEvent at half the rate, beside a drain",
    "start-up at 50,000 pending",
    "`walbatch stats` at 50,000 pending",
    "memory at 50,000 pending",
    "memory while that drains",
    "growth of it",
    "CPU at rest",
    "bytes written for each stored byte, Ingest",
    "bytes written for each stored byte, TrackEvent",
    "bytes written if deleted while idle, Ingest",
    "bytes written if deleted while idle, TrackEvent",
)
PEERS = ("persist-queue SQLiteAckQueue", "NATS JetStream", "Redis stream")
MISSING = "is not installed: bench/tools.sh"
"""Nothing is left out in silence."""


@pytest.mark.timeout(240)
def test_the_benchmark_measures_every_case() -> None:
    """Servers, loads and peers run, and every row has its number; how fast is no matter of a test."""
    result = subprocess.run([sys.executable, str(BENCH), "--quick"], capture_output=True, text=True, check=False)
    assert not result.stderr
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    for case, many in RATES.items():
        found = [rates(line) for line in lines if line.startswith(f"{case} ") and rates(line)]
        assert len(found) >= many, case
        assert all(ours > 0 and theirs > 0 for ours, theirs in found), case
    for case in NUMBERS:
        (line,) = (line for line in lines if line.startswith(case))
        assert re.search(r"  [\d,]+\.?\d*( ms| s| MiB| % of a core)?( |$)", line), line
    for peer in PEERS:
        found_by = [line for line in lines if peer in line]
        assert len(found_by) == 2, peer
        assert all(rates(line) or MISSING in line for line in found_by), peer


def rates(line: str) -> list[float]:
    """Return both rates of a row."""
    return [float(rate.replace(",", "")) for rate in re.findall(r"([\d,.]+) ev/s", line)]
