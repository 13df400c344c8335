"""Negative controls: servers that break one promise each, which the checkers must notice. broken_server.py FAULT."""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import entry_points
from itertools import count
from typing import Any

from walbatch import clock
from walbatch.delivery import DELIVERED, RETRY, Answer, Hold, Pause, Settled
from walbatch.sinks import http
from walbatch.errors import Unavailable
from walbatch.event import Offset, Record
from walbatch.wal import Appended, Settlement
from walbatch.wal.sqlite import SqliteLog


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


def forget_what_was_delivered() -> None:
    """Forget two of three settlements, so that their records are sent again."""
    settle = SqliteLog.settle
    turns = count()

    async def forget(log: SqliteLog, settlement: Settlement) -> None:
        forgotten = {"outcomes": [RETRY] * len(settlement.outcomes)} if next(turns) % 3 else {}
        await settle(log, replace(settlement, **forgotten))

    SqliteLog.settle = forget  # type: ignore[method-assign]


def answer_long_before_the_commit() -> None:
    """Acknowledge at once what is stored a second later."""
    append = SqliteLog.append
    unfinished = set()

    async def later(log: SqliteLog, records: Sequence[Record]) -> None:
        await asyncio.sleep(1)
        with suppress(Unavailable):
            await append(log, records)

    async def answer(log: SqliteLog, records: Sequence[Record]) -> list[Appended]:
        unfinished.add(asyncio.create_task(later(log, records)))
        return [Appended(Offset(0), duplicate=False) for _ in records]

    SqliteLog.append = answer  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[], None]] = {
    fault.__name__: fault
    for fault in (
        believe_any_answer,
        check_no_certificate,
        wait_by_the_wall_clock,
        forget_what_was_delivered,
        answer_long_before_the_commit,
    )
}

if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    (script,) = entry_points(group="console_scripts", name="walbatch")
    script.load()(["serve"])
