"""The HTTP sink on real sockets: against the fake Mixpanel, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import orjson
import pytest

from walbatch.clock import SystemClock
from walbatch.delivery import DELIVERED, Answer, Hold, Pause, Rejected, Settled, Split
from walbatch.errors import ConfigurationError
from walbatch.event import Kind, profile_update, track
from walbatch.sinks.http import INLINE_BYTES, MAX_REPLY_BYTES, HttpSink
from walbatch.sinks.mixpanel import Credentials, Mixpanel, Reply
from walbatch.testing.mixpanel import FakeMixpanel, serve_fake

TOKEN = "0123456789abcdef0123456789abcdef"
CLOCK = SystemClock()

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def events(count: int, **properties: object) -> list[str]:
    """Return payloads of good events."""
    return [
        track(name="E", distinct_id="u1", properties=properties | {"i": i}, now_ms=CLOCK.wall_ms()).payload
        for i in range(count)
    ]


def updates(count: int, **properties: object) -> list[str]:
    """Return payloads of good profile updates."""
    return [
        profile_update(
            distinct_id="u1", operation="$set", properties=properties | {"i": i}, now_ms=CLOCK.wall_ms()
        ).payload
        for i in range(count)
    ]


def sink_for(url: str, timeout_s: float = 10.0, credentials: Credentials | None = None) -> HttpSink:
    """Return a sink for an address."""
    return HttpSink(Mixpanel(url, credentials or Credentials(token=TOKEN)), timeout_s=timeout_s)


async def send(url: str, payloads: list[str], kind: Kind = Kind.EVENT, timeout_s: float = 10.0) -> Answer:
    """Send one request with a sink of its own."""
    async with sink_for(url, timeout_s) as sink:
        return await sink.send(kind, payloads)


@asynccontextmanager
async def misbehaving(behave: Behaviour) -> AsyncIterator[str]:
    """Serve connections with one behaviour, and yield the address."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            try:
                await behave(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(run(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Read a request's head and body, and return the body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return await reader.readexactly(int(length.partition(b":")[2]))


def answering(data: bytes) -> Behaviour:
    """Return the behaviour that reads a request, writes these bytes and closes."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(data)
        await writer.drain()

    return behave


async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Read everything and never answer."""
    await reader.read()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read the request, then reset the connection."""
    await read_request(reader)
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a byte now and then, for ever."""
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await CLOCK.wait(asyncio.Event(), 0.01)


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer 13 MB."""
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 13000000\r\n\r\n")
    for _ in range(13):
        writer.write(b"x" * 1_000_000)
        await writer.drain()


async def reset_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reset the connection when the first byte comes."""
    await reader.read(1)
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


TOO_LATE = Hold("no complete answer within 1.5 s", unknown=True)
BROKEN = Hold("the answer broke off, or is not HTTP", unknown=True)
SITUATIONS: dict[str, tuple[Behaviour, Answer]] = {
    "no answer": (hang, TOO_LATE),
    "answer in drips": (drip, TOO_LATE),
    "reset": (reset, Hold("the connection broke while waiting for the answer", unknown=True)),
    "closed without an answer": (answering(b""), BROKEN),
    "garbage for a status line": (answering(b"SSH-2.0-OpenSSH\r\n\r\n"), BROKEN),
    "half a body": (answering(b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"code":200'), BROKEN),
    "endless headers": (answering(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n1"), BROKEN),
    "13 MB": (flood, Hold(f"the answer is longer than {MAX_REPLY_BYTES} bytes", unknown=True)),
    "redirect": (
        answering(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
        Pause("302 Found, check the address; redirects are not followed"),
    ),
    "200 with a page": (
        answering(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>"),
        Hold("200 OK, but the body is not understood", unknown=True),
    ),
    "200 that ends with the connection": (answering(b"HTTP/1.0 200 OK\r\n\r\n1"), Settled([DELIVERED], "200")),
}


@pytest.mark.parametrize(("behave", "expected"), SITUATIONS.values(), ids=SITUATIONS)
async def test_a_server_that_misbehaves(behave: Behaviour, expected: Answer) -> None:
    """Whatever a server does, the sink answers in time, and no trouble becomes a verdict."""
    async with asyncio.timeout(20), misbehaving(behave) as url:
        assert await send(url, events(1), timeout_s=1.5 if expected == TOO_LATE else 10.0) == expected


async def test_nobody_listens() -> None:
    """A refused connection holds, and the reason says so."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    answer = await send(url, events(1))
    assert isinstance(answer, Hold)
    assert answer.reason.startswith("cannot connect")
    assert not answer.unknown


async def test_tls_towards_a_plain_port() -> None:
    """A failed handshake holds: it is the connection's trouble, not the records'."""
    async with misbehaving(answering(b"")) as url:
        answer = await send(url.replace("http:", "https:"), events(1), timeout_s=1.0)
    assert answer == Hold("no connection in time")


async def test_a_connection_that_breaks_while_sending_leaves_it_open() -> None:
    """Of a request that has begun nobody can say how much was read."""
    async with misbehaving(reset_at_once) as url:
        answer = await send(url, updates(100, text="x" * 100_000), Kind.PROFILE)
    assert isinstance(answer, Hold)
    assert "connection broke" in answer.reason
    assert answer.unknown


async def test_a_host_that_takes_no_connection() -> None:
    """Where the handshake of TCP is never answered, nothing was sent."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as full,
        socket.create_connection(full.getsockname()),  # the only place in its queue
    ):
        answer = await send(f"http://127.0.0.1:{full.getsockname()[1]}", events(1), timeout_s=1.0)
    assert answer == Hold("no connection in time")


async def test_waiting_for_a_free_connection_sends_nothing() -> None:
    """A request that never got a connection leaves nothing open, though another one is under way."""
    received = asyncio.Event()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        received.set()
        await hang(reader, writer)

    async with (
        misbehaving(behave) as url,
        HttpSink(Mixpanel(url, Credentials(token=TOKEN)), timeout_s=60.0, max_connections=1) as sink,
    ):
        first = asyncio.create_task(sink.send(Kind.EVENT, events(1)))
        await received.wait()
        sink._timeout_s = 0.2
        assert await sink.send(Kind.EVENT, events(1)) == Hold("no complete answer within 0.2 s", unknown=False)
        first.cancel()
        await asyncio.wait([first])


async def test_a_redirect_takes_no_credentials_along() -> None:
    """Where a redirect points to, nobody ever connects."""
    visits: list[str] = []

    async def elsewhere(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        visits.append((await reader.read(1000)).decode())

    async with misbehaving(elsewhere) as target:
        for status in (301, 302, 303, 307, 308):
            head = f"HTTP/1.1 {status} Moved\r\nLocation: {target}/import\r\nContent-Length: 0\r\n\r\n"
            async with misbehaving(answering(head.encode())) as url:
                assert isinstance(await send(url, events(1)), Pause)
    assert visits == []


async def test_a_list_of_authorities_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wrong SSL_CERT_FILE is told at the start, by its name."""
    for file in (tmp_path / "missing.pem", Path(__file__)):
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
            async with sink_for("https://127.0.0.1:1"):
                pass


@pytest.mark.parametrize("url", ["api.mixpanel.com", "ftp://example.test", "http://", "http://a\nb"])
async def test_an_address_that_is_none(url: str) -> None:
    """A wrong address needs a person."""
    assert await send(url, events(1)) == Pause("the destination's address is no http or https URL")


async def test_cancelling_is_not_an_answer() -> None:
    """Cancelled while it waits, the sink raises the cancellation and can be used again."""
    received = asyncio.Event()

    async def wait_then_serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        if received.is_set():
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
        received.set()
        await reader.read()

    async with misbehaving(wait_then_serve) as url, sink_for(url) as sink:
        sending = asyncio.create_task(sink.send(Kind.EVENT, events(1)))
        await received.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert await sink.send(Kind.EVENT, events(1)) == Settled([DELIVERED], "200")


async def test_a_repeated_send_puts_the_same_bytes_on_the_wire() -> None:
    """Even the compressed body is the same, small or so large that a thread builds it."""
    bodies: list[bytes] = []

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await read_request(reader))
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

    small, large = events(3), events(300, text="x" * 1000)
    assert sum(map(len, large)) > INLINE_BYTES
    async with misbehaving(record) as url:
        for payloads in (small, small, large, large):
            assert await send(url, payloads) == Hold("503 Service Unavailable")
    assert bodies[0] == bodies[1]
    assert bodies[2] == bodies[3]
    assert gzip.decompress(bodies[2]).decode() == f"[{','.join(large)}]"


async def test_requests_share_a_connection() -> None:
    """Batch after batch goes over one connection, which closes with the sink."""
    ends: list[asyncio.Event] = []

    async def keep_alive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(asyncio.Event())
        with suppress(asyncio.IncompleteReadError):
            while True:
                await read_request(reader)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
        ends[-1].set()

    async with misbehaving(keep_alive) as url:
        async with sink_for(url) as sink:
            for _ in range(3):
                await sink.send(Kind.EVENT, events(1))
        async with asyncio.timeout(5):
            await ends[0].wait()
    assert len(ends) == 1


async def test_events_are_delivered() -> None:
    """Events that walbatch accepts, Mixpanel accepts."""
    fake = FakeMixpanel(token=TOKEN)
    payloads = events(50, city="Köln", price=1.0)
    async with serve_fake(fake) as url:
        assert await send(url, payloads) == Settled([DELIVERED] * 50, "200")
    assert fake.records == [("/import", orjson.loads(payload)) for payload in payloads]


async def test_exactly_the_refused_events_are_rejected() -> None:
    """The fake's verdicts arrive at their positions, with the reason."""
    good, bad = events(1)[0], events(1)[0].replace('"time":', '"time":9')
    async with serve_fake(FakeMixpanel()) as url:
        answer = await send(url, [good, bad, good])
    message = "'properties.time' is invalid: must not be in the future"
    rejected = Rejected(400, "properties.time", message)
    assert answer == Settled([DELIVERED, rejected, DELIVERED], "400: refused 1 of 3")


async def test_two_thousand_refused_events_are_all_named() -> None:
    """The longest list of refusals there can be is shorter than what is read of an answer."""
    bad = [payload.replace('"time":', '"time":9') for payload in events(2000)]
    async with serve_fake(FakeMixpanel()) as url:
        answer = await send(url, bad)
    assert isinstance(answer, Settled)
    assert {type(outcome) for outcome in answer.outcomes} == {Rejected}


async def test_profile_updates_are_delivered_with_the_token() -> None:
    """Profile updates arrive with the project's token in front."""
    fake = FakeMixpanel()
    update = profile_update(distinct_id="u1", operation="$set", properties={"plan": "pro"}, now_ms=CLOCK.wall_ms())
    async with serve_fake(fake) as url:
        assert await send(url, [update.payload], Kind.PROFILE) == Settled([DELIVERED], "200")
        nothing = ['{"$distinct_id":"u1"}']
        assert await send(url, nothing, Kind.PROFILE) == Split(200, "operation, missing or unknown")
    assert fake.records == [("/engage", {"$token": TOKEN} | orjson.loads(update.payload))]


async def test_profile_updates_without_a_token_are_not_sent() -> None:
    """With a service account alone nothing goes out, and the answer says what to set."""
    fake = FakeMixpanel()
    account = Credentials(service_account="bot", service_secret="secret", project_id=1)
    async with serve_fake(fake) as url, sink_for(url, credentials=account) as sink:
        answer = await sink.send(Kind.PROFILE, ['{"$distinct_id":"u1"}'])
    assert isinstance(answer, Pause)
    assert answer.reason.startswith("set the project's token")
    assert not fake.requests


async def test_wrong_credentials_pause() -> None:
    """Mixpanel does not know the token: a person has to look."""
    async with serve_fake(FakeMixpanel(token="another")) as url:
        answer = await send(url, events(1))
    assert isinstance(answer, Pause)
    assert answer.reason.startswith("401 Unauthorized")


async def test_too_large_a_request_is_split_at_the_named_limit() -> None:
    """The limit in the answer reaches whoever cuts the batches."""
    async with serve_fake(FakeMixpanel(max_bytes=1000)) as url:
        assert await send(url, events(20)) == Split(413, "request exceeds max limit of 1000 bytes", 1000)


async def test_a_wish_to_be_left_alone_is_passed_on() -> None:
    """Retry-After travels with the Hold."""
    fake = FakeMixpanel()
    fake.script.append(Reply(429, {"Retry-After": "17"}))
    async with serve_fake(fake) as url:
        assert await send(url, events(1)) == Hold("429 Too Many Requests", 17.0, throttled=True)


async def test_an_outage_ends() -> None:
    """The same sink delivers as soon as the destination does."""
    fake = FakeMixpanel(fail_rate=1.0)
    async with serve_fake(fake) as url, sink_for(url) as sink:
        assert await sink.send(Kind.EVENT, events(1)) == Hold("503 Service Unavailable")
        fake.fail_rate = 0.0
        assert await sink.send(Kind.EVENT, events(1)) == Settled([DELIVERED], "200")
