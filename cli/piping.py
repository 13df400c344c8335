"""Standard output as a pipe: whoever reads it may leave at any time, which is no error."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def until_closed() -> Iterator[None]:
    """End the command in peace when the reader of its standard output has gone: it has what it wanted."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer must go somewhere when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())
        raise typer.Exit from None


def closed_within(seconds: float) -> bool:
    """Wait so long, or until the reader of standard output has gone; say whether it has."""
    waiting = select.poll()
    waiting.register(sys.stdout, 0)  # an error is always told
    return bool(waiting.poll(seconds * 1000))
