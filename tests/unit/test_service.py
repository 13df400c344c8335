"""Parts of the composition root that need no process."""

from __future__ import annotations

import asyncio

import pytest

from walbatch.errors import CorruptLog
from walbatch.service import StopSignal, first_cause, until_stopped


async def raises(error: BaseException) -> None:
    """A task that fails."""
    raise error


async def for_ever() -> None:
    """A task that does what it should."""
    await asyncio.Event().wait()


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


def test_no_error_has_no_cause() -> None:
    """A task that returned has none."""
    assert first_cause(None) is None
