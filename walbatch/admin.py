"""The loopback HTTP port: for probes, for the commands, for nobody else.

    GET  /livez    the process runs its event loop
    GET  /readyz   records are accepted; it does not follow the destination, since buffering is the job
    GET  /stats    the numbers of `walbatch stats`
    GET  /metrics  the same and more for Prometheus, see `walbatch.metrics`
    GET  /         the page for people, and what it needs: see `walbatch.dashboard`
    POST ...       what `walbatch.maintenance` has under this path: a line of JSON for each of its reports, the last one
                   with `error` if it could not go on; needs the token from the data directory

The token keeps out whoever cannot read the data directory, and with it every page in a browser.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from walbatch import http_server, stats
from walbatch.clock import Clock
from walbatch.dashboard.headers import with_headers
from walbatch.dashboard.routes import Dashboard
from walbatch.dashboard.watch import Watch
from walbatch.errors import ConfigurationError, WalbatchError
from walbatch.http_server import AsgiApp
from walbatch.maintenance import BadRequest, Maintenance, Reports
from walbatch.metrics.exposition import Metrics
from walbatch.wal.sqlite import SqliteLog

TOKEN_FILE = "admin.token"  # noqa: S105  a file's name

LOCAL_NAMES = {"localhost", "127.0.0.1", "[::1]"}
"""What a `Host` header may say while the port listens on loopback: a page in a browser that was led here by its own
domain name (DNS rebinding) says something else."""


class Admin:
    """The port's answers. `ready` says whether records are accepted at this moment, `watch` what it was like before.

    `ask_now` is for `Maintenance`.
    """

    def __init__(
        self,
        log: SqliteLog,
        clock: Clock,
        ready: Callable[[], bool],
        token: str,
        *,
        metrics: Metrics,
        ask_now: Callable[[str], None],
        watch: Watch,
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._clock = clock
        self._ready = ready
        self._token = token
        self._maintenance = Maintenance(log, clock, ask_now)
        self._dashboard = Dashboard(log, clock, watch, self._document)
        routes = [
            Route("/livez", self._livez),
            Route("/readyz", self._readyz),
            Route("/stats", self._stats),
            Route("/metrics", self._scrape),
            *self._dashboard.routes,
            *(Route(path, partial(self._maintain, path), methods=["POST"]) for path in self._maintenance.operations),
        ]
        self.app = with_headers(Starlette(routes=routes, exception_handlers={WalbatchError: _unavailable}))

    def close(self) -> None:
        """End what would go on until whoever asked for it leaves. To be called before the server is stopped."""
        self._dashboard.close()

    async def _livez(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _: Request) -> Response:
        refusal = self._log.refusing()
        if self._ready() and refusal is None:
            return PlainTextResponse("ok\n")
        why = f": {refusal}" if refusal else ""
        return PlainTextResponse(f"not accepting records{why}\n", 503)

    async def _stats(self, _: Request) -> Response:
        return _json(await self._document())

    async def _scrape(self, request: Request) -> Response:
        text, media_type = self._metrics.text(await self._document(), request.headers.get("accept", ""))
        return Response(text, media_type=media_type)

    async def _document(self) -> dict[str, Any]:
        database_bytes, wal_bytes = self._log.sizes()
        return stats.document(
            await self._log.backlog(),
            now_ms=self._clock.wall_ms(),
            durability=self._log.durability,
            database_bytes=database_bytes,
            wal_bytes=wal_bytes,
            storage=stats.storage(self._log.refusing(), self._log.free_bytes()),
            serving=True,
            max_backlog_bytes=self._log.limits.max_backlog_bytes,
        )

    async def _maintain(self, path: str, request: Request) -> Response:
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            return _json({"error": f"the token of {TOKEN_FILE} in the data directory is missing or wrong"}, 401)
        try:
            reports = self._maintenance.start(path, await request.body())
        except BadRequest as error:
            return _json({"error": str(error)}, 400)
        return StreamingResponse(_lines(reports), media_type="application/x-ndjson")


async def _unavailable(_: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 503)


async def _lines(reports: Reports) -> AsyncIterator[bytes]:
    try:
        async with aclosing(reports):
            async for report in reports:
                yield orjson.dumps(report) + b"\n"
    except WalbatchError as error:
        yield orjson.dumps({"error": str(error)}) + b"\n"


def _json(document: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(document), status, media_type="application/json")


def write_token(directory: Path) -> str:
    """Make a new token for this run and store it for this user's eyes only."""
    token = secrets.token_urlsafe(32)
    # Written over the last one, whose block it takes: on a full disk there is no other.
    descriptor = os.open(directory / TOKEN_FILE, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        os.pwrite(descriptor, token.encode(), 0)
        os.ftruncate(descriptor, len(token))
    finally:
        os.close(descriptor)
    return token


def listen(address: str) -> socket.socket:
    """Bind HOST:PORT.

    Raises:
        ConfigurationError: the address is taken, or is not this machine's.
    """
    host, _, port = address.rpartition(":")
    try:
        return http_server.listen(host, int(port))
    except OSError as error:
        raise ConfigurationError(f"WALBATCH_ADMIN_LISTEN: cannot listen on {address}: {error.strerror}") from error


def check_host(app: AsgiApp, listener: socket.socket) -> AsgiApp:
    """Refuse requests for other hosts, unless the port was opened to the network on purpose."""
    if not listener.getsockname()[0].startswith(("127.", "::1")):
        return app

    async def checked(scope: Any, receive: Any, send: Any) -> None:
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name in LOCAL_NAMES or name.startswith("127."):
            await app(scope, receive, send)
        else:
            await PlainTextResponse("unknown host\n", 421)(scope, receive, send)

    return checked
