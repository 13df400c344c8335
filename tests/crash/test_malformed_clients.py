"""Clients that do not speak the protocol, say too much, or never read, beside one that behaves."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from bad_destination import destinations
from programs import Program, eventually, site
from settled import settled_account
from steady_client import TIME_MS, steady
from watching import MIB, memory

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

pytestmark = pytest.mark.crash

BROKEN = (sys.executable, str(Path(__file__).parent.parent / "support" / "broken_server.py"))
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS_FRAME = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
HANDSHAKES = {
    "HTTP/1.1": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "noise": bytes((index * 73 + 41) % 256 for index in range(500)),
    "silence": b"",
    "half a preface": PREFACE[:10],
    "no settings": PREFACE,
    "a frame of 16 MB": PREFACE + SETTINGS_FRAME + b"\xff\xff\xff\0\0\0\0\0\1",
}
"""What is sent at first, and then nothing. Who gets through the handshake may stay until it was idle for minutes."""
CLOSED_WITHIN_S = 10.0
"""Twice the time for a handshake."""
MOST_MEMORY = 64 * MIB
"""A thousand streams take some 30 MiB."""
MOST_STREAM_MEMORY = 512 * MIB
"""64 MiB of records may wait for the disk, 16 MiB are read ahead, and every stream holds one request more. Each of them
is in memory several times: as bytes, as message, as text, as record. The streams send 800 MB."""
SLOWEST_S = 5.0
"""A call of the client that behaves, on a machine that may be busy with other tests."""
TEXT = '{"text":"' + "x" * 400_000 + '"}'


def hang_up(address: tuple[str, int], said: bytes) -> float:
    """Say something, wait until the other side closes, and return how long that took."""
    began_s = time.monotonic()
    with socket.create_connection(address, CLOSED_WITHIN_S) as connection, suppress(ConnectionError):
        connection.sendall(said)
        while connection.recv(4096):
            assert time.monotonic() - began_s < CLOSED_WITHIN_S
    return time.monotonic() - began_s


def say_slowly(address: tuple[str, int]) -> float:
    """Send the preface a byte at a time, and return how long that was listened to."""
    began_s = time.monotonic()
    with socket.create_connection(address) as connection, suppress(ConnectionError, BrokenPipeError):
        connection.settimeout(0.4)
        for byte in PREFACE:
            connection.sendall(bytes([byte]))
            with suppress(TimeoutError):
                if not connection.recv(4096):
                    break
    return time.monotonic() - began_s


def handshakes(port: int, each: int) -> dict[str, float]:
    """Try everything at the same time, and return the longest that each was listened to."""
    took_s = dict.fromkeys([*HANDSHAKES, "a slow preface"], 0.0)

    def run(name: str) -> None:
        address = ("127.0.0.1", port)
        elapsed_s = hang_up(address, HANDSHAKES[name]) if name in HANDSHAKES else say_slowly(address)
        took_s[name] = max(took_s[name], elapsed_s)

    threads = [threading.Thread(target=run, args=[name]) for name in took_s for _ in range(each)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took_s


def raw(address: str, body: bytes, metadata: tuple[tuple[str, str], ...] = ()) -> grpc.StatusCode:
    """Send bytes as a message, and return the code."""
    with grpc.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/analytics.v1.AnalyticsService/Ingest")
        try:
            call(body, timeout=20, metadata=metadata)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


def refused(address: str) -> None:
    """Check that what is too large or no JSON is refused, each as it is documented."""
    too_much = {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert {raw(address, bytes(size)) for size in (5 * MIB, 60 * MIB)} == too_much
    assert raw(address, b"", (("x-long", "y" * 20_000),)) in too_much
    nested = "[" * 100_000 + "]" * 100_000
    wrong = ['{"a":NaN}', '{"a":' + nested + "}", '{"a":' + "9" * 100_000 + "}", '{"a":1e999}', '"' * 100, "\x00"]
    huge = json.dumps({"a": "x" * 1_200_000})
    with grpc.insecure_channel(address) as channel:
        stub = AnalyticsServiceStub(channel)
        for text in (*wrong, huge):
            with pytest.raises(grpc.RpcError) as refusal:
                stub.TrackEvent(pb.TrackEventRequest(event=pb.Event(name="E", properties_json=text)), timeout=20)
            assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def _never_read(address: str, streams: int, requests: list[pb.IngestStreamRequest], connections: int) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options) for _ in range(connections)]

    async def write(channel: grpc.aio.Channel) -> None:
        call = AnalyticsServiceStub(channel).IngestStream()
        with suppress(grpc.RpcError, asyncio.InvalidStateError, TimeoutError):
            for request in requests:
                await asyncio.wait_for(call.write(request), 5)

    await asyncio.gather(*(write(channels[number % connections]) for number in range(streams)))
    for channel in channels:
        await channel.close()


def never_read(address: str, log: Path, streams: int, *, large: bool = False) -> None:
    """Open many streams, write to all of them, and read nothing."""
    requests = []
    with log.open("a") as attempts:
        for sequence in range(1, 21 if large else 4):
            # One id for all streams: what is stored once is told from the rest by its id.
            event_id = f"{log.stem}-{time.monotonic_ns()}"
            attempts.write(f"attempt {event_id}\n")
            event = pb.Event(event_id=event_id, name="Stray", distinct_id="u", properties_json=TEXT if large else "{}")
            event.event_time.FromMilliseconds(TIME_MS)
            requests.append(pb.IngestStreamRequest(sequence=sequence, records=[pb.Record(event=event)]))
    asyncio.run(_never_read(address, streams, requests, connections=-(-streams // 100)))


def grown(server: Program, act: Callable[[], object]) -> int:
    """Return by how much the most memory that a server ever held has grown by something."""
    before = memory(server, "VmHWM")
    act()
    return memory(server, "VmHWM") - before


@pytest.mark.timeout(150)
def test_clients_that_misbehave(tmp_path: Path, matrix: Callable[..., None], rounds: Callable[[int, int], int]) -> None:
    """Each is closed or refused in time and in bounded memory, and one that behaves is served all the while."""
    times = rounds(1, 3)
    with site(tmp_path, flush_interval="100ms") as here, destinations() as there:
        one = there.add(here.out)
        here.delivers_to(one.port)
        server = here.serve()
        address, log = f"127.0.0.1:{here.grpc_port}", tmp_path / "stray.log"
        with steady(address, tmp_path / "client.log") as client:
            eventually(lambda: client.acked, "it is served")
            for _ in range(times):
                assert grown(server, lambda: refused(address)) < MOST_MEMORY
                assert grown(server, lambda: never_read(address, log, 1000)) < MOST_MEMORY
                took_s = handshakes(here.grpc_port, each=10 * times)
                assert max(took_s.values()) < CLOSED_WITHIN_S, took_s
        assert not client.failures
        assert max(client.latencies_s) < SLOWEST_S
        verdict = settled_account(here, [client.log, log])
        assert not verdict.dead
        assert not verdict.complaints(most_repeats=0)
    matrix(
        fault="clients that do not speak the protocol, say too much, or never read",
        rounds=(10 * times * (len(HANDSHAKES) + 1) + 10 + 1000) * times,
        **verdict.counts(),
        control=f"without limits: {unlimited(tmp_path / 'control') // MIB} MiB more for one message",
    )


def unlimited(path: Path) -> int:
    """Return how much memory one message takes of a server that has no limits."""
    path.mkdir()
    with site(path) as here:
        server = here.serve(entry=(*BROKEN, "limit_nothing"))
        taken = grown(server, lambda: raw(f"127.0.0.1:{here.grpc_port}", bytes(60 * MIB)))
    assert taken > MOST_MEMORY
    return taken


@pytest.mark.timeout(90)
def test_streams_that_carry_more_than_memory_should_hold(tmp_path: Path) -> None:
    """Of many streams with large requests each is read no further than there is room, and the others are served."""
    with site(tmp_path, flush_interval="100ms") as here, destinations() as there:
        one = there.add(here.out)
        here.delivers_to(one.port)
        server = here.serve()
        address, log = f"127.0.0.1:{here.grpc_port}", tmp_path / "stray.log"
        with steady(address, tmp_path / "client.log") as client:
            assert grown(server, lambda: never_read(address, log, 100, large=True)) < MOST_STREAM_MEMORY
            acked = client.acked
            eventually(lambda: client.acked > acked, "the other one is served")
        assert not settled_account(here, [client.log, log]).complaints(most_repeats=0)
