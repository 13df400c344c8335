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
from types import SimpleNamespace
from typing import Any

from walbatch import clock, ingest, rich_errors, service
from walbatch.delivery import DELIVERED, RETRY, Answer, Hold, Pause, Settled
from walbatch.errors import Unavailable
from walbatch.event import Offset, Record
from walbatch.ownership import Ownership
from walbatch.sinks import http
from walbatch.wal import Appended, Settlement, group_commit, headroom
from walbatch.wal.sqlite import SqliteLog


def believe_any_answer() -> None:
    """Take every end of a request for a success."""
    send = http.HttpSink.send

    async def believe(sink: http.HttpSink, kind: Any, payloads: Any) -> Answer:
        answer = await send(sink, kind, payloads)
        return Settled([DELIVERED] * len(payloads)) if isinstance(answer, Hold | Pause) else answer

    http.HttpSink.send = believe  # type: ignore[method-assign, assignment]


def check_no_certificate() -> None:
    """Talk TLS to anybody."""
    http._tls = ssl._create_unverified_context


def wait_by_the_wall_clock() -> None:
    """Measure intervals with a clock that jumps."""
    clock.SystemClock.monotonic_s = lambda _: time.time()  # type: ignore[method-assign, assignment]


def forget_what_was_delivered() -> None:
    """Forget two of three settlements, so that their records are sent again."""
    settle = SqliteLog.settle
    turns = count()

    async def forget(log: SqliteLog, settlement: Settlement) -> None:
        outcomes = [RETRY] * len(settlement.outcomes) if next(turns) % 3 else settlement.outcomes
        await settle(log, replace(settlement, outcomes=outcomes))

    SqliteLog.settle = forget  # type: ignore[method-assign, assignment]


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

    async def answer_one(log: SqliteLog, make: Callable[[], Record], size: int) -> tuple[Record, Appended]:
        del size
        record = make()
        return record, (await answer(log, [record]))[0]

    SqliteLog.append = answer  # type: ignore[method-assign, assignment]
    SqliteLog.append_one = answer_one  # type: ignore[method-assign, assignment]


def limit_nothing() -> None:
    """Take messages of any size, and as many as are sent."""
    limits = {"grpc.max_receive_message_length": -1}
    service.GRPC_OPTIONS[:] = [(name, limits.get(name, value)) for name, value in service.GRPC_OPTIONS]
    ingest.MAX_REQUEST_BYTES = ingest.READ_AHEAD_BYTES = 2**40


def forget_to_refuse() -> None:
    """Let errors of a record escape."""
    rich_errors.abort = _raise  # type: ignore[assignment]


async def _raise(_: object, error: Exception) -> None:
    raise error


def let_a_cancelled_call_break_the_commit() -> None:
    """Take it for granted that whoever waits for a commit still waits when it is done."""

    def brittle_loop() -> object:
        return SimpleNamespace(create_future=_Brittle)

    brittle = SimpleNamespace(**{**vars(asyncio), "get_running_loop": brittle_loop})
    group_commit.asyncio = brittle  # type: ignore[attr-defined, assignment]


def believe_every_fsync() -> None:
    """Take a commit for durable because the fsync returned, and ask the disk no second time."""
    Ownership.check_disk = lambda self: None  # type: ignore[method-assign]  # noqa: ARG005


def set_no_room_aside() -> None:
    """Write to files that have no room ahead, so that a full disk has none for what was delivered."""
    headroom._fallocate = None


class _Brittle(asyncio.Future[Any]):
    """A future that never says that it is done, so that a result for a caller that has gone is an error."""

    def done(self) -> bool:
        return False


FAULTS: dict[str, Callable[[], None]] = {
    fault.__name__: fault
    for fault in (
        believe_any_answer,
        check_no_certificate,
        wait_by_the_wall_clock,
        forget_what_was_delivered,
        answer_long_before_the_commit,
        limit_nothing,
        forget_to_refuse,
        let_a_cancelled_call_break_the_commit,
        believe_every_fsync,
        set_no_room_aside,
    )
}

if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    (script,) = entry_points(group="console_scripts", name="walbatch")
    script.load()(["serve"])
