"""Where tables for people are printed, and what a terminal may be shown."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 200


def plain() -> bool:
    """Say whether nothing but text is wanted: NO_COLOR is set, or the terminal knows no more."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") in {"dumb", "unknown"}


def animated() -> bool:
    """Say whether something may move on stderr: in a file it would help nobody."""
    return sys.stderr.isatty() and not plain()


def console() -> Console:
    """Return a console for text that is not ours, with [brackets] and :colons:, wide enough where nobody looks."""
    from rich.console import Console

    # With NO_COLOR alone it would still write bold and dim.
    found = Console(highlight=False, markup=False, emoji=False, color_system=None if plain() else "auto")
    if not found.is_terminal:
        found.width = PIPE_WIDTH  # rich takes a pipe for a terminal of 80 columns, and would cut or fold
    return found


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 letter`, `2,000 letters`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
