"""One peer's rate: peer.py PEER MODE DIRECTORY SECONDS PROGRAM PAYLOAD, run by the Python of bench/tools.sh.

PEER is persist-queue, nats or redis; MODE is one or batch. The servers are started here, on a free port.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

BATCH, IN_FLIGHT, CALLERS = 50, 64, 8


def persist_queue(directory: Path, seconds: float, payload: str) -> float:
    """A queue in SQLite within the process: WAL, synchronous=FULL, and one commit for each event in any case."""
    from persistqueue import SQLiteAckQueue  # noqa: PLC0415

    queue = SQLiteAckQueue(str(directory))
    started, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - started) < seconds:
        queue.put(payload)
        count += 1
    return count / taken


async def in_loop(append: Callable[[], Awaitable[object]], size: int, callers: int, seconds: float) -> float:
    """Append again and again, so many callers at once, each waiting for its answer."""
    end = time.perf_counter() + seconds
    count = 0

    async def work() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await append()
            count += size

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(callers)))
    return count / (time.perf_counter() - started)


async def nats(mode: str, port: int, monitor: int, seconds: float, payload: bytes) -> float:
    """A stream on disk whose server syncs before each acknowledgement. A batch is 50 publishes under way at once."""
    from nats import connect  # noqa: PLC0415

    with urllib.request.urlopen(f"http://127.0.0.1:{monitor}/varz", timeout=5) as answer:  # noqa: ASYNC210
        if not json.load(answer)["jetstream"]["config"].get("sync_always"):
            raise RuntimeError("NATS does not sync each message")
    client = await connect(f"nats://127.0.0.1:{port}")
    stream = client.jetstream(publish_async_max_pending=CALLERS * BATCH)
    await stream.add_stream(name="bench", subjects=["bench"])

    async def one() -> None:
        await stream.publish("bench", payload)

    async def batch() -> None:
        futures = [await stream.publish_async("bench", payload) for _ in range(BATCH)]
        await asyncio.gather(*futures)

    try:
        return await (in_loop(one, 1, IN_FLIGHT, seconds) if mode == "one" else in_loop(batch, BATCH, CALLERS, seconds))
    finally:
        await client.close()


async def redis(mode: str, port: int, seconds: float, payload: bytes) -> float:
    """A stream in memory whose file is synced before each answer. A batch is a pipeline of 50 commands."""
    from redis.asyncio import Redis  # noqa: PLC0415

    client = Redis(port=port, max_connections=IN_FLIGHT)
    if (await client.config_get("appendfsync"))["appendfsync"] != "always":
        raise RuntimeError("Redis does not sync each answer")

    async def one() -> None:
        await client.xadd("bench", {"payload": payload})

    async def batch() -> None:
        pipeline = client.pipeline(transaction=False)
        for _ in range(BATCH):
            pipeline.xadd("bench", {"payload": payload})
        await pipeline.execute()

    try:
        return await (in_loop(one, 1, IN_FLIGHT, seconds) if mode == "one" else in_loop(batch, BATCH, CALLERS, seconds))
    finally:
        await client.aclose()


def command_of(peer: str, program: str, directory: Path, port: int, monitor: int) -> list[str]:
    """Return how a peer's server is started, with its data on the disk that is measured, safe at each answer."""
    if peer == "redis":
        options = f"--port {port} --bind 127.0.0.1 --dir {directory} --appendonly yes --appendfsync always --save"
        return [program, *options.split(), "", "--loglevel", "warning"]
    config = directory / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\nhttp: "127.0.0.1:{monitor}"\n'
        f'jetstream {{ store_dir: "{directory}", sync_interval: always }}\n'
    )
    return [program, "-c", str(config)]


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Wait until a server listens."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{server.args!r} does not listen")


def main(peer: str, mode: str, directory: Path, seconds: float, *, program: str, payload: str) -> float:
    """Return the events that were appended each second."""
    if peer == "persist-queue":
        return persist_queue(directory, seconds, payload)
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as first,
        closing(socket.create_server(("127.0.0.1", 0))) as second,
    ):
        port, monitor = (free.getsockname()[1] for free in (first, second))
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(command_of(peer, program, directory, port, monitor), stdout=log, stderr=log)
        try:
            wait_for(port, server)
            if peer == "redis":
                return asyncio.run(redis(mode, port, seconds, payload.encode()))
            return asyncio.run(nats(mode, port, monitor, seconds, payload.encode()))
        except BaseException:
            sys.stderr.write((directory / "log").read_text())
            raise
        finally:
            server.terminate()
            server.wait(30)


if __name__ == "__main__":
    rate = main(
        sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]), program=sys.argv[5], payload=sys.argv[6]
    )
    print(json.dumps({"events_per_s": rate}))
