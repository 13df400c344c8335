"""`walbatch` with Python's profiler on its main thread, the event loop's, from SIGUSR1 on.

profiled_serve.py OUT ARGUMENT ... writes the profile into OUT when it ends.
"""

from __future__ import annotations

import cProfile
import runpy
import signal
import sys


def main() -> None:
    """Run the command, and write the profile when it ends."""
    out = sys.argv.pop(1)
    profile = cProfile.Profile()
    signal.signal(signal.SIGUSR1, lambda *_: profile.enable())
    try:
        runpy.run_module("walbatch.cli", run_name="__main__")
    finally:
        profile.disable()
        profile.dump_stats(out)


if __name__ == "__main__":
    main()
