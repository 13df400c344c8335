"""A server that counts, in parts: both ports, a log on disk, delivery over a socket to a server with a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx
from log_records import open_log
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from scripted_delivery import LIMIT_S, TOKEN, Act, Server

from walbatch import admin, http_server
from walbatch.batching import BatchPolicy
from walbatch.dashboard.watch import Watch
from walbatch.decoding import Decoding
from walbatch.event import Kind
from walbatch.flusher import Flusher, Manner
from walbatch.ingest import TRANSPORT_MAX_BYTES, IngestService
from walbatch.metrics.exposition import Metrics
from walbatch.metrics.families import families
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub, add_AnalyticsServiceServicer_to_server
from walbatch.retry import Backoff, Breaker
from walbatch.sinks.http import HttpSink
from walbatch.sinks.mixpanel import Credentials, Mixpanel
from walbatch.testing.clock import FakeClock
from walbatch.wal.sqlite import SqliteLog

if TYPE_CHECKING:
    from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceAsyncStub as Stub

LIMIT_BYTES = 1_000_000

Samples = dict[str, dict[tuple[str, ...], float]]
"""By name, and by the values of the labels in the order of the family."""


def samples(parsed: Iterable[Metric]) -> Samples:
    """Return every sample; a bucket's bound is the last of its values."""
    known, found = families(), dict[str, dict[tuple[str, ...], float]]()
    for metric in parsed:
        for sample in metric.samples:
            family = known.get(sample.name) or known.get(metric.name)
            order = [*family.labels, *(["le"] if sample.name.endswith("_bucket") else [])] if family else sample.labels
            assert set(order) == set(sample.labels), sample
            found.setdefault(sample.name, {})[tuple(sample.labels[label] for label in order)] = sample.value
    return found


class Metered:
    """What is under way. Events are delivered once `deliver` was called; time stands still until it is moved."""

    def __init__(
        self, log: SqliteLog, clock: FakeClock, metrics: Metrics, channel: grpc.aio.Channel, client: httpx.AsyncClient
    ) -> None:
        self.log = log
        self.clock = clock
        self.metrics = metrics
        self.channel = channel
        self.stub: Stub = AnalyticsServiceStub(channel)
        self.client = client

    async def text(self) -> str:
        """Ask for the metrics."""
        answer = await self.client.get("/metrics")
        assert answer.status_code == 200
        return answer.text

    async def samples(self) -> Samples:
        """Ask for the metrics, and return what they say."""
        return samples(text_string_to_metric_families(await self.text()))

    async def counted(self, name: str) -> Mapping[tuple[str, ...], float]:
        """Return the rows of one family that are not 0."""
        return {row: value for row, value in (await self.samples())[name].items() if value}

    @asynccontextmanager
    async def deliver(self, script: Sequence[Act]) -> AsyncIterator[None]:
        """Deliver events to a server with a script, while the block runs."""
        server = Server(script)
        listener = await asyncio.start_server(server.connected, "127.0.0.1", 0)
        api = Mixpanel(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", Credentials(token=TOKEN))
        async with listener, HttpSink(api) as sink:
            flusher = Flusher(
                self.log,
                sink,
                "there",
                breaker=Breaker(Backoff(), self.clock, lambda: 0.0),
                clock=self.clock,
                manner=Manner({Kind.EVENT: BatchPolicy(size=1)}, max_in_flight=1),
                observe=self.metrics.deliveries.answered,
            )
            running = asyncio.create_task(flusher.run())
            try:
                yield
            finally:
                running.cancel()
                await asyncio.wait([running])
                await server.close()

    async def attempts(self, count: int) -> None:
        """Wait until so many batches were answered and settled."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                found = await self.samples()
                answered = sum(found["walbatch_delivery_attempts_total"].values())
                if answered >= count and not any(found["walbatch_events_in_flight"].values()):
                    return


@asynccontextmanager
async def metered(directory: Path, clock: FakeClock) -> AsyncIterator[Metered]:
    """Open a log for one destination, and both ports over it."""
    metrics = Metrics(["there"], LIMIT_BYTES)
    async with open_log(directory, clock, watch=metrics.log) as log:
        server = grpc.aio.server(
            interceptors=[Decoding(metrics.intake.ended)],
            options=[("grpc.max_receive_message_length", TRANSPORT_MAX_BYTES)],
        )
        add_AnalyticsServiceServicer_to_server(IngestService(log, clock, intake=metrics.intake), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        listener = admin.listen("127.0.0.1:0")
        watch = Watch(log, clock)
        asked = admin.Admin(log, clock, lambda: True, TOKEN, metrics=metrics, ask_now=lambda _: None, watch=watch)
        async with (
            http_server.serve(admin.check_host(asked.app, listener), listener),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            yield Metered(log, clock, metrics, channel, client)
        await server.stop(0)
