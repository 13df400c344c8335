"""What every row of the fault matrix uses: how often to inject, and the table in which its result is told.

A row is a test in tests/crash, which anybody can run, or in tests/privileged, which needs root. `make test` runs the
former with few injections, `make faults` all of them with many.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from outputs import no_program_tells_what_it_carries

__all__ = ["no_program_tells_what_it_carries"]  # every test has it

FULL = os.environ.get("FAULTS") == "full"


@dataclass(frozen=True, slots=True)
class Row:
    """The result of one fault."""

    fault: str
    """What was done, in a few words: `SIGKILL at a system call`."""
    rounds: int
    """How many times it was injected."""
    acked: int
    """Records that were acknowledged meanwhile."""
    lost: int
    """Of those, how many were neither delivered nor kept at the end."""
    duplicated: int = 0
    """Records that were delivered more than once, byte for byte the same."""
    control: str = ""
    """What the same checker found in the run that must lose: `synchronous=NORMAL: 228 of 1,959 lost`."""


@pytest.fixture
def rounds() -> Callable[[int, int], int]:
    """Return how often to inject: the first number in `make test`, the second in `make faults`."""
    return lambda few, many: many if FULL else few


@pytest.fixture
def matrix(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return what adds a row to the table; its arguments are those of `Row`."""

    def add(**values: Any) -> None:
        request.node.user_properties.append(("fault", asdict(Row(**values))))

    return add


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what may take longest, by its limit: no process is left alone with it at the end."""
    items.sort(key=_limit_s, reverse=True)


def _limit_s(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else 0.0


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of the faults that were injected in this run, and keep it for the documentation."""
    rows = [
        value | {"seconds": round(report.duration, 1), "test": report.nodeid.split("::")[-1].split("[")[0]}
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "fault" and report.when == "call"
    ]
    if not rows or not FULL:
        return
    Path("faults.json").write_text(json.dumps(rows, indent=1) + "\n")
    heads = ("fault", "rounds", "acked", "lost", "duplicated", "control", "seconds")
    lines = [
        list(heads),
        *([f"{row[h]:,}" if isinstance(row[h], int) else str(row[h]) for h in heads] for row in rows),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    terminalreporter.section("the fault matrix")
    for line in lines:
        terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
