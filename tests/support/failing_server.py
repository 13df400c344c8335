"""The real gRPC service on a log in memory, in a thread of its own, that fails when it is told to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import grpc
from calls import uncounted

from walbatch import rich_errors
from walbatch.clock import SystemClock
from walbatch.errors import InvalidRecord, Unavailable
from walbatch.ingest import IngestService
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import add_AnalyticsServiceServicer_to_server
from walbatch.tracing import Context
from walbatch.wal.memory import MemoryLog

LIMIT_S = 60.0
"""After which a test has failed."""

Fault = InvalidRecord | Unavailable
Request = pb.TrackEventRequest | pb.IngestRequest


class Server(IngestService):
    """The real service on a log in memory, in a thread of its own; it keeps the requests, and fails when told to."""

    def __init__(self) -> None:
        self.log = MemoryLog(["there"], SystemClock())
        super().__init__(self.log, SystemClock(), intake=uncounted())
        self.requests: list[Request] = []
        self.fault: Callable[[Request], rich_errors.Refusal | None] = lambda _: None
        """Says how a request fails before anything of it is stored."""
        self.status: grpc.StatusCode | None = None
        """With what every request fails, as something between the two might answer."""
        self.lost_answers = 0
        """How many requests fail after they were stored."""
        self.lost_with = grpc.StatusCode.UNAVAILABLE
        """How those fail."""
        self.silent = False
        """Whether requests are left without an answer."""
        self.address = ""
        self._ended = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run)

    async def TrackEvent(self, request: pb.TrackEventRequest, context: Context) -> pb.TrackEventResponse:  # noqa: N802
        """Answer one event."""
        await self._fail(request, context)
        return await super().TrackEvent(request, context)

    async def Ingest(self, request: pb.IngestRequest, context: Context) -> pb.IngestResponse:  # noqa: N802
        """Answer several records."""
        await self._fail(request, context)
        reply = await super().Ingest(request, context)
        if self.lost_answers:
            self.lost_answers -= 1
            await context.abort(self.lost_with, "the connection broke")
        return reply

    async def _fail(self, request: Request, context: Context) -> None:
        self.requests.append(request)
        if error := self.fault(request):
            await rich_errors.abort(context, error)
        if self.status:
            await context.abort(self.status, "not for you")
        if self.silent:
            await asyncio.Event().wait()

    def names(self) -> list[str]:
        """Return the names of the stored events and updates, in order."""
        return [record.name for record in self.log._records]

    def start(self) -> None:
        """Serve, and return when the address is known."""
        self._thread.start()
        assert self._listening.wait(LIMIT_S)

    def stop(self) -> None:
        """Stop, and wait for it."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", 8 * 2**20)])
        add_AnalyticsServiceServicer_to_server(self, server)
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        self._listening.set()
        await self._ended.wait()
        await server.stop(0)
