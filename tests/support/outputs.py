"""Whatever a program of a test writes is searched for canaries at the end of that test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import canary
import pytest

_watched: dict[Path, int] = {}
"""Each log that programs of this process write, and how much of it was searched."""


def watch(log: Path) -> None:
    """Search what is written into this file from now on."""
    _watched.setdefault(log, 0)


@pytest.fixture(autouse=True)
def no_program_tells_what_it_carries() -> Iterator[None]:
    """Fail the test whose programs wrote a credential, an id of a person, or a property."""
    yield
    told = {log.name: _news(log) for log in list(_watched) if log.exists()}
    for name, text in told.items():
        canary.check(text, name)


def _news(log: Path) -> str:
    """Return what has come into a file since it was searched last."""
    with log.open("rb") as file:
        file.seek(_watched[log])
        data = file.read()
    _watched[log] += data.rfind(b"\n") + 1  # a line that is not complete is searched again
    return data.decode(errors="replace")
