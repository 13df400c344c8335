"""Around every call: bytes that are no message of it are answered like any other mistake, and its end is told.

gRPC by itself answers UNKNOWN for such bytes, and writes a traceback into the server's log for each of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from walbatch import rich_errors
from walbatch.errors import InvalidRecord, without_frames

Ended = Callable[[str, str], None]
"""Told of the end of a call: its method, without the service, and the name of its status."""


def not_a_message() -> InvalidRecord:
    """Return why bytes are refused that are no message of their call."""
    return InvalidRecord(
        "request", "NOT_A_MESSAGE", "is not a message of this call; does the client use the same proto?"
    )


class Decoding(grpc.aio.ServerInterceptor):
    """Refuses unary calls whose request cannot be read. A stream finds out by itself, when it comes to that request.

    `ended` is called at the end of each call, also of one whose client gave up.
    """

    def __init__(self, ended: Ended = lambda _method, _code: None) -> None:
        self._ended = ended
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return what handles a call."""
        method = handler_call_details.method
        if method not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            name = method.rpartition("/")[2]
            if handler.unary_unary is not None:
                handler = _checked(handler, name, self._ended)
            elif handler.stream_stream is not None:
                handler = _followed(handler, name, self._ended)
            self._handlers[method] = handler
        return self._handlers[method]


def _checked(handler: grpc.RpcMethodHandler[Any, Any], name: str, ended: Ended) -> grpc.RpcMethodHandler[Any, Any]:
    read: Callable[[bytes], Any] = handler.request_deserializer or bytes
    answer: Any = handler.unary_unary

    def decode(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return None

    async def checked(request: Any, context: Any) -> Any:
        try:
            if request is None:
                await rich_errors.abort(context, not_a_message())
            reply = await answer(request, context)
        except BaseException as error:
            ended(name, rich_errors.status_of(error, context).name)
            if isinstance(error, grpc.aio.AbortError):
                without_frames(error)  # gRPC's context keeps it, and the frames have the context and the request
            raise
        ended(name, "OK")
        return reply

    return grpc.unary_unary_rpc_method_handler(checked, decode, handler.response_serializer)


def _followed(handler: grpc.RpcMethodHandler[Any, Any], name: str, ended: Ended) -> grpc.RpcMethodHandler[Any, Any]:
    answer: Any = handler.stream_stream

    async def followed(requests: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async with aclosing(answer(requests, context)) as replies:
                async for reply in replies:
                    yield reply
        except BaseException as error:
            ended(name, rich_errors.status_of(error, context).name)
            if isinstance(error, grpc.aio.AbortError):
                without_frames(error)
            raise
        ended(name, "OK")

    return grpc.stream_stream_rpc_method_handler(followed, handler.request_deserializer, handler.response_serializer)
