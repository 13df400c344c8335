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
)
PEERS = ("persist-queue", "NATS JetStream", "Redis stream")


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """Return what one quick run of everything prints."""
    result = subprocess.run(
        [sys.executable, str(BENCH), "--quick"], capture_output=True, text=True, check=False, timeout=220
    )
    assert not result.stderr
    assert result.returncode == 0
    return result.stdout.splitlines()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("case", RATES)
def test_every_rate_is_measured_beside_another(lines: list[str], case: str) -> None:
    """Both sides run, and the load reaches them; how fast is no matter of a test."""
    found = [line for line in lines if line.startswith(f"{case} ") and " ev/s " in line]
    assert len(found) >= RATES[case]
    for line in found:
        ours, theirs = (float(rate.replace(",", "")) for rate in re.findall(r"([\d,.]+) ev/s", line))
        assert ours > 0
        assert theirs > 0


@pytest.mark.timeout(240)
@pytest.mark.parametrize("case", NUMBERS)
def test_every_limit_has_its_number(lines: list[str], case: str) -> None:
    """What is held against a limit of its own is measured, too."""
    (line,) = (line for line in lines if line.startswith(case))
    assert re.search(r"  [\d,]+\.?\d*( ms| s| MiB| % of a core)?( |$)", line)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_is_measured_or_named_as_missing(lines: list[str], peer: str) -> None:
    """Nothing is left out in silence: a tool that is not installed is named in its row."""
    found = [line for line in lines if peer in line]
    assert len(found) == 2
    for line in found:
        assert len(re.findall(r"[\d,.]+ ev/s", line)) == 2 or "is not installed: bench/tools.sh" in line
