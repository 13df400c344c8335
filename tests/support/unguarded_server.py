"""The negative control of the taken files: a server that goes on when its database is not its database any more."""

from __future__ import annotations

from importlib.metadata import entry_points

from walbatch.wal.guard import Guard

if __name__ == "__main__":
    Guard.check = lambda self, connection: None  # type: ignore[method-assign]  # noqa: ARG005
    Guard.replaced = property(lambda _: None)  # type: ignore[assignment, method-assign]
    (script,) = entry_points(group="console_scripts", name="walbatch")
    script.load()(["serve"])
