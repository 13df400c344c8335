"""The negative control of the ownership: a server that takes a directory that another one has."""

from __future__ import annotations

from importlib.metadata import entry_points

from walbatch.ownership import Ownership

if __name__ == "__main__":
    Ownership._take = lambda self: True  # type: ignore[method-assign]  # noqa: ARG005
    (script,) = entry_points(group="console_scripts", name="walbatch")
    script.load()(["serve"])
