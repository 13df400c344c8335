"""What tests of `walbatch send` put in and read."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import canary

Send = Callable[..., subprocess.CompletedProcess[str]]
STORED = "accepted, 0 duplicates, 0 refused; in memory only (buffered)"
"""How a summary ends where all was well."""


def lines(count: int, first: int = 1) -> str:
    """Return good lines; each event is named after its line."""
    return "".join(
        f'{{"event":"E{first + n}","properties":{{"distinct_id":"{canary.PERSON}"}}}}\n' for n in range(count)
    )


def summary(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line on stderr."""
    return done.stderr.splitlines()[-1]
