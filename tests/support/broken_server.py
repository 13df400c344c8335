"""Negative controls: servers that break one promise each, which the checkers must notice. broken_server.py FAULT."""

from __future__ import annotations

import ssl
import sys
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from walbatch import clock
from walbatch.delivery import DELIVERED, Answer, Hold, Pause, Settled
from walbatch.sinks import http


def believe_any_answer() -> None:
    """Take every end of a request for a success."""
    send = http.HttpSink.send

    async def believe(sink: http.HttpSink, kind: Any, payloads: Any) -> Answer:
        answer = await send(sink, kind, payloads)
        return Settled([DELIVERED] * len(payloads)) if isinstance(answer, Hold | Pause) else answer

    http.HttpSink.send = believe  # type: ignore[method-assign]


def check_no_certificate() -> None:
    """Talk TLS to anybody."""
    http._tls = ssl._create_unverified_context  # type: ignore[attr-defined]  # noqa: S323


def wait_by_the_wall_clock() -> None:
    """Measure intervals with a clock that jumps."""
    clock.SystemClock.monotonic_s = lambda _: time.time()  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[], None]] = {
    fault.__name__: fault for fault in (believe_any_answer, check_no_certificate, wait_by_the_wall_clock)
}

if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    (script,) = entry_points(group="console_scripts", name="walbatch")
    script.load()(["serve"])
