"""Where the time of a case goes: profiled.py CASE, with CASE unary, ten, batch, stream or drain.

It runs the case as it is, for the CPU time of each event, by thread, also while nobody takes what is to be delivered,
and a call of TrackEvent with the empty handler.
Then it runs it with Python's profiler on the thread of the event loop, which makes everything slower, and calls of
small functions the most: read it for what is called, and how often. What gRPC, uvloop and SQLite do in C is not in it.
"""

from __future__ import annotations

import argparse
import pstats
import signal
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from loads import Checked, unary
from servers import HERE, PYTHON, Walbatch, cpu_of_threads, empty_server, refused_port

from walbatch.bench.fill import fill
from walbatch.bench.processes import WALBATCH, Child, Sink

DRAINED = 100_000
"""Events of a drain, for each second that was asked for."""

UNARY = {"unary": {"connections": 1, "in_flight": 64}, "ten": {"connections": 10, "in_flight": 1}}


def run(case: str, directory: Path, seconds: float, command: Sequence[str], *, delivering: bool = True) -> str:
    """Run a case on walbatch, and return what each event took, its delivery included unless nobody takes it."""
    if case == "drain":
        fill(directory / "data", round(DRAINED * seconds))
    with ExitStack() as stack:
        sink, nobody = stack.enter_context(Sink()), stack.enter_context(refused_port())
        port = sink.port if delivering else nobody
        server = stack.enter_context(Walbatch(directory / "data", port, command=command))
        if command != WALBATCH:
            server.process.send_signal(signal.SIGUSR1)
        load = Checked(server, directory, seconds)

        def events() -> int:
            match case:
                case "drain":
                    sink.wait_for(round(DRAINED * seconds), server)
                    return round(DRAINED * seconds)
                case "batch":
                    return load.python("batch", 8).events
                case "stream":
                    return load.python("stream", 1).events
                case _:
                    return load.unary(**UNARY[case]).events

        return cost(server, events)


def cost(server: Child, load: Callable[[], int]) -> str:
    """Return the CPU time of each event while a load runs."""
    before = cpu_of_threads(server)
    events = load()
    each = {name: (spent - before.get(name, 0.0)) / events for name, spent in cpu_of_threads(server).items()}
    threads = ", ".join(f"{name} {spent * 1e6:.1f}" for name, spent in each.items() if spent * 1e6 >= 0.1)
    return f"{sum(each.values()) * 1e6:.1f} us of CPU for each of {events:,} events; by thread: {threads}"


def main() -> None:
    """Print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=[*UNARY, "batch", "stream", "drain"])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rows", type=int, default=30, help="functions to show")
    parser.add_argument(
        "--sort", choices=["tottime", "cumtime"], default="tottime", help="by own time, or with callees"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="walbatch-profile-") as name:
        scratch = Path(name)
        if options.case in UNARY:
            with empty_server() as server:
                address, shape = f"127.0.0.1:{server.line}", UNARY[options.case]
                empty = cost(server, lambda: unary(address, scratch, options.seconds, **shape).events)
            print(f"empty handler: {empty}", flush=True)
        if options.case != "drain":
            (scratch / "alone").mkdir()
            alone = run(options.case, scratch / "alone", options.seconds, WALBATCH, delivering=False)
            print(f"walbatch, without delivery: {alone}", flush=True)
        out = scratch / "profile"
        profiling = (PYTHON, str(HERE / "profiled_serve.py"), str(out))
        for about, command in (("walbatch", WALBATCH), ("profiled", profiling)):
            directory = scratch / about
            directory.mkdir()
            print(f"{about}: {run(options.case, directory, options.seconds, command)}", flush=True)
        pstats.Stats(str(out)).sort_stats(options.sort).print_stats(options.rows)


if __name__ == "__main__":
    main()
