"""Measure walbatch on this machine, beside an empty gRPC handler, and print one table.

Rates depend on the machine and on what else it does: compare the ratios. Servers take turns, each figure is the median
of the rounds, and the load comes from another process. Every OK of walbatch is fsynced; a flusher delivers beside the
ingest, to a destination on this machine that answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PYTHON = sys.executable
WALBATCH = str(Path(PYTHON).with_name("walbatch"))
SINK_PORT = 18_089
CASES = [
    ("unary, 1 in flight", "unary", 1),
    ("unary, 10 in flight", "unary", 10),
    ("unary, 64 in flight", "unary", 64),
    ("batches of 50, 4 in flight", "batch", 4),
    ("stream of batches of 50", "stream", 1),
]


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a process for as long as the block takes."""
    process = subprocess.Popen(command, text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def empty_server() -> Iterator[str]:
    """The ceiling; yields its address."""
    with running([PYTHON, str(HERE / "empty_server.py")], stdout=subprocess.PIPE) as process:
        yield f"127.0.0.1:{(process.stdout or sys.stdin).readline().strip()}"


@contextmanager
def walbatch(directory: Path) -> Iterator[str]:
    """The real thing, with a new log; yields its address."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("WALBATCH_")} | {
        "WALBATCH_DATA_DIR": str(directory),
        "WALBATCH_GRPC_LISTEN": "127.0.0.1:0",
        "WALBATCH_ADMIN_LISTEN": "127.0.0.1:0",
        "WALBATCH_MIXPANEL_TOKEN": "bench",
        "WALBATCH_MIXPANEL_URL": f"http://127.0.0.1:{SINK_PORT}",
        "WALBATCH_LOG_LEVEL": "error",
        "WALBATCH_RETRY_MAX": "1s",
    }
    with running([WALBATCH, "serve"], env=env):
        yield until(lambda: lock(directory).get("grpc"))


def lock(directory: Path) -> dict[str, Any]:
    """Return what the server says of itself."""
    try:
        facts: dict[str, Any] = json.loads((directory / "walbatch.lock").read_text())
    except (OSError, ValueError):
        return {}
    return facts


def until(condition: Callable[[], Any]) -> Any:
    """Wait for a true value."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if value := condition():
            return value
        threading.Event().wait(0.02)
    raise TimeoutError


def null_sink() -> Any:
    """The destination."""
    return running([PYTHON, str(HERE / "null_sink.py"), str(SINK_PORT)])


def counted() -> dict[str, float]:
    """Return what the destination has received."""
    connection = HTTPConnection("127.0.0.1", SINK_PORT, timeout=5)
    try:
        connection.request("GET", "/count")
        numbers: dict[str, float] = json.loads(connection.getresponse().read())
    except OSError:
        return {"records": 0, "seconds": 0}
    finally:
        connection.close()
    return numbers


def drained(stored: float) -> dict[str, float] | None:
    """Return what the destination has received once that is everything."""
    numbers = counted()
    return numbers if numbers["records"] >= stored else None


def load(address: str, mode: str, in_flight: int, seconds: float) -> dict[str, float]:
    """Run the load generator and return what it measured."""
    command = [PYTHON, str(HERE / "load.py"), address, mode, str(in_flight), str(seconds)]
    result: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return result


def fdatasync_ms(directory: Path) -> float:
    """Return the median of appending 4 kB and making it durable, without any of us: what this disk takes."""
    descriptor = os.open(directory / "probe", os.O_WRONLY | os.O_CREAT)
    times = []
    for _ in range(200):
        started = time.perf_counter()
        os.write(descriptor, b"x" * 4096)
        os.fdatasync(descriptor)
        times.append(time.perf_counter() - started)
    os.close(descriptor)
    return statistics.median(times) * 1000


def ingest(scratch: Path, rounds: int, seconds: float) -> None:
    """Print a line for each case: both servers in turn, medians of the rounds, and their ratio."""
    print(f"{'':28} {'empty handler':>15} {'walbatch':>12} {'ratio':>6} {'p50':>8} {'p99':>8}")
    for name, mode, in_flight in CASES:
        ceiling, ours = [], []
        for round_number in range(rounds):
            with empty_server() as address:
                ceiling.append(load(address, mode, in_flight, seconds))
            with null_sink(), walbatch(scratch / f"{mode}-{in_flight}-{round_number}") as address:
                ours.append(load(address, mode, in_flight, seconds))
        most, rate = (statistics.median(r["events_per_s"] for r in results) for results in (ceiling, ours))
        line = f"{name:28} {most:11,.0f} ev/s {rate:7,.0f} ev/s {rate / most:6.2f}"
        for cut in ("p50_ms", "p99_ms"):
            line += f" {statistics.median(r[cut] for r in ours):6.2f}ms" if cut in ours[0] else ""
        print(line, flush=True)


def drain(scratch: Path, rounds: int, events: int) -> None:
    """Print how fast a backlog goes out once the destination is back."""
    rates = []
    for round_number in range(rounds):
        with walbatch(scratch / f"drain-{round_number}") as address:
            stored = 0.0
            while stored < events:
                stored += load(address, "batch", 4, 1.0)["events_per_s"]
            with null_sink():
                numbers = until(partial(drained, stored))
        rates.append(numbers["records"] / numbers["seconds"])
    print(f"{f'drain of {events:,} or more':28} {'':15} {statistics.median(rates):7,.0f} ev/s")


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--drain", type=int, default=300_000, help="events of the backlog")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="walbatch-bench-") as name:
        scratch = Path(name)
        cores = len(os.sched_getaffinity(0))
        print(f"{cores} cores, fdatasync of 4 kB in {fdatasync_ms(scratch):.2f} ms; medians of {options.rounds} rounds")
        ingest(scratch, options.rounds, options.seconds)
        drain(scratch, options.rounds, options.drain)


if __name__ == "__main__":
    main()
