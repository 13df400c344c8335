"""How delivery adapts: to a limit, to being asked for less, to a backlog, and to answers that leave things open."""

from __future__ import annotations

from collections.abc import Sequence

from flusher_rig import Rig, names, numbered, settle_down
from structlog.testing import capture_logs

from walbatch.delivery import DELIVERED, Answer, Hold, Settled, Split
from walbatch.event import Kind
from walbatch.testing.sink import ScriptedSink, accept

SLOW_DOWN = Hold("429 Too Many Requests", throttled=True)


def size(payloads: Sequence[str]) -> int:
    """The bytes of a request."""
    return sum(len(payload) + 1 for payload in payloads)


async def test_a_limit_that_was_named_holds_from_the_next_fetch_on() -> None:
    """After a 413 that tells its limit, batches are no larger, but for the one that was already being waited for."""
    rig = Rig(ScriptedSink([Split(413, "too large", max_bytes=1000)]), size=1)
    async with rig.running():
        for first in range(0, 150, 50):
            await rig.append(*numbered(first, first + 50))
            await rig.settled(first + 50)
    assert size(rig.sink.calls[0].payloads) > 1001
    third = [call.payloads for call in rig.sink.calls if names(call.payloads)[0] in numbered(100, 150)]
    assert len(third) > 1
    assert max(map(size, third)) <= 1001


async def test_a_limit_is_only_ever_lowered() -> None:
    """A larger limit that is named later does not undo the smaller one."""
    refusals = {"n0": Split(413, "too large", max_bytes=1000), "n100": Split(413, "too large", max_bytes=9999)}

    def judge(kind: Kind, payloads: Sequence[str]) -> Answer:
        return refusals.pop(names(payloads)[0], None) or accept(kind, payloads)

    rig = Rig(ScriptedSink(judge), size=1)
    async with rig.running():
        for first in range(0, 250, 50):
            await rig.append(*numbered(first, first + 50))
            await rig.settled(first + 50)
    assert not refusals
    late = [call.payloads for call in rig.sink.calls if names(call.payloads)[0] in numbered(150, 250)]
    assert max(map(size, late)) <= 1001


async def test_fresh_events_leave_within_seconds_while_a_backlog_drains() -> None:
    """After a long outage every other request has what is new, so it does not wait for the whole backlog."""
    rig = Rig(ScriptedSink([Hold("503")]), max_size=100)
    async with rig.running():
        await rig.append(*numbered(0, 5000))
        await rig.sink.called(1)
        await rig.clock.sleeper(0.5)
        await rig.clock.advance(3600)
        rig.sink.hold()
        before = len(rig.sink.calls)
        await rig.append("fresh")
        await rig.clock.advance(10)
        rig.sink.release()
        await rig.settled(5001)
    position = next(n for n, call in enumerate(rig.sink.calls) if "fresh" in names(call.payloads))
    assert position - before < 15  # ten may have been under way already
    assert len(rig.sink.calls) - before > 20
    assert sorted(names(rig.sink.delivered)) == sorted([*numbered(0, 5000), "fresh"])


async def test_updates_of_profiles_keep_their_order_while_a_backlog_drains() -> None:
    """What is fresh does not overtake there, and one request at a time is under way."""
    rig = Rig(ScriptedSink([Hold("503")]), max_size=10)
    plans = [f"p{n}" for n in range(200)]
    async with rig.running():
        await rig.append_profiles(*plans[:150])
        await rig.sink.called(1)
        await rig.clock.advance(3600)
        await rig.append_profiles(*plans[150:])
        rig.flusher.drain()
        await rig.sink.has(200)
    assert [payload.split('"plan":"')[1].split('"')[0] for payload in rig.sink.delivered] == plans
    assert rig.sink.most_in_flight[Kind.PROFILE] == 1


async def test_a_destination_that_asks_for_less_gets_fewer_requests_at_once() -> None:
    """A 429 halves what may be under way, once for all that were; success opens it again, one by one."""
    rig = Rig(ScriptedSink([SLOW_DOWN] * 10), max_size=50)
    rig.sink.hold()
    async with rig.running():
        await rig.append(*numbered(0, 2000))
        await rig.sink.called(10)
        rig.sink.release()
        await rig.clock.sleeper(0.5)
        rig.sink.hold()
        rig.sink.most_in_flight.clear()
        await rig.clock.advance(1)
        await rig.sink.called(11)  # the probe
        rig.sink.release()
        await rig.sink.called(12)
        rig.sink.hold()
        await settle_down()
        assert rig.sink.most_in_flight[Kind.EVENT] in (5, 6)
        rig.sink.release()
        await rig.settled(2000)
        rig.sink.hold()
        await rig.append(*numbered(2000, 3000))
        await rig.sink.called(len(rig.sink.calls) + 8)
        await settle_down()
        assert 6 < rig.sink.most_in_flight[Kind.EVENT] <= 10
        rig.sink.release()
        await rig.settled(3000)
    assert sorted(rig.sink.delivered) == sorted(set(rig.sink.delivered))


async def test_an_outage_does_not_narrow_the_window() -> None:
    """Only being asked for less does; after a 503 all requests go out again side by side."""
    rig = Rig(ScriptedSink([Hold("503")] * 10), max_size=50)
    rig.sink.hold()
    async with rig.running():
        await rig.append(*numbered(0, 2000))
        await rig.sink.called(10)
        rig.sink.release()
        await rig.clock.sleeper(0.5)
        await rig.clock.advance(1)
        await rig.sink.called(12)
        rig.sink.hold()
        rig.sink.most_in_flight.clear()
        await rig.sink.called(len(rig.sink.calls) + 10)
        rig.sink.release()
        await rig.settled(2000)
    assert rig.sink.most_in_flight[Kind.EVENT] == 10


async def test_what_may_have_arrived_is_held_and_counted() -> None:
    """Under that policy an update that counts twice waits for a person; what can be repeated is repeated."""
    lost = Hold("no complete answer within 30 s", unknown=True)
    rig = Rig(ScriptedSink([lost]), hold_unknown=True)
    with capture_logs() as logs:
        async with rig.running():
            await rig.append_updates("$set", "$add", "$unset")
            rig.flusher.drain()
            await rig.sink.called(1)
            await settle_down()
    counts = await rig.counts(Kind.PROFILE)
    assert (counts.pending, counts.dead, counts.held) == (2, 1, 1)
    (told,) = [entry for entry in logs if entry["event"] == "flusher.batch_answered"]
    assert (told["log_level"], told["held"], told["pending"]) == ("warning", 1, 2)


async def test_an_answer_that_needs_eyes_is_a_warning() -> None:
    """Fewer counted than sent: delivered, noted, and told louder than usual."""
    rig = Rig(ScriptedSink([Settled([DELIVERED], "200: 0 of 1 imported", warning=True)]), size=1)
    with capture_logs() as logs:
        async with rig.running():
            await rig.append("a")
            await rig.settled(1)
    assert [entry["log_level"] for entry in logs if entry["event"] == "flusher.batch_answered"] == ["warning"]
