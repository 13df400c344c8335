"""What stands before the fake's endpoints: paths and methods, cross-origin rules, probes. One ASGI application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from walbatch.clock import Clock
from walbatch.sinks.mixpanel import Reply
from walbatch.testing.connection import Connection
from walbatch.testing.exchange import Sent, error_reply
from walbatch.testing.faults import EXPORT, OK, Fault

ENDPOINTS = ("/import", "/track", "/engage", "/groups", EXPORT)
METHODS = ("GET", "POST", "OPTIONS")

Answering = Callable[[Sent, str], Awaitable[tuple[Reply, Fault]]]
"""From a request and the sender's address to the answer, and how it is to be delivered."""


class Edge:
    """Takes requests in and delivers what `answer` says."""

    def __init__(self, answer: Answering, clock: Clock) -> None:
        self._answer = answer
        self._clock = clock

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one request."""
        http = HttpRequest(scope, receive)
        # Read it all, whatever the answer: a sender that is still writing would see a reset instead.
        try:
            body = await http.body()
        except ClientDisconnect:
            return  # nobody is there to read an answer
        path = http.url.path.rstrip("/") or "/"
        fault: Fault = OK
        reply = _aside(http.method, path)
        if reply is None:
            sent = Sent(path, http.query_params, http.headers, body)
            reply, fault = await self._answer(sent, http.client.host if http.client else "")
        reply = replace(reply, headers={**reply.headers, **_cross_origin(http)})
        await Connection(receive, send).deliver(reply, fault, self._clock)


def _aside(method: str, path: str) -> Reply | None:
    """Answer what is no request for data: probes, a browser's question whether it may, and mistakes."""
    if path in ("/", "/healthz"):
        return Reply(200, {"content-type": "text/plain"}, b"ok\n")
    if path not in ENDPOINTS:
        return error_reply(404, "Not Found")
    if method == "OPTIONS":
        return Reply(204)
    return None if method in METHODS else error_reply(405, "Method Not Allowed")


def _cross_origin(http: HttpRequest) -> dict[str, str]:
    """Return the headers that let a page of any origin read the answer, with its cookies."""
    origin = http.headers.get("origin")
    if not origin:
        return {}
    headers = {
        "access-control-allow-origin": origin,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": ", ".join(METHODS),
        "vary": "Origin",
    }
    asked = http.headers.get("access-control-request-headers")
    return headers | {"access-control-allow-headers": asked} if asked else headers
