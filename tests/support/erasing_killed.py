"""walbatch as it is, but killed at one step of an erasure: KILL_AT names it. Slices are small: there are many."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from walbatch import erasure as erasing
from walbatch.wal import erasure, sqlite

STEPS = (
    "before bury 1",  # nothing is done
    "after bury 1",  # the tombstone is there, and everything else as well
    "after erase 1",  # deleted, not committed
    "before erase_slice 2",  # one slice is gone
    "after erase_slice 2",
    "before scrub 1",  # everything is deleted, and in the files still
    "after scrub 1",
    "before other_files 2",  # the first call is the plan's
)

_calls: Counter[str] = Counter()


def _watched(inner: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return a function that kills the process before or after the call that KILL_AT names."""

    def outer(*args: Any) -> Any:
        _calls[name] += 1
        _die_at(f"before {name} {_calls[name]}")
        result = inner(*args)
        _die_at(f"after {name} {_calls[name]}")
        return result

    return outer


def _watched_async(inner: Callable[..., Any], name: str) -> Callable[..., Any]:
    async def outer(*args: Any) -> Any:
        _calls[name] += 1
        _die_at(f"before {name} {_calls[name]}")
        result = await inner(*args)
        _die_at(f"after {name} {_calls[name]}")
        return result

    return outer


def _die_at(step: str) -> None:
    if os.environ.get("KILL_AT") == step:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    erasing.SLICE = erasure.SLICE = 3  # type: ignore[attr-defined]
    log: Any = sqlite.SqliteLog
    log.bury = _watched_async(log.bury, "bury")
    log.erase = _watched_async(log.erase, "erase_slice")
    log.scrub = _watched_async(log.scrub, "scrub")
    erasure.erase = _watched(erasure.erase, "erase")
    erasing.other_files = _watched(erasing.other_files, "other_files")  # type: ignore[attr-defined]
    (script,) = entry_points(group="console_scripts", name="walbatch")
    script.load()()
