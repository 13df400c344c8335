"""The faults that a script can order: ways to treat one request. `script` says which, `connection` does it.

docs/fake-mixpanel.md has the table of them, with their keys.
"""

from __future__ import annotations

from dataclasses import replace
from email.utils import formatdate
from enum import Enum, auto
from typing import Annotated, Any, ClassVar, Literal, Self

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from walbatch.sinks.mixpanel import Reply
from walbatch.testing.exchange import fault_reply, page_reply
from walbatch.units import parse_duration_s

EXPORT: Literal["/api/2.0/export"] = "/api/2.0/export"
TERMINATED = b"export terminated early\n"

NO_ANSWER = Reply(0)
"""Stands for the answer of a request that was not processed, and for one that never leaves."""

Endpoint = Literal["/import", "/track", "/engage", "/groups", "/api/2.0/export"]


def _seconds(value: object) -> float:
    if type(value) in (int, float):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError("write a duration such as 200ms or 10s")  # noqa: TRY004  # pydantic takes a ValueError
    try:
        return parse_duration_s(value)
    except ValueError as error:
        raise ValueError(f"{value!r} {error}") from None


Duration = Annotated[float, BeforeValidator(_seconds)]


class Manner(Enum):
    """How an answer goes over the connection."""

    WHOLE = auto()
    RESET = auto()
    """No answer; the connection is reset."""
    HALF = auto()
    """Half of the announced body, then the connection is closed."""
    DRIP = auto()
    """A byte at a time."""


class Fault(BaseModel):
    """One way to treat a request. Times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    manner: ClassVar[Manner] = Manner.WHOLE
    endpoint: Endpoint | None = None
    """The endpoint that is meant; none is every one but the export."""
    times: int | None = Field(default=None, ge=1)
    for_s: Duration | None = Field(default=None, alias="for")
    weight: float = Field(default=1.0, gt=0)
    """How often chance takes it, against the others."""

    @property
    def processes(self) -> bool:
        """Whether the request is processed, so that its valid records are accepted."""
        return True

    @property
    def before_s(self) -> float:
        """The wait before the request is processed."""
        return 0.0

    @property
    def after_s(self) -> float:
        """The wait after it was processed, before the first byte of the answer."""
        return 0.0

    @property
    def between_s(self) -> float:
        """The wait between two bytes of the answer's body."""
        return 0.0

    def altered(self, reply: Reply, now_ms: int) -> Reply:
        """Return the answer, given the one that processing made; `NO_ANSWER` if the request was not processed."""
        del now_ms
        return reply

    def fits(self, endpoint: str) -> bool:
        """Say whether requests to this endpoint are meant."""
        return self.endpoint == endpoint or (self.endpoint is None and endpoint != EXPORT)

    @model_validator(mode="after")
    def _times_or_for(self) -> Self:
        if self.times is not None and self.for_s is not None:
            raise ValueError("'times' and 'for' exclude each other")
        return self


class Ok(Fault):
    """No fault: a step that lets requests pass."""

    fault: Literal["ok"] = "ok"


class Status(Fault):
    """An answer of any status. Nothing is accepted, unless `commit` says so."""

    fault: Literal["status"] = "status"
    status: int = Field(ge=200, le=599)
    commit: bool = False
    headers: dict[str, str] = {}
    body: Any = None
    """A text is sent as it is, anything else as JSON; without it, what Mixpanel says with that status."""
    retry_after: float | str | None = None
    """The header: a number of seconds, or any text."""
    retry_after_date: Duration | None = None
    """The header as a date, so far from now."""

    @property
    def processes(self) -> bool:
        """Whether the request is processed, as the step says."""
        return self.commit

    def altered(self, reply: Reply, now_ms: int) -> Reply:
        """Return the step's own answer."""
        del reply
        made = self._made()
        return replace(made, headers={**made.headers, **self._retry_after(now_ms), **self._lower_headers()})

    def _made(self) -> Reply:
        if self.body is None:
            return fault_reply(self.status)
        if isinstance(self.body, str):
            return Reply(self.status, {"content-type": "text/plain"}, self.body.encode())
        return Reply(self.status, {"content-type": "application/json"}, orjson.dumps(self.body))

    def _retry_after(self, now_ms: int) -> dict[str, str]:
        if self.retry_after_date is not None:
            return {"retry-after": formatdate(now_ms / 1000 + self.retry_after_date, usegmt=True)}
        if self.retry_after is None:
            return {}
        return {"retry-after": f"{self.retry_after:g}" if isinstance(self.retry_after, float) else self.retry_after}

    def _lower_headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}


class Page(Fault):
    """A page of HTML from something in between, under any status. Nothing is accepted, unless `commit` says so."""

    fault: Literal["page"] = "page"
    status: int = Field(default=200, ge=200, le=599)
    commit: bool = False

    @property
    def processes(self) -> bool:
        """Whether the request is processed, as the step says."""
        return self.commit

    def altered(self, reply: Reply, now_ms: int) -> Reply:
        """Return the page."""
        del reply, now_ms
        return page_reply(self.status)


class Redirect(Fault):
    """A redirect. Nothing is accepted."""

    fault: Literal["redirect"] = "redirect"
    status: Literal[301, 302, 303, 307, 308] = 307
    location: str

    @property
    def processes(self) -> bool:
        """Never."""
        return False

    def altered(self, reply: Reply, now_ms: int) -> Reply:
        """Return the redirect."""
        del reply, now_ms
        return Reply(self.status, {"location": self.location})


class Reset(Fault):
    """The connection is reset instead of an answer, before anything is accepted or, with `commit`, after it."""

    manner: ClassVar[Manner] = Manner.RESET
    fault: Literal["reset"] = "reset"
    commit: bool = False

    @property
    def processes(self) -> bool:
        """Whether the request is processed, as the step says."""
        return self.commit


class Late(Fault):
    """A wait before the request is processed, which it is even if the sender has given up by then."""

    fault: Literal["late"] = "late"
    delay: Duration

    @property
    def before_s(self) -> float:
        """The delay."""
        return self.delay


class Slow(Fault):
    """A wait between processing the request and the first byte of the answer."""

    fault: Literal["slow"] = "slow"
    delay: Duration

    @property
    def after_s(self) -> float:
        """The delay."""
        return self.delay


class Half(Fault):
    """The request is processed; of the answer half the body arrives, then the connection is closed."""

    manner: ClassVar[Manner] = Manner.HALF
    fault: Literal["half"] = "half"


class Drip(Fault):
    """The request is processed; the body arrives byte by byte, with `delay` between them."""

    manner: ClassVar[Manner] = Manner.DRIP
    fault: Literal["drip"] = "drip"
    delay: Duration

    @property
    def between_s(self) -> float:
        """The delay."""
        return self.delay


class Miscount(Fault):
    """The request is processed; `num_records_imported` is lower than it should be, where the answer has it."""

    fault: Literal["miscount"] = "miscount"
    by: int = Field(default=1, ge=1)

    def altered(self, reply: Reply, now_ms: int) -> Reply:
        """Return the answer with the wrong number."""
        del now_ms
        if not reply.body.startswith(b"{"):
            return reply
        data = orjson.loads(reply.body)
        if "num_records_imported" in data:
            data["num_records_imported"] = max(data["num_records_imported"] - self.by, 0)
        return replace(reply, body=orjson.dumps(data))


class TerminatedEarly(Fault):
    """An export ends after half of its lines with one that says so, under 200."""

    fault: Literal["terminated_early"] = "terminated_early"
    endpoint: Endpoint | None = EXPORT

    def altered(self, reply: Reply, now_ms: int) -> Reply:
        """Return half of the export. It is not packed."""
        del now_ms
        if reply.status != 200:
            return reply
        lines = reply.body.splitlines(keepends=True)
        return replace(reply, body=b"".join(lines[: len(lines) // 2]) + TERMINATED)


OK = Ok()

AnyFault = Annotated[
    Ok | Status | Page | Redirect | Reset | Late | Slow | Half | Drip | Miscount | TerminatedEarly,
    Field(discriminator="fault"),
]
