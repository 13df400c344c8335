"""Where the time of a case goes: profiled.py CASE, with CASE unary, ten, batch, stream or drain.

It runs the case twice. First as it is, for the CPU time of each thread. Then with Python's profiler on the thread of
the event loop, which makes everything slower, and calls of small functions the most: read it for what is called, and
how often. What gRPC, uvloop and SQLite do in C is not in it.
"""

from __future__ import annotations

import argparse
import pstats
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fill import fill
from loads import Checked
from servers import HERE, PYTHON, WALBATCH, Sink, Walbatch

DRAINED = 100_000
"""Events of a drain, for each second that was asked for."""


def run(case: str, directory: Path, seconds: float, command: Sequence[str]) -> str:
    """Run a case, and return how fast it was and what each thread took."""
    if case == "drain":
        fill(directory / "data", round(DRAINED * seconds))
    with Sink() as sink, Walbatch(directory / "data", sink.port, command=command) as server:
        if command != (WALBATCH,):
            server.process.send_signal(signal.SIGUSR1)
        before, began = server.cpu_of_threads(), time.monotonic()
        rate = _load(case, directory, seconds, sink, server)
        taken = time.monotonic() - began
        used = {name: spent - before.get(name, 0.0) for name, spent in server.cpu_of_threads().items()}
    threads = ", ".join(f"{name} {spent / taken:.0%}" for name, spent in used.items() if spent / taken >= 0.01)
    return f"{rate:,.0f} ev/s; CPU of a core, by thread: {threads}"


def _load(case: str, directory: Path, seconds: float, sink: Sink, server: Walbatch) -> float:
    load = Checked(server, directory, seconds)
    match case:
        case "drain":
            return sink.wait_for(round(DRAINED * seconds), server)
        case "unary":
            return load.unary(in_flight=64).events_per_s
        case "ten":
            return load.unary(connections=10).events_per_s
        case "batch":
            return load.python("batch", 8).events_per_s
        case _:
            return load.python("stream", 1).events_per_s


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=["unary", "ten", "batch", "stream", "drain"])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rows", type=int, default=30, help="functions to show")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="walbatch-profile-") as name:
        out = Path(name) / "profile"
        profiling = (PYTHON, str(HERE / "profiled_serve.py"), str(out))
        for about, command in (("plain", (WALBATCH,)), ("profiled", profiling)):
            directory = Path(name) / about
            directory.mkdir()
            print(f"{about}: {run(options.case, directory, options.seconds, command)}", flush=True)
        pstats.Stats(str(out)).sort_stats("tottime").print_stats(options.rows)


if __name__ == "__main__":
    main()
