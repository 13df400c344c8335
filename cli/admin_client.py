"""Talk to the admin port of the server that owns a data directory. Standard library only: commands start fast."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from walbatch.errors import WalbatchError
from walbatch.ownership import owner

TIMEOUT_S = 10.0

ANY_HOST = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104  read, not listened on
"""Where a server that listens everywhere is found from here."""


class Unreachable(WalbatchError):
    """The server does not answer on its admin port."""

    exit_code = 4


class Refused(WalbatchError):
    """The server answered, and said no."""


class AdminClient:
    """One server's admin port."""

    def __init__(self, address: str, token: str) -> None:
        self._address = address
        self._token = token

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON object at a path."""
        with self._request("GET", path, None, TIMEOUT_S) as reply:
            return _document(reply)

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Post a JSON object and yield the answer's lines as they come; it may take as long as it takes."""
        with self._request("POST", path, body, None) as reply:
            for line in self._lines(reply):
                message = json.loads(line)
                if "error" in message:
                    raise Refused(message["error"])
                yield message

    def status(self, path: str) -> tuple[int, str]:
        """Return the status of a GET, and its text."""
        with self._request("GET", path, None, TIMEOUT_S) as reply:
            return reply.status, reply.read().decode()

    def page(self, *, with_token: bool) -> str:
        """Return the address of the server's page for people; with the token, it can also change things."""
        if with_token and not self._token:
            raise Refused("admin.token in the data directory cannot be read by this user")
        self.status("/livez")
        host, _, port = self._address.rpartition(":")
        address = f"{ANY_HOST.get(host, host)}:{port}"
        return f"http://{address}/" + (f"#token={self._token}" if with_token else "")

    def _lines(self, reply: HTTPResponse) -> Iterator[bytes]:
        """Yield the lines of an answer. Iterating over the reply would take a connection that broke for its end."""
        rest = b""
        try:
            while chunk := reply.read1():
                *lines, rest = (rest + chunk).split(b"\n")
                yield from lines
        except (OSError, HTTPException) as error:
            raise Unreachable(f"the server at {self._address} went away; run this again for the rest") from error
        if rest:
            yield rest

    @contextmanager
    def _request(
        self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float | None
    ) -> Iterator[HTTPResponse]:
        headers = {"Authorization": f"Bearer {self._token}"}
        with closing(HTTPConnection(self._address, timeout=timeout_s)) as connection:
            try:
                connection.request(method, path, None if body is None else json.dumps(body), headers)
                reply = connection.getresponse()
            except (OSError, HTTPException) as error:
                raise Unreachable(f"the server at {self._address} does not answer: {error}") from error
            yield reply


def _document(reply: HTTPResponse) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(reply.read())
    if reply.status != 200:  # noqa: PLR2004
        raise Refused(str(document.get("error", reply.reason)))
    return document


def connect(directory: Path) -> AdminClient:
    """Return the client of the directory's owner.

    Raises:
        Unreachable: the owner is still starting, or is no server.
    """
    address = owner(directory).get("admin")
    if not address:
        raise Unreachable(f"the process that has {directory} is not serving yet; try again in a moment")
    token = ""
    with suppress(OSError):  # the server refuses, in its own words, what needs the token
        token = (directory / "admin.token").read_text()
    return AdminClient(address, token)
