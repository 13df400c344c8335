"""What a browser may do with what the admin port answers: run our files, talk to this port, and nothing else."""

from __future__ import annotations

from typing import Any

from starlette.datastructures import MutableHeaders

from walbatch.http_server import AsgiApp

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Pages of others get nothing either: no script or picture of theirs may be one of these answers.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # The files as well: they are small, and those of the version before would misread the numbers of this one.
    "Cache-Control": "no-store",
}


def with_headers(app: AsgiApp) -> AsgiApp:
    """Return the application with these headers on every answer."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await app(scope, receive, send_with_headers)

    return serve
