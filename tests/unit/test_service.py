"""Parts of the composition root that need no process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from calls import Caller, Ended

from walbatch.clock import SystemClock
from walbatch.dashboard.watch import Watch
from walbatch.errors import CorruptLog
from walbatch.ingest import IngestService
from walbatch.metrics.exposition import Metrics
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.service import StopSignal, _servers, first_cause, until_stopped
from walbatch.settings import Settings
from walbatch.testing.clock import FakeClock
from walbatch.wal.memory import MemoryLog
from walbatch.wal.sqlite import SqliteLog


async def raises(error: BaseException) -> None:
    """A task that fails."""
    raise error


async def for_ever() -> None:
    """A task that does what it should."""
    await asyncio.Event().wait()


async def nothing() -> AsyncIterator[pb.IngestStreamRequest]:
    """A client that ends its stream at once, or one that cannot be read any more: it looks the same."""
    return
    yield


async def test_a_broken_log_is_raised_out_of_the_groups_around_it() -> None:
    """The exit code is that of the error in the flusher, not of the task groups that it passed through."""
    inner = ExceptionGroup("delivery", [CorruptLog("damaged")])
    flushing = asyncio.create_task(raises(ExceptionGroup("lanes", [inner])))
    log = asyncio.create_task(for_ever())
    with pytest.raises(CorruptLog):
        await until_stopped(StopSignal(), [log], flushing)
    log.cancel()


async def test_a_task_that_ends_by_itself_is_an_error() -> None:
    """Nothing that should run for ever ends in silence."""
    log = asyncio.create_task(asyncio.sleep(0), name="log")
    flushing = asyncio.create_task(for_ever())
    with pytest.raises(RuntimeError, match="log ended by itself"):
        await until_stopped(StopSignal(), [log], flushing)
    flushing.cancel()


async def test_a_stop_signal_ends_the_wait() -> None:
    """The tasks go on: stopping them in order comes after."""
    stop = StopSignal()
    task = asyncio.create_task(for_ever())
    stop.received.set()
    await until_stopped(stop, [], task)
    assert not task.done()
    task.cancel()


async def test_streams_are_drained_however_the_service_ends(tmp_path: Path) -> None:
    """To a stream a stop without grace looks as if the client had sent its last: it must know better than to say OK."""
    settings = Settings(data_dir=tmp_path, grpc_listen="127.0.0.1:0", admin_listen="127.0.0.1:0", destination="stdout")
    clock = FakeClock()
    log = MemoryLog(["there"], clock)
    metrics = Metrics(["there"], backlog_limit_bytes=0)
    ingest = IngestService(log, clock, intake=metrics.intake)
    with pytest.raises(CorruptLog):
        async with _servers(
            settings,
            cast(SqliteLog, log),
            ingest,
            cast(SystemClock, clock),
            metrics=metrics,
            ask_now=lambda _: None,
            watch=Watch(log, clock),
        ):
            raise CorruptLog("damaged")
    with pytest.raises(Ended) as ended:
        await anext(ingest.IngestStream(nothing(), cast(Any, Caller())))
    assert ended.value.args == (grpc.StatusCode.UNAVAILABLE,)


def test_no_error_has_no_cause() -> None:
    """A task that returned has none."""
    assert first_cause(None) is None
