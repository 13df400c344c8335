"""The paths that the package's docstring lists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import version
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from walbatch.clock import Clock
from walbatch.dashboard import dead, page, view
from walbatch.dashboard.history import INTERVAL_S
from walbatch.dashboard.watch import Watch
from walbatch.errors import WalbatchError
from walbatch.wal.sqlite import SqliteLog

LIVE_S = 1.0
"""Between two events for somebody who watches."""

AGAIN_MS = 2000
"""After how long a browser connects again, when the stream has ended."""


class Dashboard:
    """Answers for one log. `document` returns what `/stats` has."""

    def __init__(
        self, log: SqliteLog, clock: Clock, watch: Watch, document: Callable[[], Awaitable[dict[str, Any]]]
    ) -> None:
        self._log = log
        self._clock = clock
        self._watch = watch
        self._document = document
        self._version = version("walbatch")
        self._closing = asyncio.Event()
        self.routes = [
            Route("/", self._page),
            Route("/static/{name}", self._static),
            Route("/api/history", self._history),
            Route("/api/batches", self._batches),
            Route("/api/dead", self._dead),
            Route("/api/live", self._live),
        ]

    def close(self) -> None:
        """End the streams of those who watch: the server would wait for them."""
        self._closing.set()

    async def _page(self, _: Request) -> Response:
        return HTMLResponse(page.render(self._shown(await self._document())))

    async def _static(self, request: Request) -> Response:
        file = page.static().get(request.path_params["name"])
        return Response(status_code=404) if file is None else Response(file.content, media_type=file.media_type)

    async def _history(self, _: Request) -> Response:
        return _json({"interval_s": INTERVAL_S, "samples": self._watch.samples()})

    async def _batches(self, _: Request) -> Response:
        return _json({"batches": self._watch.batches()})

    async def _dead(self, _: Request) -> Response:
        return _json(await self._log.read(dead.document))

    async def _live(self, _: Request) -> Response:
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[bytes]:
        """Yield what to show now and what is new since the last event; the first has all that is remembered."""
        yield b"retry: %d\n\n" % AGAIN_MS
        batch = sample = 0
        while not self._closing.is_set():
            try:
                document = await self._document()
            except WalbatchError:
                return  # the browser comes again, and says meanwhile that it is not connected
            batches, samples = self._watch.batches(batch), self._watch.samples(sample)
            batch, sample = _last(batches, batch), _last(samples, sample)
            news = {
                "stats": document,
                "shown": self._shown(document),
                "words": view.words(document),
                "batches": batches,
                "samples": samples,
            }
            yield b"data: " + orjson.dumps(news) + b"\n\n"
            await self._clock.wait(self._closing, LIVE_S)

    def _shown(self, document: dict[str, Any]) -> dict[str, str]:
        pace = self._watch.pace(document["accepted"])
        return view.shown(document, pace, version=self._version, uptime_s=self._watch.uptime_s())


def _last(news: list[dict[str, Any]], before: int) -> int:
    number: int = news[-1]["number"] if news else before
    return number


def _json(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")
