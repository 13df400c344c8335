"""A server with an error in its code, at a place where it has records in hand: crashing_server.py PLACE."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from typing import Any, NoReturn

from walbatch.flusher import Flusher
from walbatch.ingest import IngestService
from walbatch.sinks.http import HttpSink
from walbatch.wal.sqlite import SqliteLog

PLACES: dict[str, tuple[type[Any], str]] = {
    "a call": (IngestService, "_event"),
    "the log": (SqliteLog, "append"),
    "a request": (HttpSink, "_exchange"),
    "a delivery": (Flusher, "_judge"),
    "a settlement": (SqliteLog, "settle"),
}


def _fail(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("planned")


if __name__ == "__main__":
    owner, name = PLACES[sys.argv[1]]
    setattr(owner, name, _fail)
    (script,) = entry_points(group="console_scripts", name="walbatch")
    script.load()(["serve"])
