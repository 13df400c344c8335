"""The sink that talks HTTP: the only module that knows httpx.

httpx has no limit on the whole of a request, nor on the size of an answer; both are set here. It reads no proxy
or `.netrc` from the environment, follows no redirect with the credentials in hand, and checks certificates: by
certifi's list of authorities, or by that in SSL_CERT_FILE or SSL_CERT_DIR, which are OpenSSL's own names for it.

What becomes of a request without a reply: always a `Hold`. The records may have been taken (`unknown`) from the moment
that the first byte of the request is written, which httpcore tells: the server may act on what it has read whether or
not its answer arrives.

    what happened                                         may have been taken
    ----------------------------------------------------  -------------------
    no connection, no TLS, no free connection in time     no
    time-out while building the request                   no
    time-out while sending it, or waiting for the answer  perhaps
    the connection broke while sending, or waiting        perhaps
    half an answer, no HTTP, or too long an answer        perhaps
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Self

import httpx

from walbatch.delivery import Answer, Hold, Pause, Untrusted
from walbatch.errors import ConfigurationError
from walbatch.event import Kind
from walbatch.sinks.mixpanel import Mixpanel, Reply, Request, one_line

TIMEOUT_S = 30.0
"""The whole of one request, from building it to the last byte of the answer."""

CONNECT_TIMEOUT_S = 10.0
"""For the connection, and again for TLS. Within `TIMEOUT_S`, so that a host that drops packets is told from one that
answers slowly, and because httpcore forgets the socket of a handshake that is cancelled from outside."""

KEEPALIVE_S = 30.0
"""Longer than the interval between batches at rest, so that they share a connection."""

MAX_REPLY_BYTES = 1_048_576
"""More is no answer of Mixpanel's. The longest one names 2,000 refused records, at about 300 bytes each."""

INLINE_BYTES = 256_000
"""Larger requests are built in a thread: compressing them would hold up the event loop for milliseconds."""

_FAILURES: tuple[tuple[type[httpx.HTTPError], str], ...] = (
    (httpx.ConnectTimeout, "no connection in time"),
    (httpx.ConnectError, "cannot connect"),
    (httpx.RemoteProtocolError, "the answer broke off, or is not HTTP"),
    (httpx.ReadError, "the connection broke while waiting for the answer"),
    (httpx.WriteError, "the connection broke while sending"),
)


_NO_STREAM = httpx.ByteStream(b"")


class _Progress:
    """How far a request has come; httpcore calls it at every step."""

    def __init__(self) -> None:
        self.begun = False
        """Whether a byte of the request may have left."""

    async def __call__(self, step: str, info: Mapping[str, Any]) -> None:
        del info  # it holds headers and body
        if step == "http11.send_request_headers.started":
            self.begun = True


class HttpSink:
    """Sends records to Mixpanel, or to what stands in for it."""

    _client: httpx.AsyncClient

    def __init__(self, api: Mixpanel, *, timeout_s: float = TIMEOUT_S, max_connections: int = 10) -> None:
        self._api = api
        self._timeout_s = timeout_s
        self._max_connections = max_connections

    async def __aenter__(self) -> Self:
        """Prepare the connections; the first request opens the first one.

        Raises:
            ConfigurationError: the list of authorities cannot be read.
        """
        self._client = httpx.AsyncClient(
            # Nothing may come back compressed: an answer's size is counted as it is read.
            headers={"Accept-Encoding": "identity"},
            limits=httpx.Limits(
                max_connections=self._max_connections,
                max_keepalive_connections=self._max_connections,
                keepalive_expiry=KEEPALIVE_S,
            ),
            timeout=httpx.Timeout(None, connect=min(CONNECT_TIMEOUT_S, self._timeout_s / 3)),  # the rest: see `send`
            verify=_tls(),
            http1=True,
            http2=False,
            trust_env=False,
            follow_redirects=False,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def send(self, kind: Kind, payloads: Sequence[str]) -> Answer:
        """Send records in one request; see `walbatch.sinks.Sink`. Whatever goes wrong on the way is a `Hold`."""
        progress = _Progress()
        try:
            async with asyncio.timeout(self._timeout_s):
                request = await self._build(kind, payloads)
                if isinstance(request, Pause):
                    return request
                reply = await self._exchange(request, progress)
        except TimeoutError:
            return Hold(f"no complete answer within {self._timeout_s:g} s", unknown=progress.begun)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return _translate(error, begun=progress.begun)
        if reply is None:
            return Hold(f"the answer is longer than {MAX_REPLY_BYTES} bytes", unknown=True)
        return self._api.answer(kind, payloads, reply)

    async def _build(self, kind: Kind, payloads: Sequence[str]) -> Request | Pause:
        if sum(map(len, payloads)) <= INLINE_BYTES:
            return self._api.request(kind, payloads)
        return await asyncio.to_thread(self._api.request, kind, payloads)

    async def _exchange(self, request: Request, progress: _Progress) -> Reply | None:
        """Send, and read the answer: None if it is too long."""
        response = await self._client.send(
            self._client.build_request(
                request.method,
                request.url,
                params=request.params,
                headers=request.headers,
                content=request.body,
                extensions={"trace": progress},
            ),
            stream=True,
        )
        try:
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_REPLY_BYTES:
                    return None
            return Reply(response.status_code, dict(response.headers), bytes(body))
        finally:
            await response.aclose()
            # httpx ties a response and its stream into a cycle. What was sent, and megabytes that were received, would
            # stay in memory until Python looks for cycles: 60 requests later, 250 MiB while long answers came.
            response.stream = _NO_STREAM


def _tls() -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context(trust_env=True)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"SSL_CERT_FILE, SSL_CERT_DIR: no certificates of authorities can be read from there: {error}"
        ) from error


def _translate(error: httpx.HTTPError | httpx.InvalidURL, *, begun: bool) -> Hold | Pause:
    """Say what went wrong without quoting the answer or the address, which may hold what nobody should read."""
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return Pause("the destination's address is no http or https URL")
    words = next((words for kind, words in _FAILURES if isinstance(error, kind)), "the request failed")
    if isinstance(error, httpx.ConnectError) and str(error):
        words += f": {error}"  # of the resolver, the socket or TLS on this side
    kind = Untrusted if isinstance(error, httpx.ConnectError) and _is_of_tls(error) else Hold
    return kind(one_line(words), unknown=begun)


def _is_of_tls(error: BaseException | None) -> bool:
    """Say whether TLS is refused, by either side. A connection that ends meanwhile is a connection that ends."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)
        error = error.__cause__ or error.__context__
    return False
