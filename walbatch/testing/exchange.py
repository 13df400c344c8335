"""How Mixpanel's requests are read and its replies are spelled: the fake's side of the wire. Pure."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping, Sequence
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

_GAP = re.compile(r"[\s,]*")
_scan = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it arrived; `body` is still packed. Names of headers are in lower case."""

    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def basic(self) -> str:
        """Return the credentials as "user:password", or nothing."""
        scheme, _, value = self.headers.get("authorization", "").partition(" ")
        try:
            return base64.b64decode(value).decode() if scheme.lower() == "basic" else ""
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


def is_on(params: Mapping[str, str], name: str) -> bool:
    """Say whether a parameter is switched on: any number but zero does it."""
    return params.get(name, "0") not in ("", "0")


def read(sent: Sent, max_bytes: int) -> Content:
    """Understand a request: a JSON array or object, NDJSON, a form or a query, gzip or not.

    Raises: TooLarge, or ValueError for what cannot be understood.
    """
    text = _unpacked(sent, max_bytes).decode()
    params = dict(sent.params)
    if text.startswith("data="):  # a form, whatever it calls itself: a browser's beacon says text/plain
        params |= parse_qsl(text, keep_blank_values=True)
        text = ""
    elif "ndjson" in sent.headers.get("content-type", ""):
        text = _array_of_lines(text)
    records = _elements(text or _form_data(params.get("data", "")))
    if not records:
        raise ValueError(NO_DATA)
    return Content(params, records)


def import_reply(content: Content, failures: Mapping[int, Failure]) -> Reply:
    """Answer an import, whose valid records were taken in any case. `strict` and `verbose` decide on its shape."""
    imported = len(content.records) - len(failures)
    if not content.strict:
        return _lenient_reply(imported, failures, verbose=content.verbose)
    if failures:
        rows = [_failed_row(index, content.records[index], failure) for index, failure in failures.items()]
        return error_reply(400, SOME_FAILED, num_records_imported=imported, failed_records=rows)
    return _json(200, {"code": 200, "num_records_imported": imported, "status": 1 if content.verbose else "OK"})


def update_reply(problem: str | None, *, verbose: bool) -> Reply:
    """Answer profile updates and tracked events: 200 in any case, and at most one problem, without saying whose."""
    status = 0 if problem else 1
    return _json(200, {"error": problem, "status": status}) if verbose else _digit(status)


def error_reply(status: int, error: str, **more: Any) -> Reply:
    """Answer in the form of Mixpanel's errors."""
    return _json(status, {"code": status, "error": error, "status": _phrase(status)} | more)


def fault_reply(status: int) -> Reply:
    """Answer as Mixpanel, or from 500 on what stands in front of it, does on a bad day."""
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        page = f"<html><title>{status} {_phrase(status)}</title></html>"
        return Reply(status, {"content-type": "text/html"}, page.encode())
    return error_reply(status, {401: "Invalid credentials", 429: RATE_LIMITED}.get(status, _phrase(status)))


def _lenient_reply(imported: int, failures: Mapping[int, Failure], *, verbose: bool) -> Reply:
    if not verbose:
        return _digit(1 if imported else 0)
    error = SOME_FAILED if failures else None
    return _json(200, {"code": 200, "error": error, "num_records_imported": imported, "status": 0 if failures else 1})


def _failed_row(index: int, record: Received, failure: Failure) -> dict[str, Any]:
    return {
        "index": index,
        "insert_id": record.insert_id(),
        "field": failure.field,
        "message": failure.message,
    }


def _unpacked(sent: Sent, max_bytes: int) -> bytes:
    body = sent.body
    if sent.headers.get("content-encoding") == "gzip":
        if sent.path == "/engage":
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
    orjson.loads(document)  # stricter than the scan below: no NaN, no half surrogates
    found = []
    position = _after_gap(document, 1)
    while document[position] != "]":
        value, end = _element(document, position)
        found.append(Received(document[position:end], value))
        position = _after_gap(document, end)
    return found


def _element(document: str, position: int) -> tuple[Any, int]:
    try:
        return _scan(document, position)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _after_gap(document: str, position: int) -> int:
    gap = _GAP.match(document, position)
    return gap.end() if gap else position


def _digit(status: int) -> Reply:
    return Reply(200, {"content-type": "text/plain"}, b"%d" % status)


def _json(status: int, data: Mapping[str, Any]) -> Reply:
    return Reply(status, {"content-type": "application/json"}, orjson.dumps(data))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
