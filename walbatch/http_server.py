"""Serve an ASGI application on a socket of ours, for as long as a context lasts.

uvicorn by itself would take over SIGTERM and SIGINT, and end only its own part of the program.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


def listen(host: str, port: int) -> socket.socket:
    """Bind a TCP socket. An IPv6 host may be in brackets; port 0 takes any free one.

    Raises:
        OSError: the address is taken, or is not this machine's.
    """
    host = host.strip("[]")
    # Without the protocol's number asyncio does not take it for TCP and leaves Nagle on: 40 ms more for each answer.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener


@asynccontextmanager
async def serve(app: AsgiApp, listener: socket.socket) -> AsyncIterator[None]:
    """Answer requests from entering to leaving; requests under way then get one second."""
    server = _Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http server")
    try:
        await server.listening.wait()
        yield
    finally:
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()
