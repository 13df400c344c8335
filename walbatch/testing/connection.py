"""How an answer goes over the connection: whole, in drops, by half, or not at all."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, assert_never

from walbatch.clock import Clock
from walbatch.sinks.mixpanel import Reply
from walbatch.testing.faults import Fault, Manner

Message = MutableMapping[str, Any]

_BODILESS = (204, 304)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Connection:
    """The two callables of an ASGI request."""

    receive: Callable[[], Awaitable[Message]]
    send: Callable[[Message], Awaitable[None]]

    async def deliver(self, reply: Reply, fault: Fault, clock: Clock) -> None:
        """Answer in the manner of the fault.

        Raises: ConnectionResetError where there is no connection to break, as in a client that calls the
        application directly.
        """
        match fault.manner:
            case Manner.WHOLE:
                await self._start(reply)
                await self._body(_body(reply))
            case Manner.RESET:
                await self._reset()
            case Manner.HALF:
                await self._start(reply)
                await self._body(_body(reply)[: len(reply.body) // 2], more=True)
                self._transport().close()
                await self._gone()
            case Manner.DRIP:
                await self._start(reply)
                await self._drip(_body(reply), fault.between_s, clock)
            case _:
                assert_never(fault.manner)

    async def _start(self, reply: Reply) -> None:
        headers = {name.lower(): value for name, value in reply.headers.items()}
        if reply.status not in _BODILESS:
            headers["content-length"] = str(len(reply.body))
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": reply.status, "headers": pairs})

    async def _body(self, part: bytes, *, more: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": part, "more_body": more})

    async def _drip(self, body: bytes, between_s: float, clock: Clock) -> None:
        for at in range(len(body)):
            await self._body(body[at : at + 1], more=True)
            await clock.wait(asyncio.Event(), between_s)
        await self._body(b"")

    async def _reset(self) -> None:
        transport = self._transport()
        with suppress(OSError):  # the other end may be gone already
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
        await self._gone()

    async def _gone(self) -> None:
        """Wait until the server knows that the connection is closed: it would answer a 500 otherwise."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    def _transport(self) -> Any:
        # ASGI has no way to break a connection. uvicorn's `send` is a method of the request that holds the transport.
        transport = getattr(getattr(self.send, "__self__", None), "transport", None)
        if transport is None:
            raise ConnectionResetError("the script breaks the connection, and there is none")
        return transport


def _body(reply: Reply) -> bytes:
    return b"" if reply.status in _BODILESS else reply.body
