"""From our exceptions to gRPC statuses with google.rpc details, one mapping for all calls.

    InvalidRecord            INVALID_ARGUMENT     BadRequest, ErrorInfo     correct it; do not send it again unchanged
    NoRoom                   RESOURCE_EXHAUSTED   RetryInfo, ErrorInfo      wait long, or keep it on your side
    any other Unavailable    UNAVAILABLE          RetryInfo, ErrorInfo      send it again with the same id

Every status has exactly one ErrorInfo, with a stable reason, as https://google.aip.dev/193 asks.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2
from grpc_status import rpc_status

from walbatch.errors import InvalidRecord, NoRoom, Unavailable

DOMAIN = "walbatch"

Refusal = InvalidRecord | Unavailable
"""What a call can be refused with."""


async def abort(context: grpc.aio.ServicerContext[object, object], error: Refusal) -> NoReturn:
    """End a call with the status of an error."""
    status = rpc_status.to_status(_status(error, status_of(error, context)))
    metadata = tuple(status.trailing_metadata)
    if isinstance(error, Unavailable) and not isinstance(error, NoRoom):
        metadata += (("grpc-retry-pushback-ms", str(round(error.retry_after_s * 1000))),)
    await context.abort(status.code, status.details, metadata)
    raise AssertionError("abort returned")


def status_of(error: BaseException, context: grpc.aio.ServicerContext[object, object]) -> grpc.StatusCode:
    """Return the status of a call that an exception ends, whether `abort` was called with it yet or not."""
    match error:
        case InvalidRecord():
            return grpc.StatusCode.INVALID_ARGUMENT
        case NoRoom():
            return grpc.StatusCode.RESOURCE_EXHAUSTED
        case Unavailable():
            return grpc.StatusCode.UNAVAILABLE
        case grpc.aio.AbortError():
            return grpc.StatusCode(context.code())
        case asyncio.CancelledError() | GeneratorExit():
            return grpc.StatusCode.CANCELLED
        case _:
            return grpc.StatusCode.UNKNOWN


def _status(error: Refusal, code: grpc.StatusCode) -> status_pb2.Status:
    match error:
        case InvalidRecord():
            violation = details.BadRequest.FieldViolation(
                field=error.field, description=error.description, reason=error.reason
            )
            bad_request = details.BadRequest(field_violations=[violation])
            return _pack(code, error, [bad_request, _info(error.reason, field=error.field)])
        case Unavailable():
            delay = Duration()
            delay.FromMilliseconds(round(error.retry_after_s * 1000))
            return _pack(code, error, [details.RetryInfo(retry_delay=delay), _info(error.reason)])


def _info(reason: str, **metadata: str) -> details.ErrorInfo:
    return details.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)


def _pack(code: grpc.StatusCode, error: Refusal, messages: list[Message]) -> status_pb2.Status:
    packed = [Any() for _ in messages]
    for any_message, message in zip(packed, messages, strict=True):
        any_message.Pack(message)
    return status_pb2.Status(code=code.value[0], message=str(error), details=packed)
