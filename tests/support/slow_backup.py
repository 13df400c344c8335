"""`walbatch backup` that waits in its first step until it is interrupted. Usage: slow_backup.py DIRECTORY FILE."""

from __future__ import annotations

import runpy
import sys
import threading
from typing import Any

from walbatch import backup

original = backup.back_up


def slow(*args: Any, **options: Any) -> Any:
    """Back up, and wait between two steps."""

    def wait(_done: int, _pages: int) -> None:
        print("copying", flush=True)
        threading.Event().wait(60)

    return original(*args, **options | {"progress": wait})


backup.back_up = slow
sys.argv[1:] = ["backup", "--data-dir", *sys.argv[1:]]
runpy.run_module("walbatch.cli", run_name="__main__")
