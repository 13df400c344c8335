"""Options that several commands share, and how a command reads the settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from walbatch.settings import Settings

DataDir = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Directory of the log [WALBATCH_DATA_DIR].", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def local_settings(data_dir: Path | None) -> Settings:
    """Return the settings for a command that only looks at the data directory; credentials may be missing."""
    from walbatch.settings import load

    return load({"data_dir": data_dir})


def on_terminal() -> bool:
    """Say whether a person can be asked: both ends are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()
