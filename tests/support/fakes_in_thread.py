"""Fake Mixpanels on real sockets, in a thread of their own: for tests whose other parts block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any, TypeVar

from walbatch.testing.mixpanel import FakeMixpanel, serve_fake

LIMIT_S = 30.0

T = TypeVar("T")


@contextmanager
def served(*fakes: FakeMixpanel) -> Iterator[Sequence[str]]:
    """Serve fakes, and yield the URL of each. What they hold is best read when nobody sends any more."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fakes")
    thread.start()

    def run(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(LIMIT_S)

    try:
        stack = AsyncExitStack()
        urls = run(_enter(stack, fakes))
        try:
            yield urls
        finally:
            run(stack.aclose())
            run(loop.shutdown_default_executor())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _enter(stack: AsyncExitStack, fakes: Sequence[FakeMixpanel]) -> list[str]:
    return [await stack.enter_async_context(serve_fake(fake)) for fake in fakes]
