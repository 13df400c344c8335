"""What tests of the gRPC calls start from: a log that can be held back, records, and the errors that calls end with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_status import rpc_status

from walbatch.batching import BatchPolicy
from walbatch.decoding import Decoding
from walbatch.errors import Unavailable
from walbatch.event import Kind, Record
from walbatch.ingest import TRANSPORT_MAX_BYTES, IngestService
from walbatch.metrics.counting import Counts, Intake
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub, add_AnalyticsServiceServicer_to_server
from walbatch.testing.clock import FakeClock
from walbatch.wal import Appended, Lane
from walbatch.wal.memory import MemoryLog

if TYPE_CHECKING:
    from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceAsyncStub as Stub


class GatedLog(MemoryLog):
    """A log that can fail, or hold its answers back."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(["there"], clock)
        self.durability = "fsynced"
        self.error: Unavailable | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.calls = 0
        self.called = asyncio.Event()

    async def append(self, records: Sequence[Record]) -> list[Appended]:
        """Append, when the test lets it."""
        self.calls += 1
        self.called.set()
        await self.gate.wait()
        if self.error:
            raise self.error
        return await super().append(records)

    async def stored(self, kind: Kind = Kind.EVENT) -> Sequence[str]:
        """Hand out everything of a kind."""
        return (await self.fetch(Lane("there", kind), BatchPolicy().at_once())).payloads


@asynccontextmanager
async def served(service: IngestService, *around: Decoding) -> AsyncIterator[Stub]:
    """A client of the service on a real port, with what stands around every call."""
    server = grpc.aio.server(interceptors=around, options=[("grpc.max_receive_message_length", TRANSPORT_MAX_BYTES)])
    add_AnalyticsServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield AnalyticsServiceStub(channel)
    await server.stop(0)


def uncounted() -> Intake:
    """Return counts that nobody reads."""
    return Intake(Counts([]))


def event(name: str = "Tick", **fields: Any) -> pb.Event:
    """A small valid event."""
    return pb.Event(name=name, distinct_id="u1", **fields)


def records(*events: pb.Event) -> list[pb.Record]:
    """Events as records."""
    return [pb.Record(event=e) for e in events]


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    """Return the error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def unpack(error: grpc.aio.AioRpcError, kind: type[Any]) -> Any:
    """Return the one detail of a kind that an error carries."""
    status = rpc_status.from_call(error)
    found = []
    for packed in status.details:
        message = kind()
        if packed.Unpack(message):
            found.append(message)
    (detail,) = found
    return detail


class Ended(Exception):
    """How the server ended a call."""


class Caller:
    """What the server sees of a client, as far as it matters here."""

    async def abort(self, code: grpc.StatusCode, *_: object) -> None:
        """End the call."""
        raise Ended(code)
