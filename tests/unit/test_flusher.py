"""From the log to a destination: when batches go out, and what becomes of the answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from flusher_rig import Rig, names, numbered, settle_down
from structlog.testing import capture_logs

from walbatch.delivery import DELIVERED, Answer, Hold, Pause, Rejected, Settled, Split
from walbatch.errors import BacklogFull, CommitFailed, LogClosed, Unavailable
from walbatch.event import Kind
from walbatch.flusher import STORE_AGAIN_S
from walbatch.retry import Condition, State
from walbatch.testing.clock import FakeClock
from walbatch.testing.sink import Answering, ScriptedSink, accept

DOWN = Hold("503 Service Unavailable")


def poisoned(*poison: str) -> Answering:
    """A destination that refuses a request as a whole for one bad record in it."""

    def answer(kind: Kind, payloads: Sequence[str]) -> Answer:
        return Split(400, "there is something bad in it") if {*poison} & {*names(payloads)} else accept(kind, payloads)

    return answer


async def test_fifty_records_go_out_at_once() -> None:
    """The fiftieth record sends the batch, without a wait."""
    rig = Rig(ScriptedSink())
    async with rig.running():
        await rig.append(*numbered(0, 49))
        await settle_down()
        assert rig.sink.calls == []
        await rig.append("last")
        call = await rig.sink.called(1)
    assert names(call.payloads) == [*numbered(0, 49), "last"]
    assert call.kind is Kind.EVENT


async def test_a_single_record_goes_out_after_ten_seconds() -> None:
    """What waits alone is sent when it has waited long enough."""
    rig = Rig(ScriptedSink())
    async with rig.running():
        await rig.append("a")
        assert await rig.clock.sleeper(5) == 10
        await rig.clock.advance(9.5)
        assert rig.sink.calls == []
        await rig.clock.advance(0.5)
        await rig.settled(1)
    assert (await rig.counts()).sent == 1


async def test_a_batch_grows_while_the_destination_is_busy() -> None:
    """When delivery is behind, the next request takes all that waits, up to the limit."""
    rig = Rig(ScriptedSink(), size=1, max_size=400)
    rig.sink.hold()
    async with rig.running():
        for n in range(10):
            await rig.append(f"busy{n}")
            await rig.sink.called(n + 1)
        await rig.append(*numbered(0, 1000))
        await settle_down()
        rig.sink.release()
        await rig.settled(1010)
    assert [len(call.payloads) for call in rig.sink.calls[10:]] == [400, 400, 200]


async def test_events_go_out_side_by_side_up_to_the_limit() -> None:
    """Ten requests of events are on their way at once, never eleven."""
    rig = Rig(ScriptedSink(), max_size=50)
    rig.sink.hold()
    async with rig.running():
        await rig.append(*numbered(0, 1000))
        await rig.sink.called(10)
        await settle_down()
        assert len(rig.sink.calls) == 10
        rig.sink.release()
        await rig.settled(1000)
    assert rig.sink.most_in_flight == {Kind.EVENT: 10}
    assert [name for call in rig.sink.calls for name in names(call.payloads)] == numbered(0, 1000)


async def test_profiles_go_out_one_by_one_in_order() -> None:
    """The next update leaves when the one before has been answered and settled, also after a failure."""
    rig = Rig(ScriptedSink([accept, DOWN]), size=1, max_size=1)
    rig.log.errors = [CommitFailed("the settling of the first one fails once")]
    async with rig.running():
        await rig.append_profiles("a", "b", "c", "d")
        await rig.sink.called(1)
        await settle_down()
        assert len(rig.sink.calls) == 1
        await rig.clock.advance(STORE_AGAIN_S)
        await rig.sink.called(2)
        await rig.clock.advance(1)
        await rig.sink.has(4)
    assert rig.sink.most_in_flight == {Kind.PROFILE: 1}
    plans = [call.payloads[0].split('"')[-2] for call in rig.sink.calls]
    assert plans == ["a", "b", "b", "c", "d"]


async def test_profiles_do_not_wait_for_events() -> None:
    """Each lane has its own loop: while ten requests of events hang, a profile update goes out."""
    rig = Rig(ScriptedSink(), size=1, max_size=1)
    rig.sink.hold()
    async with rig.running():
        await rig.append(*numbered(0, 20))
        await rig.sink.called(10)
        await rig.append_profiles("a")
        assert (await rig.sink.called(11)).kind is Kind.PROFILE


async def test_a_destination_that_is_down_is_asked_on_the_exact_schedule() -> None:
    """The same batch is tried after 1, 2, 4, 8 and 16 seconds, then after at most a minute, for as long as it takes."""
    rig = Rig(ScriptedSink(lambda *_: DOWN))
    async with rig.running():
        await rig.append(*numbered(0, 50))
        await rig.sink.called(1)
        waits = await rig.outage(100)
    assert waits == [1, 2, 4, 8, 16, 32] + [60] * 94
    assert len(rig.sink.calls) == 101
    counts = await rig.counts()
    assert (counts.pending, counts.dead) == (50, 0)
    assert rig.breaker.condition.failures == 101


async def test_a_redelivery_is_the_same_bytes() -> None:
    """Every attempt sends exactly what was stored."""
    rig = Rig(ScriptedSink([DOWN, Hold("timed out"), Pause("401")]))
    async with rig.running():
        await rig.append(*numbered(0, 50))
        await rig.sink.called(1)
        await rig.outage(3)
        await rig.settled(50)
    assert len(rig.sink.calls) == 4
    assert all(call == rig.sink.calls[0] for call in rig.sink.calls)


async def test_a_wish_to_wait_is_granted() -> None:
    """A destination that asks for 30 seconds gets them."""
    rig = Rig(ScriptedSink([Hold("429", after_s=30.0)]))
    async with rig.running():
        await rig.append(*numbered(0, 50))
        await rig.sink.called(1)
        assert await rig.outage(1) == [30]
        await rig.settled(50)


async def test_ten_requests_that_fail_are_one_failure_then_one_probe() -> None:
    """After an outage began, only one batch at a time goes out until one succeeds; then all do again."""
    rig = Rig(ScriptedSink([DOWN] * 12), max_size=50)
    rig.sink.hold()
    async with rig.running():
        await rig.append(*numbered(0, 1000))
        await rig.sink.called(10)
        rig.sink.release()
        assert await rig.clock.sleeper(0.5) == 1
        assert rig.breaker.condition.failures == 1
        rig.sink.hold()
        for probe in (1, 2):
            await rig.clock.advance(rig.breaker.wait_s() or 0.0)
            await rig.sink.called(10 + probe)
            await rig.clock.advance(1000)
            assert len(rig.sink.calls) == 10 + probe
            rig.sink.release()
            await settle_down()
            rig.sink.hold()
        await rig.clock.advance(4)
        await rig.sink.called(13)
        rig.sink.release()
        await rig.settled(1000)
    assert sorted(rig.sink.delivered) == sorted(set(rig.sink.delivered))
    assert len(rig.sink.delivered) == 1000


async def test_a_probe_of_one_lane_stops_the_other() -> None:
    """Both lanes of a destination share its breaker: while profiles probe, events wait."""
    rig = Rig(ScriptedSink([DOWN]), size=1)
    async with rig.running():
        await rig.append_profiles("a")
        await rig.sink.called(1)
        await rig.clock.sleeper(0.5)
        await rig.append("e")
        await settle_down()
        rig.sink.hold()
        await rig.clock.advance(1)
        await rig.sink.called(2)
        await settle_down()
        assert len(rig.sink.calls) == 2
        rig.sink.release()
        await rig.sink.has(2)


async def test_a_pause_keeps_everything_until_it_is_mended() -> None:
    """Wrong credentials are probed once a minute; after that delivery goes on by itself."""
    rig = Rig(ScriptedSink([Pause("401 Unauthorized")] * 3))
    async with rig.running():
        await rig.append(*numbered(0, 50))
        await rig.sink.called(1)
        waits = await rig.outage(2)
        assert rig.breaker.condition.state is State.PAUSED
        assert (await rig.log.backlog()).destinations[0].condition == rig.breaker.condition
        waits += await rig.outage(1)
        await rig.settled(50)
    assert waits == [60, 60, 60]
    assert (await rig.counts()).sent == 50
    assert rig.breaker.condition == Condition()


async def test_a_stored_condition_is_kept_to_after_a_restart() -> None:
    """A restart loop does not hammer: what waits is sent when the stored moment has come."""
    start_ms = FakeClock().wall_ms()
    rig = Rig(ScriptedSink(), Condition(State.OPEN, 9, start_ms + 30_000, "503"))
    await rig.append(*numbered(0, 50))
    async with rig.running():
        assert await rig.clock.sleeper(0.5) == 30
        assert rig.sink.calls == []
        await rig.clock.advance(30)
        await rig.settled(50)


async def test_each_record_gets_its_own_outcome() -> None:
    """A refusal by name makes exactly that record a dead letter, with the destination's reason."""
    bad = Rejected(400, "properties.time", "is invalid")
    rig = Rig(ScriptedSink([Settled([DELIVERED, bad, DELIVERED], note="400, 1 failed")]), size=3)
    async with rig.running():
        await rig.append("a", "b", "c")
        await rig.settled(3)
    (settlement,) = rig.log.settlements
    assert (settlement.outcomes, settlement.note) == ([DELIVERED, bad, DELIVERED], "400, 1 failed")
    counts = await rig.counts()
    assert (counts.sent, counts.dead, counts.pending) == (2, 1, 0)


@pytest.mark.parametrize("count", [1, 2, 50, 64, 1000])
@pytest.mark.parametrize("place", [0.0, 0.4, 1.0])
async def test_a_refused_batch_is_split_down_to_the_poison(count: int, place: float) -> None:
    """Within 2 log2(n) + 1 requests the one bad record is dead and all others are delivered, once."""
    poison = f"n{round(place * (count - 1))}"
    rig = Rig(ScriptedSink(poisoned(poison)), size=count)
    async with rig.running():
        await rig.append(*numbered(0, count))
        await rig.settled(count)
    assert len(rig.sink.calls) <= 2 * math.log2(count) + 1
    assert names(rig.sink.delivered) == [name for name in numbered(0, count) if name != poison]
    (settlement,) = rig.log.settlements
    assert settlement.outcomes[int(poison[1:])] == Rejected(400, "", "there is something bad in it")
    assert rig.breaker.condition == Condition()


@pytest.mark.parametrize("error", [CommitFailed("no"), BacklogFull("the disk is full")])
async def test_a_settlement_that_fails_is_tried_again_without_sending_again(error: Unavailable) -> None:
    """A disk that is full for a moment does not turn one delivery into two."""
    rig = Rig(ScriptedSink())
    rig.log.errors = [error] * 3
    async with rig.running():
        await rig.append(*numbered(0, 50))
        await rig.sink.called(1)
        for _ in range(3):
            assert await rig.clock.sleeper(0.5) == STORE_AGAIN_S
            assert (await rig.counts()).in_flight == 50
            await rig.clock.advance(STORE_AGAIN_S)
        await rig.settled(50)
    assert len(rig.sink.calls) == 1
    assert (await rig.counts()).sent == 50


async def test_a_log_that_has_closed_keeps_the_batch() -> None:
    """What cannot be settled any more stays pending, and does not hold the flusher up."""
    rig = Rig(ScriptedSink())
    rig.log.errors = [LogClosed("closed")]
    async with rig.running() as run:
        await rig.append(*numbered(0, 50))
        await rig.sink.called(1)
        rig.flusher.drain()
        await run
    assert (await rig.counts()).pending == 50


async def test_the_condition_is_stored_with_each_settlement() -> None:
    """A failure is on record with the batch that met it, and a success closes the record."""
    rig = Rig(ScriptedSink([DOWN]), size=1)
    async with rig.running():
        await rig.append("a")
        await rig.sink.called(1)
        await rig.outage(1)
        await rig.settled(1)
    start_ms = rig.clock.wall_ms() - 1000
    conditions = [settlement.condition for settlement in rig.log.settlements]
    assert conditions == [Condition(State.RETRYING, 1, start_ms + 1000, DOWN.reason, start_ms), Condition()]
    assert [(s.started_at_ms, s.finished_at_ms, s.note) for s in rig.log.settlements] == [
        (start_ms, start_ms, DOWN.reason),
        (start_ms + 1000, start_ms + 1000, "200"),
    ]


async def test_a_log_line_tells_counts_and_no_content() -> None:
    """Each answer and each change of the destination is one line, without a payload; a retry is no change."""
    rig = Rig(ScriptedSink([DOWN, DOWN]), size=1)
    with capture_logs() as lines:
        async with rig.running():
            await rig.append("secret")
            await rig.sink.called(1)
            await rig.outage(2)
            await rig.settled(1)
    assert [line["event"] for line in lines].count("flusher.batch_answered") == 3
    changes = [line for line in lines if line["event"] == "flusher.destination_changed"]
    assert [(line["was"], line["state"]) for line in changes] == [("ok", "retrying"), ("retrying", "ok")]
    assert "secret" not in repr(lines)


async def test_each_answer_is_told_to_whoever_observes() -> None:
    """Counts by outcome, bytes, and which attempt in a row it was."""
    rig = Rig(ScriptedSink([DOWN, Settled([DELIVERED, Rejected(400, "", "bad")], "400")]), size=2)
    async with rig.running():
        await rig.append("a", "b")
        await rig.clock.advance(await rig.clock.sleeper(0.5))
        await rig.settled(2)
    failed, taken = rig.answered
    assert (failed.events, failed.pending, failed.attempt, failed.answer) == (2, 2, 1, "503 Service Unavailable")
    assert (taken.events, taken.sent, taken.dead, taken.pending, taken.attempt) == (2, 1, 1, 0, 2)
    assert (taken.destination, taken.lane) == ("there", "events")
    assert taken.payload_bytes == sum(len(payload) for payload in rig.sink.calls[1].payloads)
    assert (failed.outcome, taken.outcome, taken.dead_by_code) == ("failed", "partial", {400: 1})
    assert taken.finished_at_ms - taken.oldest_at_ms == 1000


async def test_what_was_fetched_as_the_destination_failed_goes_back_to_the_log() -> None:
    """It does not wait in memory for the end of an outage: of two lanes one is the probe, the other holds nothing."""
    down = Condition(State.OPEN, 9, FakeClock().wall_ms() + 1000, "503")
    rig = Rig(ScriptedSink(), down, size=1)
    rig.sink.hold()
    await rig.append("a")
    await rig.append_profiles("pro")
    async with rig.running():
        await rig.clock.advance(1)
        await rig.sink.called(1)
        await settle_down()
        in_flight = [(await rig.counts(kind)).in_flight for kind in (Kind.EVENT, Kind.PROFILE)]
        assert sorted(in_flight) == [0, 1]
        rig.sink.release()
        await rig.settled(1)
        await settle_down()
        assert [(await rig.counts(kind)).sent for kind in (Kind.EVENT, Kind.PROFILE)] == [1, 1]
