"""The fake Mixpanel: answers as the real one does, keeps what it accepts, and fails when told to.

    fake = FakeMixpanel(out=Path("accepted.ndjson"))
    async with serve_fake(fake) as url:
        ...                     # send to `url`
        fake.fail_rate = 1.0    # from now on every request gets a 503

What it accepts is in the file, and fsynced, before the answer leaves: the file can be compared with what the sender
was told, whatever was killed in between. `walbatch sink` runs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from walbatch import http_server
from walbatch.clock import Clock, SystemClock
from walbatch.sinks.mixpanel import Reply
from walbatch.testing.exchange import (
    NO_DATA,
    Content,
    Sent,
    TooLarge,
    error_reply,
    fault_reply,
    import_reply,
    is_on,
    read,
    update_reply,
)
from walbatch.testing.validator import (
    MAX_RECORDS,
    Received,
    dropped_by_track,
    event_failure,
    profile_failure,
    track_failure,
)

MAX_BYTES = 10 * 1024 * 1024
"""10 MB of unpacked body. Mixpanel's own sample of a 413 names 2,097,152 bytes."""


class FakeMixpanel:
    """One Mixpanel project, as an ASGI application in `app`. Its public attributes can be changed at any time.

    With a `token`, or a `service_account` as "user:secret", imports need exactly these credentials; without, any do.
    """

    def __init__(
        self,
        out: Path | None = None,
        *,
        fail_rate: float = 0.0,
        status: int = 503,
        latency_s: float = 0.0,
        seed: int | None = None,
        token: str = "",
        service_account: str = "",
        max_bytes: int = MAX_BYTES,
        keep: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self.out = out
        self.fail_rate = fail_rate
        """The share of requests that get `status` before anything of them is accepted."""
        self.status = status
        self.latency_s = latency_s
        """How long every request waits, before anything of it is accepted."""
        self.token = token
        self.service_account = service_account
        self.max_bytes = max_bytes
        self.script: deque[Reply] = deque()
        """Replies to the next requests, before all else; nothing of those requests is accepted."""
        self.keep = keep
        self.records: list[tuple[str, dict[str, Any]]] = []
        """What was accepted, as (endpoint, record). Empty without `keep`."""
        self.requests: Counter[str] = Counter()
        """Requests by endpoint."""
        self.answers: Counter[int] = Counter()
        """Answers by status."""
        self.accepted: Counter[str] = Counter()
        """Accepted records by endpoint."""
        self._random = random.Random(seed)
        self._clock = clock or SystemClock()
        self._appending = threading.Lock()
        self._endpoints = {"/import": self._import, "/engage": self._engage, "/track": self._track}
        self.app = Starlette(routes=list(self._routes()))

    def _routes(self) -> Iterator[Route]:
        for path in self._endpoints:
            yield Route(path, self._answer, methods=["GET", "POST"])
            yield Route(f"{path}/", self._answer, methods=["GET", "POST"])
        yield Route("/", self._health)
        yield Route("/healthz", self._health)

    async def _health(self, _: HttpRequest) -> Response:
        return PlainTextResponse("ok\n")

    async def _answer(self, http: HttpRequest) -> Response:
        # Read it all, whatever the answer: a sender that is still writing would see a reset instead.
        try:
            body = await http.body()
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        sent = Sent(http.url.path.rstrip("/"), http.query_params, http.headers, body)
        self.requests[sent.path] += 1
        reply = await self._fault() or await self._process(sent)
        self.answers[reply.status] += 1
        return Response(reply.body, reply.status, dict(reply.headers))

    async def _fault(self) -> Reply | None:
        if self.latency_s:
            await self._clock.wait(asyncio.Event(), self.latency_s)
        if self.script:
            return self.script.popleft()
        if self._random.random() < self.fail_rate:
            return fault_reply(self.status)
        return None

    async def _process(self, sent: Sent) -> Reply:
        if sent.path == "/import" and not self._authorised(sent):
            return error_reply(401, "Invalid credentials")
        try:
            content = read(sent, self.max_bytes)
        except TooLarge:
            return error_reply(413, f"request exceeds max limit of {self.max_bytes} bytes")
        except ValueError:
            return self._not_understood(sent)
        if len(content.records) > MAX_RECORDS:
            return error_reply(400, f"request exceeds max limit of {MAX_RECORDS} records")
        return await self._endpoints[sent.path](content)

    def _not_understood(self, sent: Sent) -> Reply:
        if sent.path == "/import":
            return error_reply(400, NO_DATA)
        return update_reply(NO_DATA, verbose=is_on(sent.params, "verbose"))

    async def _import(self, content: Content) -> Reply:
        now_ms = self._clock.wall_ms()
        judged = [event_failure(record, now_ms, strict=content.strict) for record in content.records]
        failures = {index: failure for index, failure in enumerate(judged) if failure}
        await self._accept("/import", [one for index, one in enumerate(content.records) if index not in failures])
        return import_reply(content, failures)

    async def _engage(self, content: Content) -> Reply:
        problems = [profile_failure(record) for record in content.records]
        await self._accept("/engage", _without(content.records, problems))
        return update_reply(_first(problems), verbose=content.verbose)

    async def _track(self, content: Content) -> Reply:
        problems = [track_failure(record) for record in content.records]
        now_ms = self._clock.wall_ms()
        good = [one for one in _without(content.records, problems) if not dropped_by_track(one, now_ms)]
        await self._accept("/track", good)
        return update_reply(_first(problems), verbose=content.verbose)

    async def _accept(self, endpoint: str, records: Sequence[Received]) -> None:
        """Keep records: durably first, if there is a file."""
        if self.out and records:
            lines = "".join(f'{{"endpoint": "{endpoint}", "record": {one.line()}}}\n' for one in records)
            await asyncio.to_thread(self._append, self.out, lines.encode())
        if self.keep:
            self.records.extend((endpoint, one.value) for one in records)
        self.accepted[endpoint] += len(records)

    def _append(self, out: Path, lines: bytes) -> None:
        with out.open("ab") as file:
            with self._appending:
                file.write(lines)
                file.flush()
            os.fsync(file.fileno())  # outside the lock, so that the file system can make one of several

    def _authorised(self, sent: Sent) -> bool:
        if not self.token and not self.service_account:
            return True
        basic = sent.basic()
        if self.service_account and basic == self.service_account:
            return "project_id" in sent.params
        return bool(self.token) and basic.partition(":")[0] == self.token


@contextlib.asynccontextmanager
async def serve_fake(fake: FakeMixpanel, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve a fake on a real socket in this event loop, and yield its base URL. Port 0 takes any free one.

    Raises: OSError if the address cannot be had.
    """
    listener = http_server.listen(host, port)
    async with http_server.serve(fake.app, listener):
        yield f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def _without(records: Sequence[Received], problems: Sequence[str | None]) -> list[Received]:
    return [record for record, problem in zip(records, problems, strict=True) if not problem]


def _first(problems: Sequence[str | None]) -> str | None:
    return next((problem for problem in problems if problem), None)
