"""Destinations that misbehave on real sockets, each in one way at a time, switched while the server under test runs.

They live in a thread of their own, and work on bytes: no HTTP library would write most of these answers. In the mode
`good` one takes what it is sent as Mixpanel would, and writes it down as `walbatch sink` does.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from programs import free_port

LIMIT_S = 30.0
ROUNDS = 10
"""Of the event loop, after which it has done what follows from something that has happened."""
SMALL_BODY = 50_000
"""What `413 early` still takes."""

T = TypeVar("T")


class Request(NamedTuple):
    """What has been read of a request, and how to go on."""

    path: str
    length: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def body(self) -> bytes:
        """Read the rest."""
        return await self.reader.readexactly(self.length)


Behaviour = Callable[[Request], Awaitable[None]]


def says(status: str, body: str = "", *headers: str) -> Behaviour:
    """Return the behaviour that reads a request and gives one complete answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", body]
    return writes("\r\n".join(lines).encode())


def writes(data: bytes) -> Behaviour:
    """Return the behaviour that reads a request, writes these bytes, and closes."""

    async def behave(request: Request) -> None:
        await request.body()
        request.writer.write(data)
        await request.writer.drain()
        request.writer.close()

    return behave


async def _hang(request: Request) -> None:
    await request.body()
    await asyncio.Event().wait()


async def _reset(request: Request) -> None:
    await request.body()
    raw: socket.socket = request.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.writer.transport.abort()


async def _drip(request: Request) -> None:
    await request.body()
    request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        request.writer.write(b" ")
        await request.writer.drain()
        await asyncio.sleep(0.02)


async def _flood(request: Request) -> None:
    await request.body()
    request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n")
    for _ in range(40):
        request.writer.write(b"x" * 1_000_000)
        await request.writer.drain()


_HTML = "<html>no</html>"

MODES: dict[str, Behaviour] = {
    "no answer": _hang,
    "a reset": _reset,
    "closed without an answer": writes(b""),
    "half a body": writes(b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"code":200'),
    "garbage for a status line": writes(b"SSH-2.0-OpenSSH\r\n\r\n"),
    "200 kB of headers": writes(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n1"),
    "an answer in drips": _drip,
    "an answer of 40 MB": _flood,
    "302": says("302 Found", "", "Location: http://127.0.0.1:1/"),
    "200 with status 0": says("200 OK", '{"status":0}', "Content-Type: application/json"),
    "200 with a page": says("200 OK", _HTML, "Content-Type: text/html"),
    "400 with a page": says("400 Bad Request", _HTML),
    "400 with a list": says("400 Bad Request", "[]"),
    "500": says("500 Internal Server Error"),
    "503, half a second": says("503 Service Unavailable", "", "Retry-After: 0.5"),
    "408": says("408 Request Timeout", "", "Retry-After: -5"),
    "429, -5": says("429 Too Many Requests", "", "Retry-After: -5"),
    "429, 1e9": says("429 Too Many Requests", "", "Retry-After: 1e9"),
    "429, NaN": says("429 Too Many Requests", "", "Retry-After: NaN"),
    "429, a date gone by": says("429 Too Many Requests", "", "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT"),
    "429, a billion": says("429 Too Many Requests", "", "Retry-After: 1000000000"),
    "408, a date far off": says(
        "408 Request Timeout",
        "",
        "Date: Sun, 06 Nov 1994 08:49:37 GMT",
        "Retry-After: Fri, 06 Nov 2099 08:49:37 GMT",
    ),
}
"""What a destination does with every request, by name. There are also `good`, `413 early` and `no place`."""

NO_PLACE = "no place"
"""Connections wait in a queue that is full: the handshake of TCP is never answered."""

LISTENS = "listens"
"""Everything is read, and nothing answered."""


class BadDestination:
    """One address. What it took is in `out`, a JSON line a record."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.port = free_port()
        self.mode = "good"
        self.latency_s = 0.0
        """Between taking a request and the answer."""
        self.largest = 0
        """Bytes of the largest request's body since the mode was set."""
        self.arrivals: list[float] = []
        """When each request began since the mode was set, in monotonic seconds."""
        self.received = bytearray()
        """What arrived since the mode was set: after TLS, where there is TLS."""
        self._server: asyncio.Server | None = None
        self._queue: list[socket.socket] = []
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def lines(self) -> list[str]:
        """Return the lines of what it took, in order."""
        return self.out.read_text().splitlines() if self.out.exists() else []

    async def switch(self, mode: str, tls: ssl.SSLContext | None = None) -> None:
        """Break every connection, and listen again in another mode. Run it in the thread, by `Destinations.run`."""
        await self.close()
        self.mode = mode
        self.largest = 0
        self.arrivals.clear()
        self.received.clear()
        if mode == NO_PLACE:
            listener = socket.create_server(("127.0.0.1", self.port), backlog=0)
            self._queue = [listener, socket.create_connection(listener.getsockname())]
            return
        # A short window, so that a large request cannot be written before somebody reads it.
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        listener.bind(("127.0.0.1", self.port))
        self._server = await asyncio.start_server(self._connected, sock=listener, ssl=tls)

    async def close(self) -> None:
        """Break every connection, and stop listening."""
        for waiting in self._queue:
            waiting.close()
        self._queue = []
        if self._server is not None:
            # asyncio leaves a connection open for ever that it accepted just before its server is closed.
            for listener in self._server.sockets:
                asyncio.get_running_loop().remove_reader(listener.fileno())
            for _ in range(ROUNDS):
                await asyncio.sleep(0)
            self._server.close()
            self._server = None
        for _ in range(ROUNDS):
            for task, writer in list(self._open.items()):
                writer.transport.abort()
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await asyncio.sleep(0)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._converse(reader, writer))
        self._open[task] = writer
        task.add_done_callback(lambda done: self._open.pop(done, None))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while self.mode == LISTENS and (data := await reader.read(65_536)):
                self.received += data
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                self.received += head
                self.arrivals.append(time.monotonic())
                lines = head.decode("latin-1").split("\r\n")
                length = next(line for line in lines if line.lower().startswith("content-length:"))
                self.largest = max(self.largest, int(length.partition(":")[2]))
                path = lines[0].split(" ")[1].partition("?")[0]
                await self._answer(Request(path, int(length.partition(":")[2]), reader, writer))
        writer.close()

    async def _answer(self, request: Request) -> None:
        if self.mode == "413 early" and request.length > SMALL_BODY:
            request.writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            request.writer.close()
        elif self.mode in MODES:
            await MODES[self.mode](request)
        else:
            await self._take(request)

    async def _take(self, request: Request) -> None:
        body = await request.body()
        self.received += body
        records = json.loads(gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body)
        with self.out.open("a") as out:
            out.writelines(json.dumps({"endpoint": request.path, "record": record}) + "\n" for record in records)
        await asyncio.sleep(self.latency_s)
        counts = {"num_records_imported": len(records)} if request.path == "/import" else {}
        answer = json.dumps({"code": 200, "status": "OK", **counts})
        request.writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n{answer}".encode())
        await request.writer.drain()


class Destinations:
    """Any number of bad destinations in one thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="destinations")
        self._made: list[BadDestination] = []

    def add(self, out: Path, mode: str = "good", tls: ssl.SSLContext | None = None) -> BadDestination:
        """Open an address in this mode."""
        made = BadDestination(out)
        self._made.append(made)
        self.run(made.switch(mode, tls))
        return made

    def switch(self, destination: BadDestination, mode: str, tls: ssl.SSLContext | None = None) -> None:
        """Break its connections, and go on in another mode."""
        self.run(destination.switch(mode, tls))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT_S)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Close everything, and wait for the thread."""
        for made in self._made:
            self.run(made.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def destinations() -> Iterator[Destinations]:
    """A thread for destinations, which ends with the block."""
    made = Destinations()
    made.start()
    try:
        yield made
    finally:
        made.stop()
