"""Send records over gRPC until they are acknowledged. Imported only by a command that sends, because grpc is large."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
from google.rpc import error_details_pb2 as details
from grpc_status import rpc_status

from walbatch.errors import InvalidRecord, WalbatchError
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub
from walbatch.retry import Backoff
from walbatch.units import format_duration

from .intake import Batch, Refusal

IN_FLIGHT = 4
"""Requests under way at once: one is in its fsync while the next ones travel."""

CALL_TIMEOUT_S = 30.0
"""Time for one try."""

_BACKOFF = Backoff(base_s=0.1, max_s=5.0, attempts=0)

_OPTIONS = [
    # Waits of the channel before it connects anew, in step with ours; the defaults grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.enable_http_proxy", 0),  # a proxy for web pages does not lead to this server
]

_NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
"""What gRPC itself says when nobody answers. The last one is for calls that wait at a server at the moment it stops."""


class Failed(WalbatchError):
    """The server did not take the records, however often it was asked."""


class Unanswered(Failed):
    """Nobody ever answered at the address."""

    exit_code = 4


@dataclass(frozen=True, slots=True)
class Ack:
    """What became of the lines of one batch."""

    accepted: int = 0
    duplicates: int = 0
    durability: str = ""
    refusals: tuple[Refusal, ...] = ()


class Client:
    """A connection to one server, as a context. Leaving it cancels what is under way.

    Every call is repeated unchanged, so with the same ids, while the server is away or asks for time: for at most
    `retry_for_s` after its first failure. The server stores a repeated record once.
    """

    def __init__(self, address: str, retry_for_s: float) -> None:
        self._address = address
        self._retry_for_s = retry_for_s
        self._channel = grpc.insecure_channel(address, _OPTIONS)
        self._stub = AnalyticsServiceStub(self._channel)
        self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="send")
        self._leaving = threading.Event()
        self._answered = False
        self._chance = random.random

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leaving.set()
        self._channel.close()  # first, since it ends the calls for which the threads wait
        self._pool.shutdown(cancel_futures=True)

    def track(self, event: pb.Event) -> Ack:
        """Send one event.

        Raises:
            InvalidRecord: The server refuses it.
            Failed: It was not acknowledged; it may be stored.
        """
        reply: pb.TrackEventResponse = self._call(self._stub.TrackEvent, pb.TrackEventRequest(event=event))
        return Ack(int(not reply.duplicate), int(reply.duplicate), _durability(reply.durability))

    def ingest(self, batches: Iterable[Batch | None]) -> Iterator[tuple[Batch, Ack]]:
        """Send batches, a few at once, and yield each when it and all before it are acknowledged.

        A None among the batches is a pause in the input, used to yield what is done.

        Raises:
            Failed: The batch after the last one yielded was not acknowledged; it and later ones may be stored.
        """
        under_way: deque[tuple[Batch, Future[Ack]]] = deque()
        for batch in batches:
            if batch is not None:
                under_way.append((batch, self._pool.submit(self._ingest, batch)))
            while under_way and (len(under_way) >= IN_FLIGHT or under_way[0][1].done()):
                oldest, future = under_way.popleft()
                yield oldest, future.result()
        for oldest, future in under_way:
            yield oldest, future.result()

    def _ingest(self, batch: Batch) -> Ack:
        if not batch.records:
            return Ack(refusals=tuple(batch.refusals))
        try:
            reply: pb.IngestResponse = self._call(self._stub.Ingest, pb.IngestRequest(records=batch.records))
        except InvalidRecord as error:  # not of a record, since those are refused in an answer
            raise Failed(f"the server at {self._address} refuses the request: {error}") from None
        refused = [Refusal(batch.numbers[r.index], r.field, r.reason, r.description) for r in reply.rejections]
        return Ack(
            reply.accepted_count,
            reply.duplicate_count,
            _durability(reply.durability),
            tuple(sorted(batch.refusals + refused, key=lambda refusal: refusal.line)),
        )

    def _call(self, method: Callable[..., Any], request: pb.TrackEventRequest | pb.IngestRequest) -> Any:
        failures = 0
        until_s = 0.0
        while True:
            try:
                reply = method(request, timeout=CALL_TIMEOUT_S)
            except grpc.RpcError as error:
                failures += 1
                now_s = time.monotonic()
                until_s = until_s or now_s + self._retry_for_s
                delay_s = self._judge(error, failures)
                if now_s + delay_s > until_s or self._leaving.wait(delay_s):
                    raise self._failure(error) from None
            else:
                self._answered = True
                return reply

    def _judge(self, error: Any, failures: int) -> float:
        """Return how long to wait before the next try.

        Raises:
            InvalidRecord, Failed: There is no point in another try.
        """
        code, told = error.code(), _details(error)
        self._answered |= bool(told) or code not in _NO_ANSWER
        own_s = _BACKOFF.delay_s(failures, self._chance())
        match told.get("RetryInfo"):
            case details.RetryInfo(retry_delay=delay) if code in (*_NO_ANSWER, grpc.StatusCode.RESOURCE_EXHAUSTED):
                return max(own_s, float(delay.ToMilliseconds()) / 1000)
        if code in _NO_ANSWER:
            return own_s
        match told.get("BadRequest"):
            case details.BadRequest(field_violations=[violation, *_]):
                raise InvalidRecord(violation.field, violation.reason, violation.description)
        raise self._failure(error)

    def _failure(self, error: Any) -> Failed:
        if not self._answered:
            spent = f"for {format_duration(self._retry_for_s)}" if self._retry_for_s else "once"
            return Unanswered(f"the server at {self._address} does not answer (tried {spent}): {error.details()}")
        return Failed(f"the server at {self._address} does not take them: {error.code().name}: {error.details()}")


def _details(error: Any) -> dict[str, Any]:
    """Return the google.rpc details of a status, by the name of their type."""
    found: dict[str, Any] = {}
    with suppress(ValueError):  # a proxy in between may have changed half of it
        status = rpc_status.from_call(error)
        for packed in status.details if status else ():
            kind = getattr(details, packed.TypeName().rpartition(".")[2], None)
            if kind is not None:
                packed.Unpack(message := kind())
                found[kind.__name__] = message
    return found


def _durability(value: pb.Durability) -> str:
    return pb.Durability.Name(value).removeprefix("DURABILITY_").lower()
