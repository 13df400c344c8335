"""What becomes of each record for each thing that Mixpanel, or something in front of it, can answer.

Everything is real but the clock: a flusher fetches from a log and sends over a socket to a server with a script.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from scripted_delivery import LIMIT_S, TOKEN, Act, Delivery, Server, delivering, drip, good, hang, reset, says, writes

from walbatch.event import Kind
from walbatch.retry import State
from walbatch.sinks.http import MAX_REPLY_BYTES, HttpSink
from walbatch.sinks.mixpanel import Credentials, Mixpanel


@dataclass(frozen=True)
class Row:
    """An answer to a request of the records a, b and c, and what is expected of it."""

    act: Act
    fates: Sequence[str]
    note: str
    """How the note in the history begins."""
    state: State = State.OK
    halved: bool = False
    """Whether all three are sent again at once, in smaller requests."""
    wait_s: float | None = None
    kind: Kind = Kind.EVENT
    timeout_s: float = 10.0


SENT = ["sent"] * 3
PENDING = ["pending"] * 3
HTML = b"<html><h1>Sorry</h1></html>"
ERROR = {"code": 400, "error": "some data points in the request failed validation", "status": "Bad Request"}


def delivered(act: Act, note: str = "200", kind: Kind = Kind.EVENT) -> Row:
    """Everything is delivered."""
    return Row(act, SENT, note, kind=kind)


def held(act: Act, note: str, wait_s: float = 1.0, timeout_s: float = 10.0, kind: Kind = Kind.EVENT) -> Row:
    """Everything stays, and is sent again after a while."""
    return Row(act, PENDING, note, State.RETRYING, wait_s=wait_s, timeout_s=timeout_s, kind=kind)


def paused(act: Act, note: str) -> Row:
    """Everything stays, and a person is asked for."""
    return Row(act, PENDING, note, State.PAUSED, wait_s=60.0)


def halved(act: Act, kind: Kind = Kind.EVENT) -> Row:
    """The parts are sent by themselves, and taken here."""
    return Row(act, SENT, "200", halved=True, kind=kind)


def row(index: object, key: str = "insert_id", insert_id: str = "id-b", message: str = "bad b") -> dict[str, Any]:
    """Return a row of failed_records."""
    return {"index": index, key: insert_id, "field": "properties.time", "message": message}


def refused(*rows: dict[str, Any], imported: int = 2) -> Act:
    """Answer that some records were refused, and the others taken."""
    return says(400, ERROR | {"failed_records": rows, "num_records_imported": imported})


def imported(**data: Any) -> Act:
    """Answer 200 to an import, with some words changed."""
    return says(200, {"code": 200, "num_records_imported": 3, "status": "OK"} | data)


B_REFUSED = ["sent", "dead: bad b", "sent"]
B_NOTE = "400: refused 1 of 3"
UNCLEAR = "200 OK, but the body is not understood"
DATE = "Mon, 23 Nov 2026 10:00:00 GMT"
TABLE = {
    "200, all counted": delivered(imported()),
    "200, all counted, status is a number": delivered(imported(status=1)),
    "200, plain 1": delivered(says(200, b"1")),
    "200, fewer counted": delivered(imported(num_records_imported=2), "200: imported 2 of 3, which ones is not said"),
    "200, none counted": delivered(imported(num_records_imported=0), "200: imported 0 of 3"),
    "200, more counted": held(imported(num_records_imported=4), UNCLEAR),
    "200, counted in a text": held(imported(num_records_imported="3"), UNCLEAR),
    "200 with an error": held(imported(error="bad"), UNCLEAR),
    "200 with HTML": held(says(200, HTML), UNCLEAR),
    "200, empty": held(says(200), UNCLEAR),
    "200, plain 0": held(says(200, b"0"), UNCLEAR),
    "200 with a list": held(says(200, [1]), UNCLEAR),
    "204": held(writes(b"HTTP/1.1 204 No Content\r\n\r\n"), "204 No Content"),
    "400, one refused": Row(refused(row(1)), B_REFUSED, B_NOTE),
    "400, the id has its other name": Row(refused(row(1, "$insert_id")), B_REFUSED, B_NOTE),
    "400, the id is unknown": Row(refused(row(1, insert_id="made-up")), B_REFUSED, B_NOTE),
    "400, one refused twice": Row(refused(row(1), row(1, message="also")), B_REFUSED, B_NOTE),
    "400, all refused": Row(
        refused(*(row(i, insert_id=f"id-{name}") for i, name in enumerate("abc")), imported=0),
        ["dead: bad b"] * 3,
        "400: refused 3 of 3",
    ),
    "400, nobody refused": delivered(refused(imported=3), "400: refused 0 of 3"),
    "400, index out of range": halved(refused(row(3))),
    "400, index out of range, all counted": halved(refused(row(3), imported=3)),
    "400, sum does not agree": halved(refused(row(1), imported=1)),
    "400, the id is another record's": halved(refused(row(1, insert_id="id-c"))),
    "400, the id is another record's, by its other name": halved(refused(row(1, "$insert_id", "id-c"))),
    "400 without a list": halved(says(400, ERROR)),
    "415": halved(says(415, {"error": "unsupported"})),
    "422": halved(says(422, {"error": "unprocessable"})),
    "400 with HTML": held(says(400, HTML), "400 Bad Request, but not in Mixpanel's words"),
    "401": paused(says(401, {"code": 401, "error": "Invalid credentials"}), "401 Unauthorized"),
    "402": paused(says(402, HTML), "402 Payment Required"),
    "403": paused(says(403, {"error": "no", "status": "error"}), "403 Forbidden"),
    "404": paused(says(404, HTML), "404 Not Found"),
    "405": paused(says(405, HTML), "405 Method Not Allowed"),
    "301": paused(says(301, location="https://elsewhere.test/"), "301 Moved Permanently"),
    "302": paused(says(302, location="https://elsewhere.test/"), "302 Found"),
    "303": paused(says(303, location="https://elsewhere.test/"), "303 See Other"),
    "304": paused(writes(b"HTTP/1.1 304 Not Modified\r\n\r\n"), "304 Not Modified"),
    "307": paused(says(307, location="https://elsewhere.test/"), "307 Temporary Redirect"),
    "308": paused(says(308, location="https://elsewhere.test/"), "308 Permanent Redirect"),
    "413 with a number": halved(says(413, {"code": 413, "error": "request exceeds max limit of 2097152 bytes"})),
    "413 with HTML": halved(says(413, HTML)),
    "408": held(says(408, HTML), "408 Request Timeout"),
    "429": held(says(429, {"code": 429, "error": "slow down"}), "429 Too Many Requests: slow down"),
    "429, seconds": held(says(429, retry_after="7"), "429", 7.0),
    "429, a date": held(says(429, retry_after="Mon, 23 Nov 2026 10:01:30 GMT", date=DATE), "429", 90.0),
    "429, a date that has passed": held(says(429, retry_after="Mon, 23 Nov 2026 09:00:00 GMT", date=DATE), "429"),
    "429, nonsense": held(says(429, retry_after="soon"), "429"),
    "429, for a year": held(says(429, retry_after="31536000"), "429", 300.0),
    "500": held(says(500, HTML), "500 Internal Server Error"),
    "502": held(says(502, HTML), "502 Bad Gateway"),
    "503": held(says(503, HTML), "503 Service Unavailable"),
    "503, seconds": held(says(503, retry_after="20"), "503 Service Unavailable", 20.0),
    "504": held(says(504, HTML), "504 Gateway Timeout"),
    "524": held(says(524, HTML), "524"),
    "no answer": held(hang, "no complete answer within 1 s", timeout_s=1.0),
    "an answer in drips": held(drip, "no complete answer within 1 s", timeout_s=1.0),
    "an answer without end": held(
        says(200, b" " * (MAX_REPLY_BYTES + 1)), f"the answer is longer than {MAX_REPLY_BYTES} bytes"
    ),
    "half an answer": held(
        writes(b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"code":200'), "the answer broke off, or is not HTTP"
    ),
    "half a refusal": held(
        writes(b'HTTP/1.1 400 Bad Request\r\nContent-Length: 500\r\n\r\n{"failed_records":['),
        "the answer broke off, or is not HTTP",
    ),
    "closed without an answer": held(writes(b""), "the answer broke off, or is not HTTP"),
    "reset": held(reset, "the connection broke while waiting for the answer"),
}


def updates(kind: Kind) -> dict[str, Row]:
    """Return the rows of an endpoint for updates."""
    return {
        f"{kind.name}: yes": delivered(says(200, {"error": None, "status": 1}), kind=kind),
        f"{kind.name}: plain 1": delivered(says(200, b"1"), kind=kind),
        f"{kind.name}: all of them good": delivered(says(200, {"status": 1, "num_good_events": 3}), kind=kind),
        f"{kind.name}: fewer good": delivered(
            says(200, {"status": 1, "num_good_events": 1}), "200: imported 1 of 3", kind=kind
        ),
        f"{kind.name}: more good": held(says(200, {"status": 1, "num_good_events": 4}), UNCLEAR, kind=kind),
        f"{kind.name}: HTML": held(says(200, HTML), UNCLEAR, kind=kind),
        f"{kind.name}: no": halved(says(200, {"error": "$set, bad", "status": 0}), kind=kind),
        f"{kind.name}: plain 0": halved(says(200, b"0"), kind=kind),
        f"{kind.name}: 502": held(says(502, HTML), "502 Bad Gateway", kind=kind),
    }


TABLE |= updates(Kind.PROFILE) | updates(Kind.GROUP)


@pytest.mark.parametrize("expected", TABLE.values(), ids=TABLE)
async def test_every_answer_has_one_consequence(expected: Row) -> None:
    """Each record is where the table says, the destination too, and the next request holds what is owed, only that."""
    async with delivering("abc", [expected.act], expected.kind, expected.timeout_s) as delivery:
        await delivery.settled(1)
        assert delivery.fates() == expected.fates
        assert delivery.log.settlements[0].note.startswith(expected.note)
        requests = len(delivery.server.requests)
        assert delivery.server.requests[0] == ["a", "b", "c"]
        again = sorted(name for names in delivery.server.requests[1:] for name in names)
        assert again == (["a", "b", "c"] if expected.halved else [])
        condition = delivery.breaker.condition
        assert condition.state is expected.state
        dead = sum(fate.startswith("dead") for fate in expected.fates)
        assert await delivery.counts() == (expected.fates.count("pending"), expected.fates.count("sent"), dead)
        if expected.wait_s is None:
            await delivery.append("d")
            await delivery.settled(2)
            assert delivery.server.requests[requests:] == [["d"]]
        else:
            assert (condition.last_error or "").startswith(expected.note)
            assert await delivery.clock.sleeper(0.5) == expected.wait_s
            await delivery.clock.advance(expected.wait_s)
            await delivery.settled(2)
            assert delivery.server.requests == [["a", "b", "c"]] * 2
            assert delivery.fates() == SENT
            assert delivery.breaker.condition.state is State.OK


REFUSALS = {
    "400 without a list": (Kind.EVENT, says(400, ERROR), f"dead: {ERROR['error']}"),
    "413 with a number": (Kind.EVENT, says(413, {"error": "max limit of 9 bytes"}), "dead: max limit of 9 bytes"),
    "413 with HTML": (Kind.EVENT, says(413, HTML), "dead: Request Entity Too Large"),
    "profile update": (Kind.PROFILE, says(200, {"error": "$set, bad", "status": 0}), "dead: $set, bad"),
    "group update": (Kind.GROUP, says(200, {"error": "$set, bad", "status": 0}), "dead: $set, bad"),
}


@pytest.mark.parametrize(("kind", "act", "fate"), REFUSALS.values(), ids=REFUSALS)
async def test_a_single_record_that_is_refused_is_dead(kind: Kind, act: Act, fate: str) -> None:
    """A record that is refused when it is alone in a request becomes a dead letter, with the reason."""
    async with delivering("a", [act], kind) as delivery:
        await delivery.settled(1)
        assert delivery.fates() == [fate]
        assert await delivery.counts() == (0, 0, 1)
        assert delivery.breaker.condition.state is State.OK


@pytest.mark.parametrize(
    ("count", "poison"), [(1, 0), (2, 0), (2, 1), (50, 0), (50, 31), (50, 49), (2000, 0), (2000, 1234), (2000, 1999)]
)
@pytest.mark.parametrize("kind", Kind)
async def test_one_poison_record_is_isolated(kind: Kind, count: int, poison: int) -> None:
    """One record that spoils every request is found by halving; the others are delivered, each of them once."""
    bad = f"n{poison}"
    accepted: Counter[str] = Counter()
    no = says(400, ERROR) if kind is Kind.EVENT else says(200, {"error": ERROR["error"], "status": 0})

    def judge(names: Sequence[str]) -> Act:
        if bad in names:
            return no
        accepted.update(names)
        return good(names)

    async with delivering([f"n{n}" for n in range(count)], judge, kind) as delivery:
        await delivery.settled(1)
        fates = delivery.fates()
        assert fates.pop(poison) == f"dead: {ERROR['error']}"
        assert fates == ["sent"] * (count - 1)
        assert set(accepted.values()) <= {1}
        assert len(delivery.server.requests) <= 2 * math.log2(count) + 1


async def test_an_outage_between_halves_sends_nothing_twice() -> None:
    """What one half has settled stays settled; the other half is sent again."""
    script = [says(400, ERROR), refused(row(0, insert_id="id-a"), imported=1), says(503)]
    async with delivering("abcd", script) as delivery:
        await delivery.settled(1)
        assert delivery.fates() == ["dead: bad b", "sent", "pending", "pending"]
        await delivery.clock.advance(await delivery.clock.sleeper(0.5))
        await delivery.settled(2)
        assert delivery.server.requests == [["a", "b", "c", "d"], ["a", "b"], ["c", "d"], ["c", "d"]]
        assert delivery.fates() == ["dead: bad b", "sent", "sent", "sent"]


async def test_a_limit_that_was_named_is_kept() -> None:
    """After a 413 with a number no later request is larger than that."""
    too_large = says(413, {"code": 413, "error": "request exceeds max limit of 1000 bytes"})
    async with delivering([f"n{n}" for n in range(8)], [too_large]) as delivery:
        await delivery.settled(1)
        before = len(delivery.server.requests)
        await delivery.append([f"m{n}" for n in range(40)])
        async with asyncio.timeout(LIMIT_S):
            while (await delivery.counts())[0]:
                await delivery.settled(len(delivery.log.settlements) + 1)
        later = delivery.server.sizes[before:]
        assert len(later) > 1
        assert max(later) <= 1000
        assert set(delivery.fates()) == {"sent"}


async def test_nobody_listens() -> None:
    """Without a server everything stays, and is delivered once there is one."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    async with HttpSink(Mixpanel(f"http://127.0.0.1:{port}", Credentials(token=TOKEN))) as sink:
        delivery = Delivery(Kind.EVENT, Server(()), sink)
        await delivery.append("abc")
        running = asyncio.create_task(delivery.flusher.run())
        await delivery.settled(1)
        assert delivery.fates() == PENDING
        assert delivery.breaker.condition.state is State.RETRYING
        async with await asyncio.start_server(delivery.server.connected, "127.0.0.1", port):
            await delivery.clock.advance(await delivery.clock.sleeper(0.5))
            await delivery.settled(2)
            assert delivery.fates() == SENT
            running.cancel()
            await asyncio.wait([running])
        await delivery.server.close()
