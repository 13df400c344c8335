"""Where tables for people are printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 200


def console() -> Console:
    """Return a console for text that is not ours, with [brackets] and :colons:, wide enough where nobody looks."""
    from rich.console import Console

    found = Console(highlight=False, markup=False, emoji=False)
    if not found.is_terminal:
        found.width = PIPE_WIDTH  # rich takes a pipe for a terminal of 80 columns, and would cut or fold
    return found


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 letter`, `2,000 letters`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
