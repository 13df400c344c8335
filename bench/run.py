"""Measure walbatch on this machine and print one table: run.py [--quick] [--only GROUP ...] [--page PAGE].

Every figure is one of the same run: rates depend on the machine and on what else it does, so compare the ratios. The
sides of a ratio take turns, each figure is the median of the rounds, and the load comes from another process. Every OK
of walbatch is fsynced; unless a row says otherwise a flusher delivers beside it, to a destination on this machine that
answers at once.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import shutil
import tempfile
from pathlib import Path

import backlog
import drain
import ingest
import peers
import rest
from plan import Plan, quick
from results import Row, line, write

from walbatch.disk_speed import Fdatasync, fdatasync
from walbatch.wal.driver import SQLITE_VERSION

GROUPS = {"ingest": ingest.rows, "drain": drain.rows, "backlog": backlog.rows, "rest": rest.rows, "peers": peers.rows}


def machine(plan: Plan) -> str:
    """Say on what, how often and when it was measured."""
    disk = Fdatasync.of(fdatasync(plan.scratch))
    cores = len(os.sched_getaffinity(0))
    return (
        f"{cores} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}, SQLite"
        f" {SQLITE_VERSION}; fdatasync of 4 kB in {disk.p50_ms:.2f} ms; medians of {plan.rounds} rounds;"
        f" {dt.datetime.now(dt.UTC).date()}"
    )


def measure(names: list[str], scratch: Path, *, is_quick: bool) -> tuple[str, list[Row]]:
    """Measure groups one after the other and print each row as soon as it is there."""
    about = ""
    rows: list[Row] = []
    for name in names:
        folder = scratch / name
        folder.mkdir()
        plan = quick(folder) if is_quick else Plan(folder)
        if not about:
            about = machine(plan)
            print(about, flush=True)
        for row in GROUPS[name](plan):
            rows.append(row)
            print(line(row), flush=True)
        shutil.rmtree(folder)
    return about, rows


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="GROUP", help=str([*GROUPS]))
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, and no more")
    parser.add_argument("--page", type=Path, help="write the table in there, between its two marks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="walbatch-bench-") as name:
        about, rows = measure(options.only, Path(name), is_quick=options.quick)
    if options.page:
        write(options.page, about, rows)


if __name__ == "__main__":
    main()
