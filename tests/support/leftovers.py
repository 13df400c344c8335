"""What some work leaves in cycles, where it stays in memory until Python looks for cycles."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

PACKAGES = ("walbatch", "analytics", "httpx")
"""Whose objects are looked for: our own, the messages of the calls, what is sent and answered."""
ROUNDS = 10
"""Of the event loop, after which what has ended is gone."""


async def left_by(work: Callable[[], Awaitable[object]]) -> set[str]:
    """Return the names of the types and functions of which objects or frames are left by this work.

    It is done twice: what the first time makes for good is not counted.
    """
    await work()
    standing = asyncio.all_tasks()
    gc.collect()
    gc.disable()
    try:
        await work()
        if begun := {task for task in asyncio.all_tasks() - standing if not _waits_for_calls(task)}:
            await asyncio.wait(begun, timeout=10)
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        # What has no references to others is none of the collector's: it is found in those that have one to it.
        left = [*gc.garbage, *gc.get_referents(*gc.garbage)]
        return {_name(one) for one in left if not isinstance(one, type) and _package(one) in PACKAGES}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def _waits_for_calls(task: asyncio.Task[Any]) -> bool:
    """Say whether a task is gRPC's own that waits for the next call: each call leaves another one."""
    return getattr(task.get_coro(), "__qualname__", "").startswith("AioServer.")


def _package(one: Any) -> str:
    module = one.f_globals.get("__name__", "") if isinstance(one, FrameType) else type(one).__module__
    return str(module).partition(".")[0]


def _name(one: Any) -> str:
    return one.f_code.co_qualname if isinstance(one, FrameType) else type(one).__qualname__
