"""A fault for walbatch, which loses nothing by it, and the same for a variant that must lose: the negative control."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from programs import WALBATCH
from total_queue import Verdict

SUPPORT = Path(__file__).parent
Entry = tuple[str, ...]
SERVE: Entry = (WALBATCH, "serve")
EARLY: Entry = (sys.executable, str(SUPPORT / "early_ack_server.py"))
"""Answers before the commit."""
RELAXED: Entry = (sys.executable, str(SUPPORT / "relaxed_server.py"))
"""Commits without a flush: synchronous=NORMAL."""
CONTROL_ROUNDS = 2


def with_control(
    path: Path, rounds: int, control: Entry, injected: Callable[[Path, int, Entry], Verdict]
) -> tuple[Verdict, Verdict]:
    """Inject a fault so many times into walbatch, and twice into the control, and return the verdict of each.

    `injected` gets an empty directory, how often to inject, and the command that serves.
    """
    verdicts = []
    for name, times, entry in (("walbatch", rounds, SERVE), ("control", CONTROL_ROUNDS, control)):
        place = path / name
        place.mkdir()
        verdict = injected(place, times, entry)
        print(f"{name}: {verdict.summary()}")
        verdicts.append(verdict)
    with_walbatch, with_the_control = verdicts
    return with_walbatch, with_the_control
