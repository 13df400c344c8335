"""Mixpanel's HTTP API as values: how records become a request, and what the reply means for them. Pure.

    reply                                             answer
    ------------------------------------------------  ----------------------------------------------------------
    200, as many counted as sent, or no count at all  Settled: all Delivered (an import without a count: Hold)
    200, fewer counted                                Settled: all Delivered, with a warning: which ones is not said
    200, more counted                                 Hold: this is not the answer to this request
    200 from /engage or /groups that says no          Split
    200 with any other body                           Hold: sending again is safe, a guess is not
    400 whose list and sum agree                      Settled: those Rejected, all others Delivered
    400 whose list makes no sense                     Split
    400, 415, 422 with Mixpanel's JSON error          Split
    413                                               Split, with the limit that its JSON names
    401, 402, 403, 404, 405, any redirect             Pause
    429                                               Hold, throttled, for as long as Retry-After wishes
    everything else                                   Hold, for as long as Retry-After wishes

What is not Mixpanel's own JSON comes from something in between, and is never a verdict on a record.

May the records of an answer that settles nothing have been taken all the same? (`unknown`)

    answer                                            taken?   why
    ------------------------------------------------  -------  ---------------------------------------------------
    200, 204 and the like, not understood             perhaps  something said yes, to what is not known
    500, 502, 504, 524, any other 5xx                 perhaps  work may have begun before it failed, or a gateway
                                                               gave up waiting for a server that went on
    503                                               no       refused because of load, before any work
    408                                               no       the server gave up before the request was complete
    429                                               no       refused before any work
    400, 415, 422 without a list of records, 413      no       refused as a whole
    any other 4xx, redirects                          no       refused, or never looked at
    200 from /engage or /groups that says no          perhaps  of several updates one is bad, the others were applied
    400 with a list that makes no sense               perhaps  likewise; an event of that list loses nothing by being
                                                               sent again, and is not counted as unknown

What happens before there is a reply is told by `walbatch.sinks.http`.

Sources: https://docs.mixpanel.com/reference/import-events, https://docs.mixpanel.com/reference/profile-set and
the pages on errors beside them. Where they contradict each other, both readings are accepted.
"""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cache
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import orjson

from walbatch.delivery import DELIVERED, Answer, Hold, Pause, Rejected, Settled, Split
from walbatch.event import Kind
from walbatch.retry import MAX_RETRY_AFTER_S
from walbatch.sinks.quotes import unquoted

REGION_URLS = {
    "us": "https://api.mixpanel.com",
    "eu": "https://api-eu.mixpanel.com",
    "in": "https://api-in.mixpanel.com",
}
"""A project lives in one region, and no region forwards to another."""

PATHS = {Kind.EVENT: "/import", Kind.PROFILE: "/engage", Kind.GROUP: "/groups"}
"""Where records of a kind go. Never /track: it drops events older than five days and answers success."""

MAX_RECORDS = {Kind.EVENT: 2000, Kind.PROFILE: 2000, Kind.GROUP: 200}
"""Records of a kind in one request. The reference allows 2,000 for groups too, but integrations in the field keep to
200 there."""

MAX_REASON = 200
"""Characters of a reason that are kept."""

_LONGEST_ERROR = 10 * MAX_REASON
"""Characters that are looked at for it: blanks and quotations go."""

GZIP_LEVEL = 3
"""Of 1,707 earthquakes 13 % are left, after 3.3 microseconds each; level 6 leaves 11 % and takes 7.7 (2026-11-23)."""

_SHORTEST_SECRET = 8
"""Shorter secrets are not searched for in replies: they would be found inside ordinary words."""

_CHECK_CREDENTIALS = "check the project token or service account, and the region"
_CHECK_ADDRESS = "check the address; redirects are not followed"
_PAUSES = {
    401: _CHECK_CREDENTIALS,
    402: "check the project's plan",
    403: _CHECK_CREDENTIALS,
    404: _CHECK_ADDRESS,
    405: _CHECK_ADDRESS,
}

_LIMIT = re.compile(r"max limit of (\d{1,15}) bytes")
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
_ECHO = re.compile(r"""[\[{]\s*["'{].*""", re.DOTALL)
"""The start of JSON inside a message: the request's own, quoted back."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who sends: the project token, or a service account with its project. Updates need the token anyway."""

    token: str = field(default="", repr=False)
    service_account: str = ""
    service_secret: str = field(default="", repr=False)
    project_id: int | None = None

    def basic(self) -> str:
        """Return the Authorization header of an import. A token is the user name, its password is empty."""
        user = self.service_account or self.token
        password = self.service_secret if self.service_account else ""
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Request:
    """What to send. Headers and body hold credentials and personal data, so its repr shows neither."""

    method: str
    url: str
    params: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Mixpanel:
    """One project behind one address, such as one of `REGION_URLS`. Knows the format, sends nothing."""

    def __init__(self, base_url: str, credentials: Credentials) -> None:
        self._base_url = base_url.rstrip("/")
        self._credentials = credentials

    def request(self, kind: Kind, payloads: Sequence[str]) -> Request | Pause:
        """Build the request for stored payloads: the same bytes for the same payloads, whenever it is called.

        Payloads are joined as text, never parsed. A `Pause` says what is missing from the credentials.
        """
        if kind is Kind.EVENT:
            return self._import(payloads)
        if not self._credentials.token:
            return Pause("set the project's token: profile and group updates need it, a service account is not enough")
        return self._update(kind, payloads)

    def overhead_bytes(self, kind: Kind) -> int:
        """Return by how many bytes each stored payload grows in a request. The comma between two is not counted."""
        return 0 if kind is Kind.EVENT else len(self._update_head().encode()) - 1

    def answer(self, kind: Kind, payloads: Sequence[str], reply: Reply) -> Answer:
        """Say what a reply to a request of these records means. The module's docstring has the table.

        Reasons are single short lines for people, without payloads and credentials.
        """
        reply = replace(reply, body=self._redacted(reply.body))
        answer = _judged(kind, payloads, reply)
        if isinstance(answer, Settled):
            return answer  # it has numbers, and words about single records
        return _judged(kind, payloads, _without_quotes(reply, payloads))

    def _import(self, payloads: Sequence[str]) -> Request:
        # Mixpanel wants the project's number with a service account, and only then.
        project = {"project_id": str(self._credentials.project_id)} if self._credentials.service_account else {}
        return Request(
            method="POST",
            url=self._base_url + PATHS[Kind.EVENT],
            params={"strict": "1"} | project,
            headers=_headers() | {"Authorization": self._credentials.basic(), "Content-Encoding": "gzip"},
            # Without mtime=0 the header would hold the time, and a repeated request would differ.
            body=gzip.compress(_array(payloads), GZIP_LEVEL, mtime=0),
        )

    def _update_head(self) -> str:
        """Return what replaces the first brace of an update: the token is no part of what is stored."""
        return f'{{"$token":{orjson.dumps(self._credentials.token).decode()},'

    def _update(self, kind: Kind, payloads: Sequence[str]) -> Request:
        # No gzip: these endpoints do not understand it. ip=0, else Mixpanel would locate every user at this server.
        head = self._update_head()
        return Request(
            method="POST",
            url=self._base_url + PATHS[kind],
            params={"verbose": "1", "ip": "0"},
            headers=_headers(),
            body=_array([head + payload[1:] for payload in payloads]),
        )

    def _redacted(self, body: bytes) -> bytes:
        for secret in (self._credentials.token, self._credentials.service_secret):
            if len(secret) >= _SHORTEST_SECRET:
                body = body.replace(secret.encode(), b"[secret]")
        return body


def _judged(kind: Kind, payloads: Sequence[str], reply: Reply) -> Answer:
    if reply.status == 200:
        return _imported(len(payloads), reply) if kind is Kind.EVENT else _updated(len(payloads), reply)
    if reply.status in (400, 415, 422):
        return _refused(kind, payloads, reply)
    if reply.status == 413:
        return Split(413, _error(reply) or _phrase(413), _named_limit(reply))
    if reply.status in _PAUSES or 300 <= reply.status < 400:
        return Pause(_reason(reply, f", {_PAUSES.get(reply.status, _CHECK_ADDRESS)}"))
    taken = not 400 <= reply.status < 500 and reply.status != 503
    return Hold(_reason(reply), retry_after_s(reply.headers), unknown=taken, throttled=reply.status == 429)


def _without_quotes(reply: Reply, payloads: Sequence[str]) -> Reply:
    """Return a reply whose error holds nothing of the records. What it says of each record, by position, stays."""
    data = _json_object(reply)
    error = data.get("error")
    if not isinstance(error, str):
        return reply
    return replace(reply, body=orjson.dumps(data | {"error": unquoted(error[:_LONGEST_ERROR], payloads)}))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the wait that Retry-After asks for, in seconds and clamped, or None if it makes no sense.

    A date counts from the reply's own Date, so that this machine's clock does not matter.
    """
    wish = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(wish):
        return min(float(wish), MAX_RETRY_AFTER_S)
    until, now = _epoch_s(wish), _epoch_s(headers.get("date", ""))
    if until is None or now is None:
        return None
    return min(max(until - now, 0.0), MAX_RETRY_AFTER_S)


def one_line(text: str) -> str:
    """Return foreign text as one short line that is safe to log and to show: no control characters, no JSON."""
    text = _ECHO.sub("…", text[:_LONGEST_ERROR])
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 1] + "…"


def _imported(count: int, reply: Reply) -> Answer:
    if reply.body.strip() == b"1":
        return _all_delivered(count, count)
    data = _json_object(reply)
    # With strict=1 an error is a 400. One in a 200 means that the parameter was lost on the way: no verdict.
    if data.get("error") or data.get("code", 200) != 200:
        return _not_understood(reply)
    return _counted(count, data.get("num_records_imported"), reply)


def _updated(count: int, reply: Reply) -> Answer:
    plain = reply.body.strip()
    data = {"status": int(plain)} if plain in (b"0", b"1") else _json_object(reply)
    # `status` comes as 1, "1", true or "OK", depending on the age of the page that describes it.
    status = str(data.get("status")).lower()
    if data.get("error") or status in ("0", "false"):
        return Split(200, _error(reply) or "refused without a reason", unknown=count > 1)
    if status in ("1", "true", "ok"):
        return _counted(count, data.get("num_good_events", count), reply)
    return _not_understood(reply)


def _counted(count: int, taken: object, reply: Reply) -> Answer:
    """Compare how many were sent with how many the reply says were taken."""
    if type(taken) is int and 0 <= taken <= count:
        return _all_delivered(count, taken)
    return _not_understood(reply)


def _all_delivered(count: int, taken: int) -> Settled:
    note = "200" if taken == count else f"200: imported {taken} of {count}, which ones is not said"
    return Settled([DELIVERED] * count, note, warning=taken != count)


def _not_understood(reply: Reply) -> Hold:
    return Hold(_reason(reply, ", but the body is not understood"), unknown=True)


def _refused(kind: Kind, payloads: Sequence[str], reply: Reply) -> Answer:
    count, data = len(payloads), _json_object(reply)
    failed = _failed_records(payloads, data) if reply.status == 400 else None
    if failed is not None:
        note = f"400: refused {len(failed)} of {count}"
        return Settled([failed.get(index, DELIVERED) for index in range(count)], note, warning=not failed)
    if isinstance(data.get("error"), str) or "failed_records" in data:
        partly = (
            kind is not Kind.EVENT
            and count > 1
            and bool(data.get("failed_records") or data.get("num_records_imported"))
        )
        return Split(reply.status, _error(reply) or _phrase(reply.status), unknown=partly)
    return Hold(_reason(reply, ", but not in Mixpanel's words"), retry_after_s(reply.headers))


def _failed_records(payloads: Sequence[str], data: Mapping[str, Any]) -> dict[int, Rejected] | None:
    """Return the refused records by position: None unless the list makes sense and agrees with the sum, if given.

    A record can be listed twice, for two fields; the first one is kept. Positions decide. The id only has to agree,
    because the documentation spells its key in two ways, and its value may be one that Mixpanel has changed.
    """
    rows, imported = data.get("failed_records"), data.get("num_records_imported")
    if not isinstance(rows, list):
        return None
    failed: dict[int, Rejected] = {}
    sent_ids: set[object] = set()
    for row in rows:
        index = row.get("index") if isinstance(row, dict) else None
        if type(index) is not int or not 0 <= index < len(payloads):
            return None
        ids = {text for key in ("insert_id", "$insert_id") if isinstance(text := row.get(key), str)}
        if named := ids - {_insert_id(payloads[index])}:
            sent_ids = sent_ids or {_insert_id(payload) for payload in payloads}
            if named & sent_ids:
                return None  # the position says this record, the id another one
        reason = _text(row.get("message")) or "refused without a reason"
        failed.setdefault(index, Rejected(400, _text(row.get("field")), reason))
    if imported is None:
        return failed or None
    return failed if type(imported) is int and imported == len(payloads) - len(failed) else None


def _insert_id(payload: str) -> object:
    """Return a stored event's id; None for an update, which has none."""
    return orjson.loads(payload).get("properties", {}).get("$insert_id")


def _named_limit(reply: Reply) -> int | None:
    found = _LIMIT.search(str(_json_object(reply).get("error")))
    return (int(found[1]) or None) if found else None


def _json_object(reply: Reply) -> dict[str, Any]:
    """Return the reply's JSON object, or an empty one for anything else."""
    try:
        data = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return {}
    return data if isinstance(data, dict) else {}


def _error(reply: Reply) -> str:
    return _text(_json_object(reply).get("error"))


def _text(value: object) -> str:
    return one_line(value) if isinstance(value, str) else ""


def _reason(reply: Reply, remark: str = "") -> str:
    error = _error(reply)
    status = f"{reply.status} {_phrase(reply.status)}".strip() + remark
    return one_line(f"{status}: {error}" if error else status)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # 524 and other inventions
        return ""


def _epoch_s(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).replace(tzinfo=UTC).timestamp()  # a date in HTTP is always GMT
    except (ValueError, OverflowError):
        return None


def _array(payloads: Sequence[str]) -> bytes:
    return f"[{','.join(payloads)}]".encode()


def _headers() -> dict[str, str]:
    return {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": _user_agent()}


@cache
def _user_agent() -> str:
    try:
        return f"walbatch/{version('walbatch')}"
    except PackageNotFoundError:  # run from a source tree
        return "walbatch/unknown"
