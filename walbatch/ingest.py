"""The gRPC calls: decode, validate, append, answer. Nothing here waits for a destination."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

import grpc
from google.protobuf.message import DecodeError

from walbatch import rich_errors, wire
from walbatch.clock import Clock
from walbatch.decoding import not_a_message
from walbatch.errors import InvalidRecord, LogClosed, Unavailable
from walbatch.event import Record
from walbatch.metrics.counting import Intake
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceServicer
from walbatch.tracing import NO_TRACING, Context, Tracing
from walbatch.wal import Appended, EventLog

Inbox = asyncio.Queue[pb.IngestStreamRequest | None]
"""What was read of one stream; None is its end."""

MAX_RECORDS = 2000
"""Records of one request."""

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""Bytes of one request: gRPC's own default, checked here a little earlier so that the answer can say what to do."""

TRANSPORT_MAX_BYTES = MAX_REQUEST_BYTES + 64 * 1024
"""What the transport lets through."""

STREAM_WINDOW = 32
"""Requests of one stream that are read ahead of the commit. Beyond it HTTP/2 flow control slows the client down."""

READ_AHEAD_BYTES = 16 * 1024 * 1024
"""Of the requests that all streams together have read ahead. Beyond it each stream holds one, however many there are:
with the window alone 200 streams with large requests took 800 MB."""

_DURABILITY = {
    "fsynced": pb.DURABILITY_FSYNCED,
    "replicated": pb.DURABILITY_REPLICATED,
    "buffered": pb.DURABILITY_BUFFERED,
}


class IngestService(AnalyticsServiceServicer):
    """`analytics.v1.AnalyticsService` on top of a log. `intake` counts what comes and what is answered."""

    def __init__(self, log: EventLog, clock: Clock, *, intake: Intake, tracing: Tracing = NO_TRACING) -> None:
        self._log = log
        self._tracing = tracing
        self._clock = clock
        self._intake = intake
        self._durability = _DURABILITY[log.durability]
        self._draining = asyncio.Event()
        self._ahead = _ReadAhead()

    def drain(self) -> None:
        """End every stream after what it has been acknowledged; unary calls end by themselves."""
        self._draining.set()

    async def TrackEvent(self, request: pb.TrackEventRequest, context: Context) -> pb.TrackEventResponse:
        """Append one event."""
        message, started_s = request.event, self._clock.monotonic_s()
        self._intake.received("TrackEvent", 1)
        with self._tracing.call("TrackEvent", context) as trace:
            try:
                record, appended = await self._log.append_one(partial(self._event, message, trace), message.ByteSize())
            except (InvalidRecord, Unavailable) as error:
                self._intake.not_stored(error)
                await rich_errors.abort(context, error)
        self._intake.acknowledged("TrackEvent", appended.duplicate, self._clock.monotonic_s() - started_s)
        return pb.TrackEventResponse(
            event_id=record.event_id, duplicate=appended.duplicate, durability=self._durability
        )

    def _event(self, message: pb.Event, trace: str) -> Record:
        record = wire.event(message, self._clock.wall_ms())
        return record._replace(trace=trace) if trace else record

    async def IdentifyUser(self, request: pb.IdentifyUserRequest, context: Context) -> pb.IdentifyUserResponse:
        """Append a profile update and, if asked for, an identity link: both or none."""
        started_s, count = self._clock.monotonic_s(), wire.identify_count(request)
        self._intake.received("IdentifyUser", count)
        with self._tracing.call("IdentifyUser", context) as trace:
            try:
                records = wire.identify(request, self._clock.wall_ms())
                appended, _ = await self._append("IdentifyUser", records, started_s, trace)
            except InvalidRecord as error:
                self._intake.not_stored(error, count)
                await rich_errors.abort(context, error)
            except Unavailable as error:
                await rich_errors.abort(context, error)
        return pb.IdentifyUserResponse(
            event_id=records[0].event_id, duplicate=appended[0].duplicate, durability=self._durability
        )

    async def Ingest(self, request: pb.IngestRequest, context: Context) -> pb.IngestResponse:
        """Append the valid records of a request, and name the others."""
        started_s = self._clock.monotonic_s()
        self._intake.received("Ingest", len(request.records))
        with self._tracing.call("Ingest", context) as trace:
            try:
                records, rejections = self._screen(request)
                appended, duplicates = await self._append("Ingest", records, started_s, trace)
            except (InvalidRecord, Unavailable) as error:
                await rich_errors.abort(context, error)
        return pb.IngestResponse(
            accepted_count=len(appended) - duplicates,
            duplicate_count=duplicates,
            rejections=rejections,
            durability=self._durability,
        )

    async def IngestStream(
        self, request_iterator: AsyncIterator[pb.IngestStreamRequest], context: Context
    ) -> AsyncIterator[pb.IngestStreamResponse]:
        """Append the requests of a stream; all that arrive during one commit share the next, and its answer."""
        inbox: Inbox = asyncio.Queue(STREAM_WINDOW)
        reader = asyncio.create_task(_read(request_iterator, inbox, self._ahead))
        sequence = 0
        try:
            while requests := await self._arrived(inbox):
                sequence = _check_order(requests, sequence)
                with self._tracing.call("IngestStream", context) as trace:
                    answer = await self._append_requests(requests, trace)
                yield answer
            if self._draining.is_set():  # even if the client has sent its last: a stop looks the same from here
                raise LogClosed("walbatch is shutting down; send what was not acknowledged on a new stream")
            if wrong := await reader:
                raise wrong
        except (InvalidRecord, Unavailable) as error:
            await rich_errors.abort(context, error)
        finally:
            reader.cancel()
            while not inbox.empty():
                self._ahead.taken(inbox.get_nowait())

    async def _arrived(self, inbox: Inbox) -> list[pb.IngestStreamRequest]:
        """Return all requests that are there, at least one; none if the stream has ended or should."""
        first = asyncio.ensure_future(inbox.get())
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait((first, draining), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if first.done() and not first.cancelled():
                self._ahead.taken(first.result())  # it is out of the inbox, and nobody will store it
            raise
        finally:
            draining.cancel()
            first.cancel()  # which does nothing if it is done
        if not first.done():
            return []
        requests = [first.result()]
        while requests[-1] is not None and not inbox.empty():
            requests.append(inbox.get_nowait())
        if requests[-1] is None and len(requests) > 1:
            inbox.put_nowait(None)  # the end, for the next round
        for request in requests:
            self._ahead.taken(request)
        return [request for request in requests if request is not None]

    async def _append_requests(self, requests: Sequence[pb.IngestStreamRequest], trace: str) -> pb.IngestStreamResponse:
        started_s = self._clock.monotonic_s()
        records: list[Record] = []
        rejections: list[pb.StreamRejection] = []
        self._intake.received("IngestStream", sum(len(request.records) for request in requests))
        for request in requests:
            valid, refused = self._screen(request)
            records += valid
            rejections += (pb.StreamRejection(sequence=request.sequence, rejection=rejection) for rejection in refused)
        appended, duplicates = await self._append("IngestStream", records, started_s, trace)
        return pb.IngestStreamResponse(
            acked_sequence=requests[-1].sequence,
            rejections=rejections,
            accepted_count=len(appended) - duplicates,
            duplicate_count=duplicates,
            durability=self._durability,
        )

    async def _append(
        self, method: str, records: Sequence[Record], started_s: float, trace: str
    ) -> tuple[list[Appended], int]:
        """Append valid records of a request, and count what came of it; return where they are, and the duplicates."""
        traced = [record._replace(trace=trace) for record in records] if trace else records
        try:
            appended = await self._log.append(traced)
        except Unavailable as error:
            self._intake.not_stored(error, len(records))
            raise
        duplicates = sum(a.duplicate for a in appended)
        self._intake.acknowledged(method, duplicates, self._clock.monotonic_s() - started_s)
        return appended, duplicates

    def _screen(self, request: pb.IngestRequest | pb.IngestStreamRequest) -> tuple[list[Record], list[pb.Rejection]]:
        """Return the valid records of a request, and why the others are refused."""
        if len(request.records) > MAX_RECORDS or request.ByteSize() > MAX_REQUEST_BYTES:
            limits = f"{MAX_RECORDS} records and {MAX_REQUEST_BYTES} bytes"
            too_large = InvalidRecord(
                "records", "BATCH_TOO_LARGE", f"is more than one request may carry ({limits}); split it"
            )
            self._intake.not_stored(too_large, len(request.records))
            raise too_large
        now_ms = self._clock.wall_ms()
        records: list[Record] = []
        rejections: list[pb.Rejection] = []
        for index, message in enumerate(request.records):
            try:
                record = wire.record(message, now_ms)
            except InvalidRecord as error:
                rejections.append(self._rejection(index, error))
                continue
            if (refusal := self._log.refusal(record)) is not None:
                rejections.append(self._rejection(index, refusal))
            else:
                records.append(record)
        return records, rejections

    def _rejection(self, index: int, error: InvalidRecord) -> pb.Rejection:
        self._intake.not_stored(error)
        return pb.Rejection(index=index, field=error.field, reason=error.reason, description=error.description)


class _ReadAhead:
    """What all streams together have read and not yet begun to store."""

    def __init__(self) -> None:
        self._bytes = 0
        self._changed = asyncio.Event()

    def read(self, request: pb.IngestStreamRequest) -> None:
        """Count a request."""
        self._bytes += request.ByteSize()

    def taken(self, request: pb.IngestStreamRequest | None) -> None:
        """Count it no more."""
        if request is not None:
            self._bytes -= request.ByteSize()
            self._changed.set()

    async def room(self, inbox: Inbox) -> None:
        """Wait until a stream may read on: it has nothing left, or all together do not have too much."""
        while self._bytes >= READ_AHEAD_BYTES and not inbox.empty():
            self._changed.clear()
            await self._changed.wait()


async def _read(
    requests: AsyncIterator[pb.IngestStreamRequest], inbox: Inbox, ahead: _ReadAhead
) -> InvalidRecord | Unavailable | None:
    """Move requests into the inbox, and None after the last one, or after the stream broke; return what was wrong."""
    wrong: InvalidRecord | Unavailable | None = None
    try:
        async for request in requests:
            await inbox.put(request)
            ahead.read(request)
            await ahead.room(inbox)
    except (grpc.aio.BaseError, grpc.RpcError):
        wrong = LogClosed("the stream broke; send what was not acknowledged on a new one")
    except DecodeError:
        wrong = not_a_message()
    await inbox.put(None)
    return wrong


def _check_order(requests: Sequence[pb.IngestStreamRequest], last: int) -> int:
    """Return the sequence of the last request, or refuse the stream if the numbers do not rise."""
    for request in requests:
        if request.sequence <= last:
            raise InvalidRecord(
                "sequence",
                "OUT_OF_ORDER",
                f"is {request.sequence} after {last}; number the requests of a stream from 1 up",
            )
        last = request.sequence
    return last
