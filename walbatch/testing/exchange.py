"""How Mixpanel's requests are read and its replies are spelled: the fake's side of the wire. Pure."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import orjson

from walbatch.sinks.mixpanel import Reply
from walbatch.testing.validator import Failure, Received

NO_DATA = "data, missing or empty"
SOME_FAILED = "some data points in the request failed validation"
RATE_LIMITED = "Project exceeded rate limits. Please retry the request with exponential backoff."

PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
"""The GIF of one transparent point that `img=1` gets."""

_CALLBACK = re.compile(r"[A-Za-z_$][\w$.]*")
_GAP = re.compile(r"[\s,]*")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


@dataclass(frozen=True, slots=True)
class Spelling:
    """Where Mixpanel's own pages disagree on the form of an answer."""

    insert_id_key: str = "insert_id"
    """How a row of `failed_records` calls the id: the reference says `$insert_id`, the rest `insert_id`."""
    integer_status: bool = False
    """Whether `status` is 1 or 0 where it would be OK or a phrase."""
    num_good_events: bool = False
    """Whether answers of /engage and /groups in JSON count what they took."""
    count_ignored: bool = False
    """Whether `num_records_imported` counts events that were dropped because of `$ignore`."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it arrived; `body` is still packed. Names of headers are in lower case."""

    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def basic(self) -> str:
        """Return the credentials as "user:password", or nothing. Mixpanel takes them without base64, too."""
        scheme, _, value = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic" or ":" in value:
            return value if scheme.lower() == "basic" else ""
        try:
            return base64.b64decode(value).decode()
        except ValueError:
            return ""


@dataclass(frozen=True, slots=True)
class Content:
    """What a request holds: parameters, from its query or its form, and records."""

    params: Mapping[str, str]
    records: Sequence[Received]

    @property
    def strict(self) -> bool:
        """Whether one bad record makes the answer a 400."""
        return is_on(self.params, "strict")

    @property
    def verbose(self) -> bool:
        """Whether the answer is JSON, in words."""
        return is_on(self.params, "verbose")


class TooLarge(ValueError):
    """The unpacked request is over the limit."""


class NotUnderstood(ValueError):
    """The request holds no records that can be read; `params` are those that could be."""

    def __init__(self, params: Mapping[str, str]) -> None:
        super().__init__(NO_DATA)
        self.params = params


def is_on(params: Mapping[str, str], name: str) -> bool:
    """Say whether a parameter is switched on: any number but zero does it."""
    return params.get(name, "0") not in ("", "0")


def read(sent: Sent, max_bytes: int, *, gzip_updates: bool = False) -> Content:
    """Understand a request: a JSON array or object, a form or a query, and NDJSON on /import; gzip or not.

    `gzip_updates` is whether /engage and /groups know gzip. Raises: TooLarge, NotUnderstood.
    """
    params = dict(sent.params)
    try:
        text = _unpacked(sent, max_bytes, gzip_updates=gzip_updates).decode()
        if _is_form(text, sent.headers.get("content-type", "")):
            params |= parse_qsl(text, keep_blank_values=True)
            text = ""
        elif sent.path == "/import" and "ndjson" in sent.headers.get("content-type", ""):
            text = _array_of_lines(text)
        records = _elements(text or _form_data(params.get("data", "")))
    except TooLarge:
        raise
    except ValueError as error:
        raise NotUnderstood(params) from error
    if not records:
        raise NotUnderstood(params)
    return Content(params, records)


def import_reply(content: Content, failures: Mapping[int, Failure], imported: int, spelling: Spelling) -> Reply:
    """Answer an import, whose valid records were taken in any case. `strict` and `verbose` decide on its shape."""
    if not content.strict:
        return _lenient_reply(imported, failures, verbose=content.verbose)
    if failures:
        return _failed_reply(content, failures, spelling, num_records_imported=imported)
    status = 1 if content.verbose or spelling.integer_status else "OK"
    return json_reply(200, {"code": 200, "num_records_imported": imported, "status": status})


def update_reply(content: Content, failures: Mapping[int, Failure], spelling: Spelling) -> Reply:
    """Answer profile or group updates: in the form of an import if `strict`, else as a tracked event."""
    good = {"num_good_events": len(content.records) - len(failures)} if spelling.num_good_events else {}
    if content.strict and failures:
        return _failed_reply(content, failures, spelling, **good)
    if content.strict:
        return json_reply(200, {"code": 200, "error": None, "status": 1 if spelling.integer_status else "OK"} | good)
    return track_reply(content.params, next(iter(failures.values()), None), **good)


def track_reply(params: Mapping[str, str], failure: Failure | None, **more: Any) -> Reply:
    """Answer tracked events: 200 in any case, and at most one problem, without saying whose."""
    status = 0 if failure else 1
    if is_on(params, "img"):
        return Reply(200, {"content-type": "image/gif"}, PIXEL)
    data = {"error": failure.message if failure else None, "status": status} | more
    reply = json_reply(200, data) if is_on(params, "verbose") else _digit(status)
    callback = params.get("callback", "")
    if _CALLBACK.fullmatch(callback):
        return Reply(200, {"content-type": "text/javascript"}, b"%s(%s);" % (callback.encode(), reply.body))
    return reply


def error_reply(status: int, error: str) -> Reply:
    """Answer in the form of Mixpanel's errors."""
    return json_reply(status, {"code": status, "error": error, "status": _phrase(status)})


def fault_reply(status: int) -> Reply:
    """Answer as Mixpanel, or from 500 on what stands in front of it, does on a bad day."""
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return page_reply(status)
    known = {400: SOME_FAILED, 401: "Invalid credentials", 429: RATE_LIMITED}
    return error_reply(status, known.get(status, _phrase(status)))


def page_reply(status: int) -> Reply:
    """Answer with a page of HTML."""
    page = f"<html><title>{status} {_phrase(status)}</title></html>"
    return Reply(status, {"content-type": "text/html"}, page.encode())


def json_reply(status: int, data: Mapping[str, Any]) -> Reply:
    """Answer with JSON. Half surrogates, as a refused record may hold them, are escaped."""
    return Reply(status, {"content-type": "application/json"}, json.dumps(data, separators=(",", ":")).encode())


def _failed_reply(content: Content, failures: Mapping[int, Failure], spelling: Spelling, **more: Any) -> Reply:
    rows = [
        {
            "index": index,
            spelling.insert_id_key: content.records[index].insert_id(),
            "field": failure.field,
            "message": failure.message,
        }
        for index, failure in failures.items()
    ]
    status = 0 if spelling.integer_status else _phrase(400)
    head = {"code": 400, "error": SOME_FAILED, "status": status}
    return json_reply(400, head | more | {"failed_records": rows})


def _lenient_reply(imported: int, failures: Mapping[int, Failure], *, verbose: bool) -> Reply:
    if not verbose:
        return _digit(1 if imported else 0)
    error = SOME_FAILED if failures else None
    return json_reply(
        200, {"code": 200, "error": error, "num_records_imported": imported, "status": 0 if failures else 1}
    )


def _unpacked(sent: Sent, max_bytes: int, *, gzip_updates: bool) -> bytes:
    body = sent.body
    if sent.headers.get("content-encoding") == "gzip":
        if sent.path in ("/engage", "/groups") and not gzip_updates:
            raise ValueError("this endpoint does not know gzip")
        body = _gunzip(body, max_bytes)
    if len(body) > max_bytes:
        raise TooLarge
    return body


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    try:
        plain = stream.decompress(body, max_bytes + 1)  # a byte over the limit is enough to know
    except zlib.error as error:
        raise ValueError("not gzip") from error
    if len(plain) <= max_bytes and not stream.eof:
        raise ValueError("gzip that ends early")
    return plain


def _is_form(text: str, content_type: str) -> bool:
    """Say whether a body is a form. A browser's beacon calls its form text/plain, and curl calls JSON a form."""
    return text.startswith("data=") or ("form-urlencoded" in content_type and not text.lstrip().startswith(("[", "{")))


def _form_data(data: str) -> str:
    """Return the JSON of a form's `data`, which may be in base64."""
    if data.lstrip().startswith(("[", "{")):
        return data
    # Some clients do not escape base64, so that its plus signs arrive as spaces; some use the URL alphabet.
    return base64.b64decode(data.translate(str.maketrans(" -_", "++/")) + "==").decode()


def _array_of_lines(text: str) -> str:
    lines = [line for line in text.split("\n") if line.strip()]
    return f"[{','.join(lines)}]"


def _elements(document: str) -> list[Received]:
    """Split a JSON array, or one object, into elements. Raises: ValueError if it is not strictly JSON."""
    document = document.strip()
    if not document.startswith("["):
        document = f"[{document}]"
    _check(document)
    found = []
    position = _after_gap(document, 1)
    while document[position] != "]":
        value, end = _element(document, position)
        found.append(Received(document[position:end], value))
        position = _after_gap(document, end)
    return found


def _check(document: str) -> None:
    """Raise ValueError for what is not strictly JSON. Half surrogates are: they are the judge's business."""
    try:
        orjson.loads(document)
    except orjson.JSONDecodeError:
        _decode(_DECODER.decode, document)


def _element(document: str, position: int) -> tuple[Any, int]:
    value: tuple[Any, int] = _decode(_DECODER.raw_decode, document, position)
    return value


def _decode(decode: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return decode(*arguments)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _after_gap(document: str, position: int) -> int:
    gap = _GAP.match(document, position)
    return gap.end() if gap else position


def _digit(status: int) -> Reply:
    return Reply(200, {"content-type": "text/plain"}, b"%d" % status)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
