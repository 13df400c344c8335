"""Mixpanel's replies become answers."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
import pytest
from mixpanel_records import API, EVENTS, NOW_MS, SECRET, TOKEN, UPDATES

from walbatch.delivery import DELIVERED, Answer, Hold, Pause, Rejected, Settled, Split
from walbatch.event import Kind, track
from walbatch.sinks.mixpanel import Credentials, Mixpanel, Reply, one_line, retry_after_s

THREE = [*EVENTS, track(name="Buy", distinct_id="u2", event_id="e-2", properties={}, now_ms=NOW_MS).payload]


def reply(status: int, data: Any = None, **headers: str) -> Reply:
    """Build a reply with a JSON body."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, names, b"" if data is None else orjson.dumps(data))


def html(status: int) -> Reply:
    """Build what a proxy answers."""
    return Reply(status, {"content-type": "text/html"}, b"<html><h1>Sorry</h1></html>")


def failed(*rows: dict[str, Any], imported: object = None) -> Reply:
    """Build the answer to an import of which some records were refused."""
    data: dict[str, Any] = {"code": 400, "error": "some data points failed", "failed_records": rows}
    return reply(400, data if imported is None else data | {"num_records_imported": imported})


def row(index: object, message: str = "'properties.time' is invalid: must not be in the future") -> dict[str, Any]:
    """Build one row of `failed_records`."""
    return {"index": index, "insert_id": f"e-{index}", "field": "properties.time", "message": message}


ALL = Settled([DELIVERED, DELIVERED, DELIVERED])
TIME = Rejected(400, "properties.time", "'properties.time' is invalid: must not be in the future")
OK = {"code": 200, "num_records_imported": 3, "status": "OK"}
UNCLEAR = Hold("200 OK, but the body is not understood", unknown=True)


def fewer(imported: int) -> Settled:
    """Return the answer to a count that is too low."""
    return Settled(ALL.outcomes, f"200: imported {imported} of 3, which ones is not said", warning=True)


ADDRESS = "check the address; redirects are not followed"
CREDENTIALS = "check the project token or service account, and the region"
IMPORTS = {
    "all imported": (reply(200, OK), ALL),
    "all imported, status as a number": (reply(200, OK | {"status": 1, "error": None}), ALL),
    "plain 1": (Reply(200, {}, b"1\n"), ALL),
    "fewer imported": (reply(200, OK | {"num_records_imported": 2}), fewer(2)),
    "none imported": (reply(200, OK | {"num_records_imported": 0}), fewer(0)),
    "imported is a truth value": (reply(200, OK | {"num_records_imported": True}), UNCLEAR),
    "imported is negative": (reply(200, OK | {"num_records_imported": -1}), UNCLEAR),
    "no count": (reply(200, {"code": 200, "status": "OK"}), UNCLEAR),
    "more imported than sent": (reply(200, OK | {"num_records_imported": 4}), UNCLEAR),
    "imported as a text": (reply(200, OK | {"num_records_imported": "3"}), UNCLEAR),
    "another code inside": (reply(200, OK | {"code": 500}), UNCLEAR),
    "plain 0": (Reply(200, {}, b"0"), UNCLEAR),
    "empty 200": (Reply(200), UNCLEAR),
    "200 html": (html(200), UNCLEAR),
    "200 with a list": (reply(200, [1]), UNCLEAR),
    "200 with an error": (
        reply(200, OK | {"error": "some data points failed"}),
        Hold("200 OK, but the body is not understood: some data points failed", unknown=True),
    ),
    "204": (Reply(204), Hold("204 No Content", unknown=True)),
    "one refused": (
        failed(row(1), imported=2),
        Settled([DELIVERED, TIME, DELIVERED], "400: refused 1 of 3"),
    ),
    "one refused, sum not given": (failed(row(0)), Settled([TIME, DELIVERED, DELIVERED], "400: refused 1 of 3")),
    "all refused": (failed(row(2), row(1), row(0), imported=0), Settled([TIME] * 3, "400: refused 3 of 3")),
    "refused twice for two fields": (
        failed(row(1), row(1, "'event' must not be missing or blank"), imported=2),
        Settled([DELIVERED, TIME, DELIVERED], "400: refused 1 of 3"),
    ),
    "refused without a reason": (
        failed({"index": 0}),
        Settled([Rejected(400, "", "refused without a reason"), DELIVERED, DELIVERED], "400: refused 1 of 3"),
    ),
    "sum does not agree": (failed(row(1), imported=1), Split(400, "some data points failed")),
    "sum is no number": (failed(row(1), imported="2"), Split(400, "some data points failed")),
    "index too high": (failed(row(3), imported=2), Split(400, "some data points failed")),
    "index negative": (failed(row(-1), imported=2), Split(400, "some data points failed")),
    "index is no number": (failed(row("1"), imported=2), Split(400, "some data points failed")),
    "index is a truth value": (failed(row(True), imported=2), Split(400, "some data points failed")),
    "sum is a truth value": (failed(row(1), row(0), imported=True), Split(400, "some data points failed")),
    "index too high, sum of all": (failed(row(3), imported=3), Split(400, "some data points failed")),
    "nobody refused in a 400": (
        failed(imported=3),
        Settled(ALL.outcomes, "400: refused 0 of 3", warning=True),
    ),
    "nobody refused, sum not given": (failed(), Split(400, "some data points failed")),
    "nobody refused, sum does not agree": (failed(imported=2), Split(400, "some data points failed")),
    "id under its other name": (
        failed({"index": 1, "$insert_id": "e-1", "message": "bad"}, imported=2),
        Settled([DELIVERED, Rejected(400, "", "bad"), DELIVERED], "400: refused 1 of 3"),
    ),
    "id that nobody sent": (
        failed({"index": 1, "insert_id": "made-by-the-server", "message": "bad"}, imported=2),
        Settled([DELIVERED, Rejected(400, "", "bad"), DELIVERED], "400: refused 1 of 3"),
    ),
    "id is no text": (
        failed({"index": 1, "insert_id": ["e-0"], "message": "bad"}, imported=2),
        Settled([DELIVERED, Rejected(400, "", "bad"), DELIVERED], "400: refused 1 of 3"),
    ),
    "id of another record": (
        failed(row(1) | {"insert_id": "e-0"}, imported=2),
        Split(400, "some data points failed"),
    ),
    "id of another record under its other name": (
        failed(row(1) | {"$insert_id": "e-2"}, imported=2),
        Split(400, "some data points failed"),
    ),
    "row is no object": (reply(400, {"error": "bad", "failed_records": [1]}), Split(400, "bad")),
    "failed_records is no list": (reply(400, {"error": "bad", "failed_records": {}}), Split(400, "bad")),
    "400 without failed_records": (reply(400, {"code": 400, "error": "cannot parse"}), Split(400, "cannot parse")),
    "400 with nothing but a list": (reply(400, {"failed_records": []}), Split(400, "Bad Request")),
    "400 html of a proxy": (html(400), Hold("400 Bad Request, but not in Mixpanel's words")),
    "400 empty": (Reply(400), Hold("400 Bad Request, but not in Mixpanel's words")),
    "400 of another API": (
        reply(400, {"error": {"code": 400, "message": "no key"}}),
        Hold("400 Bad Request, but not in Mixpanel's words"),
    ),
    "413 with a limit": (
        reply(413, {"code": 413, "error": "request exceeds max limit of 2097152 bytes"}),
        Split(413, "request exceeds max limit of 2097152 bytes", 2_097_152),
    ),
    "413 html": (html(413), Split(413, HTTPStatus(413).phrase)),
    "413 html with a number": (
        Reply(413, {}, b"<html>request exceeds max limit of 100 bytes</html>"),
        Split(413, HTTPStatus(413).phrase),
    ),
    "413 with no limit at all": (reply(413, {"error": "max limit of 0 bytes"}), Split(413, "max limit of 0 bytes")),
    "415": (reply(415, {"error": "unsupported"}), Split(415, "unsupported")),
    "422": (reply(422, {"error": "unprocessable"}), Split(422, "unprocessable")),
    "422 html": (html(422), Hold(f"422 {HTTPStatus(422).phrase}, but not in Mixpanel's words")),
    "401": (
        reply(401, {"code": 401, "error": "Invalid credentials"}),
        Pause(f"401 Unauthorized, {CREDENTIALS}: Invalid credentials"),
    ),
    "402": (html(402), Pause("402 Payment Required, check the project's plan")),
    "403": (html(403), Pause(f"403 Forbidden, {CREDENTIALS}")),
    "404": (html(404), Pause(f"404 Not Found, {ADDRESS}")),
    "405": (html(405), Pause(f"405 Method Not Allowed, {ADDRESS}")),
    "redirect": (reply(302, None, location="https://elsewhere.test/?t=1"), Pause(f"302 Found, {ADDRESS}")),
    "408": (html(408), Hold("408 Request Timeout")),
    "429": (reply(429, {"error": "slow down"}), Hold("429 Too Many Requests: slow down", throttled=True)),
    "429 with Retry-After": (reply(429, None, retry_after="7"), Hold("429 Too Many Requests", 7.0, throttled=True)),
    "304": (Reply(304), Pause(f"304 Not Modified, {ADDRESS}")),
    "500": (html(500), Hold("500 Internal Server Error", unknown=True)),
    "502": (html(502), Hold("502 Bad Gateway", unknown=True)),
    "504": (html(504), Hold("504 Gateway Timeout", unknown=True)),
    "503 with Retry-After": (reply(503, None, retry_after="1.5"), Hold("503 Service Unavailable", 1.5)),
    "524": (html(524), Hold("524", unknown=True)),
    "418": (html(418), Hold("418 I'm a Teapot")),
}


@pytest.mark.parametrize(("given", "expected"), IMPORTS.values(), ids=IMPORTS)
def test_answer_to_an_import_of_three(given: Reply, expected: Answer) -> None:
    """Each reply to three events means exactly one thing."""
    assert API.answer(Kind.EVENT, THREE, given) == expected


ENGAGES = {
    "verbose yes": (reply(200, {"error": None, "status": 1}), ALL),
    "yes as a text": (reply(200, {"error": "", "status": "1"}), ALL),
    "yes as OK": (reply(200, {"status": "OK"}), ALL),
    "yes as a truth value": (reply(200, {"status": True}), ALL),
    "plain 1": (Reply(200, {}, b"1"), ALL),
    "verbose no": (
        reply(200, {"error": "$distinct_id, missing or empty", "status": 0}),
        Split(200, "$distinct_id, missing or empty", unknown=True),
    ),
    "no as a text": (reply(200, {"error": None, "status": "0"}), Split(200, "refused without a reason", unknown=True)),
    "plain 0": (Reply(200, {}, b"0"), Split(200, "refused without a reason", unknown=True)),
    "yes with an error": (reply(200, {"error": "bad", "status": 1}), Split(200, "bad", unknown=True)),
    "all of them good": (reply(200, {"error": None, "status": 1, "num_good_events": 3}), ALL),
    "fewer good": (reply(200, {"error": None, "status": 1, "num_good_events": 1}), fewer(1)),
    "more good than sent": (reply(200, {"error": None, "status": 1, "num_good_events": 4}), UNCLEAR),
    "good as a text": (reply(200, {"error": None, "status": 1, "num_good_events": "3"}), UNCLEAR),
    "no status": (reply(200, {"hello": 1}), UNCLEAR),
    "plain 2": (Reply(200, {}, b"2"), UNCLEAR),
    "200 html": (html(200), UNCLEAR),
    "400 with failed_records": (failed(row(0)), Settled([TIME, DELIVERED, DELIVERED], "400: refused 1 of 3")),
    "403": (
        reply(403, {"error": "forbidden", "status": "error"}),
        Pause(f"403 Forbidden, {CREDENTIALS}: forbidden"),
    ),
    "502": (html(502), Hold("502 Bad Gateway", unknown=True)),
    "400 whose list makes no sense": (
        failed(row(3), imported=2),
        Split(400, "some data points failed", unknown=True),
    ),
    "400 without a list": (reply(400, {"error": "cannot parse"}), Split(400, "cannot parse")),
    "413": (reply(413, {"error": "too large"}), Split(413, "too large")),
}


@pytest.mark.parametrize("kind", [Kind.PROFILE, Kind.GROUP])
@pytest.mark.parametrize(("given", "expected"), ENGAGES.values(), ids=ENGAGES)
def test_answer_to_three_updates(kind: Kind, given: Reply, expected: Answer) -> None:
    """Each reply to three updates, of profiles or of groups, means exactly one thing."""
    assert API.answer(kind, [UPDATES[0]] * 3, given) == expected


def test_a_refusal_of_a_single_update_leaves_nothing_open() -> None:
    """Of one update nothing else can have been applied."""
    no = reply(200, {"error": "$distinct_id, missing or empty", "status": 0})
    assert API.answer(Kind.PROFILE, UPDATES[:1], no) == Split(200, "$distinct_id, missing or empty")


def test_two_records_with_one_id_are_told_by_position() -> None:
    """An id that both records have contradicts no position."""
    answer = API.answer(Kind.EVENT, [EVENTS[0], EVENTS[0]], failed(row(1) | {"insert_id": "e-0"}, imported=1))
    assert answer == Settled([DELIVERED, TIME], "400: refused 1 of 2")


DATE = "Tue, 18 Nov 2026 10:00:00 GMT"
WISHES = {
    "seconds": ({"retry-after": " 12 "}, 12.0),
    "zero": ({"retry-after": "0"}, 0.0),
    "fraction": ({"retry-after": "0.5"}, 0.5),
    "far too long": ({"retry-after": "9" * 400}, 300.0),
    "date": ({"retry-after": "Tue, 18 Nov 2026 10:01:30 GMT", "date": DATE}, 90.0),
    "date in the past": ({"retry-after": "Tue, 18 Nov 2026 09:00:00 GMT", "date": DATE}, 0.0),
    "date next year": ({"retry-after": "Tue, 18 Nov 2027 10:00:00 GMT", "date": DATE}, 300.0),
    "date without the reply's own": ({"retry-after": DATE}, None),
    "absent": ({}, None),
    "empty": ({"retry-after": ""}, None),
    "negative": ({"retry-after": "-1"}, None),
    "infinite": ({"retry-after": "inf"}, None),
    "not a number": ({"retry-after": "nan", "date": DATE}, None),
    "other digits": ({"retry-after": "٣"}, None),
    "words": ({"retry-after": "soon", "date": DATE}, None),
    "impossible date": ({"retry-after": "Tue, 99 Nov 99999 10:00:00 GMT", "date": DATE}, None),
}


@pytest.mark.parametrize(("headers", "expected"), WISHES.values(), ids=WISHES)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    """A wish is understood as seconds or as a date, cut at five minutes, and nonsense is no wish."""
    assert retry_after_s(headers) == expected


def test_reasons_never_quote_credentials() -> None:
    """A reply that quotes the credentials does not carry them into the logs."""
    api = Mixpanel("https://example.test", Credentials(TOKEN, "bot.1", SECRET, 42))
    answer = api.answer(Kind.EVENT, EVENTS[:1], reply(401, {"error": f"bad token {TOKEN} or secret {SECRET}"}))
    assert answer == Pause(f"401 Unauthorized, {CREDENTIALS}: bad token [secret] or secret [secret]")


def test_reasons_never_quote_the_request() -> None:
    """A reply that quotes what it was sent keeps the sentence and loses the quotation."""
    answer = API.answer(Kind.EVENT, EVENTS, reply(400, {"error": f"cannot parse [{EVENTS[0]}] at all"}))
    assert answer == Split(400, "cannot parse …")


@pytest.mark.parametrize("status", [200, 400, 401, 413, 429, 503])
@pytest.mark.parametrize("kind", [Kind.EVENT, Kind.PROFILE])
def test_what_an_answer_says_of_the_whole_request_quotes_no_record(kind: Kind, status: int) -> None:
    """Whatever the status, the sentence keeps its words and loses the values of the records."""
    payloads = {
        Kind.EVENT: '{"event":"E","properties":{"distinct_id":"somebody","plan":"premium"}}',
        Kind.PROFILE: '{"$distinct_id":"somebody","$set":{"plan":"premium"}}',
    }
    body = {"error": "somebody has no premium plan", "status": 0, "code": status}
    answer = API.answer(kind, [payloads[kind]], reply(status, body))
    assert "… has no … plan" in repr(answer)
    assert "somebody" not in repr(answer)


def test_a_reason_of_a_dead_letter_stays_as_it_is() -> None:
    """It is about one record, and shown with that."""
    row = {"index": 0, "field": "properties.plan", "message": "premium is no plan"}
    body = {"error": "some failed", "failed_records": [row], "num_records_imported": 0}
    payload = '{"event":"E","properties":{"plan":"premium"}}'
    assert API.answer(Kind.EVENT, [payload], reply(400, body)) == Settled(
        [Rejected(400, "properties.plan", "premium is no plan")], "400: refused 1 of 1"
    )


@pytest.mark.parametrize("status", [200, 400, 401, 413, 429])
def test_a_credential_in_an_answer_is_hidden_whatever_the_status(status: int) -> None:
    """No branch of the table forgets to hide credentials."""
    answer = API.answer(Kind.PROFILE, UPDATES[:1], reply(status, {"error": f"token {TOKEN}", "status": 0}))
    assert TOKEN not in repr(answer)
    assert "[secret]" in repr(answer)


def test_foreign_text_becomes_one_short_line() -> None:
    """Line breaks, terminal escapes and bidirectional marks vanish, and long text is cut."""
    assert one_line("a\r\nb\x1b[31m\u202ec\x00  d") == "a b [31m c d"
    assert one_line("x" * 10_000) == "x" * 199 + "…"
