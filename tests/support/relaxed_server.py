"""The negative control of the power cuts: a server that commits without a flush. It must be caught losing events."""

from __future__ import annotations

from importlib.metadata import entry_points

from walbatch.wal import driver

if __name__ == "__main__":
    driver._WRITER_PRAGMAS["synchronous"] = 1  # NORMAL: the log is flushed at checkpoints only
    (script,) = entry_points(group="console_scripts", name="walbatch")
    script.load()(["serve"])
