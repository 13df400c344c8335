"""A flusher that delivers over a socket to a server with a script. Everything is real but the clock."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
from flusher_rig import WatchedLog

from walbatch.batching import BatchPolicy
from walbatch.clock import SystemClock
from walbatch.delivery import Delivered, Rejected
from walbatch.event import Kind, Record, group_update, profile_update, track
from walbatch.flusher import Flusher, Manner
from walbatch.retry import Backoff, Breaker
from walbatch.sinks.http import HttpSink
from walbatch.sinks.mixpanel import Credentials, Mixpanel
from walbatch.testing.clock import FakeClock

TOKEN = "0123456789abcdef0123456789abcdef"
LIMIT_S = 30.0
Act = Callable[[Sequence[str], asyncio.StreamWriter], Awaitable[None]]
"""What the server does once it has read a request, given the names of its records."""


def says(status: int, body: Any = b"", **headers: str) -> Act:
    """Answer with a body: bytes, or anything else as JSON."""

    async def act(_: Sequence[str], writer: asyncio.StreamWriter) -> None:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + data)
        await writer.drain()

    return act


def writes(data: bytes) -> Act:
    """Write these bytes, and close."""

    async def act(_: Sequence[str], writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return act


def good(names: Sequence[str]) -> Act:
    """Say that all were taken, in a way that every endpoint understands."""
    return says(200, {"code": 200, "error": None, "status": 1, "num_records_imported": len(names)})


async def hang(_: Sequence[str], writer: asyncio.StreamWriter) -> None:
    """Say nothing for as long as the connection lasts."""
    await writer.wait_closed()


async def drip(_: Sequence[str], writer: asyncio.StreamWriter) -> None:
    """Answer a byte now and then, for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await SystemClock().wait(asyncio.Event(), 0.01)


async def reset(_: Sequence[str], writer: asyncio.StreamWriter) -> None:
    """Reset the connection."""
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def record(kind: Kind, name: str, now_ms: int) -> Record:
    """Build a record by which the server can tell the name."""
    match kind:
        case Kind.EVENT:
            return track(name=name, event_id=f"id-{name}", properties={}, now_ms=now_ms)
        case Kind.PROFILE:
            return profile_update(distinct_id=name, operation="$set", properties={"a": 1}, now_ms=now_ms)
        case Kind.GROUP:
            return group_update(
                group_key="company", group_id=name, operation="$set", properties={"a": 1}, now_ms=now_ms
            )


def name_of(sent: Mapping[str, Any]) -> str:
    """Return the name of a record that was sent."""
    return str(sent.get("event") or sent.get("$distinct_id") or sent["$group_id"])


class Server:
    """Answers request after request by its script, and takes everything once that has come to its end."""

    def __init__(self, script: Sequence[Act] | Callable[[Sequence[str]], Act]) -> None:
        acts = iter(() if callable(script) else script)
        self._rule = script if callable(script) else lambda names: next(acts, good(names))
        self.requests: list[list[str]] = []
        """The names of the records in each request."""
        self.sizes: list[int] = []
        """The unpacked bytes of each request."""
        self._tasks: set[asyncio.Task[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        self._tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
                body = await reader.readexactly(int(length.partition(b":")[2]))
                body = gzip.decompress(body) if b"content-encoding: gzip" in head else body
                self.sizes.append(len(body))
                self.requests.append([name_of(one) for one in orjson.loads(body)])
                await self._rule(self.requests[-1])(self.requests[-1], writer)
            finally:
                writer.close()
                await writer.wait_closed()

    async def close(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Delivery:
    """A log, a flusher and a server, under way."""

    def __init__(self, kind: Kind, server: Server, sink: HttpSink) -> None:
        self.clock = FakeClock()
        self.kind = kind
        self.server = server
        self.log = WatchedLog(self.clock)
        self.breaker = Breaker(Backoff(), self.clock, lambda: 0.0)
        self.flusher = Flusher(
            self.log,
            sink,
            "there",
            breaker=self.breaker,
            clock=self.clock,
            manner=Manner({each: BatchPolicy(size=1) for each in Kind}, max_in_flight=1),
        )

    async def append(self, names: Sequence[str]) -> None:
        """Append a record of each name."""
        await self.log.append([record(self.kind, name, self.clock.wall_ms()) for name in names])

    async def settled(self, times: int) -> None:
        """Wait until so many batches were settled, halves and all."""
        async with asyncio.timeout(LIMIT_S):
            while len(self.log.settlements) < times:
                self.log.settled.clear()
                await self.log.settled.wait()

    def fates(self) -> list[str]:
        """What became of each record, in order, by the latest word."""
        latest: dict[int, str] = {}
        for settlement in self.log.settlements:
            for offset, outcome in zip(settlement.batch.offsets, settlement.outcomes, strict=True):
                assert latest.get(offset, "pending") == "pending", "settled for good, and then sent again"
                match outcome:
                    case Delivered():
                        latest[offset] = "sent"
                    case Rejected(reason=reason):
                        latest[offset] = f"dead: {reason}"
                    case _:
                        latest[offset] = "pending"
        return [latest[offset] for offset in sorted(latest)]

    async def counts(self) -> tuple[int, int, int]:
        """How many are pending, sent and dead, as the log counts them."""
        lanes = (await self.log.backlog()).destinations[0].lanes
        return lanes[self.kind].pending, lanes[self.kind].sent, lanes[self.kind].dead


@asynccontextmanager
async def delivering(
    names: Sequence[str],
    script: Sequence[Act] | Callable[[Sequence[str]], Act],
    kind: Kind = Kind.EVENT,
    timeout_s: float = 10.0,
) -> AsyncIterator[Delivery]:
    """Deliver records to a server with a script."""
    server = Server(script)
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    api = Mixpanel(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", Credentials(token=TOKEN))
    async with listener, HttpSink(api, timeout_s=timeout_s) as sink:
        delivery = Delivery(kind, server, sink)
        await delivery.append(names)
        running = asyncio.create_task(delivery.flusher.run())
        try:
            yield delivery
        finally:
            running.cancel()
            await asyncio.wait([running])
            await server.close()
