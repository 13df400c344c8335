"""Bytes that are no message of a call, answered like any other mistake of a client.

gRPC by itself answers UNKNOWN, and writes a traceback into the server's log for each of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from walbatch import rich_errors
from walbatch.errors import InvalidRecord

NOT_A_MESSAGE = InvalidRecord(
    "request", "NOT_A_MESSAGE", "is not a message of this call; does the client use the same proto?"
)


class Decoding(grpc.aio.ServerInterceptor):
    """Refuses unary calls whose request cannot be read. A stream finds out by itself, when it comes to that request."""

    def __init__(self) -> None:
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
            if handler is None or handler.unary_unary is None:
                return handler
            self._handlers[method] = _checked(handler)
        return self._handlers[method]


def _checked(handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
    read: Callable[[bytes], Any] = handler.request_deserializer or bytes
    answer: Any = handler.unary_unary

    def decode(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return NOT_A_MESSAGE

    async def checked(request: Any, context: Any) -> Any:
        if request is NOT_A_MESSAGE:
            await rich_errors.abort(context, NOT_A_MESSAGE)
        return await answer(request, context)

    return grpc.unary_unary_rpc_method_handler(checked, decode, handler.response_serializer)
