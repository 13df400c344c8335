"""How the flusher ends: by `drain`, which sends what waits, or by being cancelled, which leaves it."""

from __future__ import annotations

import asyncio

import pytest
from flusher_rig import Rig, names, numbered, settle_down

from walbatch.batching import BatchPolicy
from walbatch.delivery import Hold, Pause
from walbatch.errors import CommitFailed
from walbatch.event import Kind
from walbatch.flusher import STORE_AGAIN_S
from walbatch.retry import Condition, State
from walbatch.testing.sink import ScriptedSink
from walbatch.wal import Lane

DOWN = Hold("503 Service Unavailable")


async def test_drain_sends_what_waits_at_once() -> None:
    """Records that are not due yet go out without a wait, of both kinds, and `run` returns."""
    rig = Rig(ScriptedSink())
    async with rig.running() as run:
        await rig.append("a", "b")
        await rig.append_profiles("pro")
        await settle_down()
        rig.flusher.drain()
        await run
    assert sorted(len(call.payloads) for call in rig.sink.calls) == [1, 2]
    assert (await rig.counts()).sent == 2
    assert (await rig.counts(Kind.PROFILE)).sent == 1
    assert rig.clock.monotonic_s() == 0


async def test_drain_sends_everything_however_much_it_is() -> None:
    """A backlog of many batches is emptied, side by side as always."""
    rig = Rig(ScriptedSink(), max_size=7)
    await rig.append(*numbered(0, 1000))
    rig.sink.hold()
    async with rig.running() as run:
        rig.flusher.drain()
        await rig.sink.called(10)
        rig.sink.release()
        await run
    assert (await rig.counts()).sent == 1000
    assert rig.sink.most_in_flight[Kind.EVENT] == 10


async def test_drain_waits_for_what_is_in_flight() -> None:
    """A request that was sent is answered and settled before `run` returns."""
    rig = Rig(ScriptedSink(), size=1)
    rig.sink.hold()
    async with rig.running() as run:
        await rig.append("a")
        await rig.sink.called(1)
        rig.flusher.drain()
        await settle_down()
        assert not run.done()
        rig.sink.release()
        await run
    assert (await rig.counts()).sent == 1


async def test_drain_waits_for_a_settlement_that_is_tried_again() -> None:
    """What the destination has is put on record, although the disk was full for a moment."""
    rig = Rig(ScriptedSink(), size=1)
    rig.log.errors = [CommitFailed("no")]
    async with rig.running() as run:
        await rig.append("a")
        await rig.clock.sleeper(STORE_AGAIN_S)
        rig.flusher.drain()
        await settle_down()
        assert not run.done()
        await rig.clock.advance(STORE_AGAIN_S)
        await run
    assert (await rig.counts()).sent == 1


@pytest.mark.parametrize("answer", [DOWN, Pause("401")])
async def test_drain_does_not_wait_for_a_destination_that_is_down(answer: Hold | Pause) -> None:
    """While the breaker is not closed nothing more is tried; all stays pending, and `run` returns at once."""
    rig = Rig(ScriptedSink(lambda *_: answer))
    async with rig.running() as run:
        await rig.append(*numbered(0, 50))
        await rig.sink.called(1)
        await rig.clock.sleeper(0.5)
        await rig.append("later")
        rig.flusher.drain()
        await run
    assert len(rig.sink.calls) == 1
    assert (await rig.counts()).pending == 51


async def test_a_destination_that_goes_down_ends_the_drain() -> None:
    """What has failed while draining is not tried again; it stays pending."""
    rig = Rig(ScriptedSink(lambda *_: DOWN), max_size=1)
    await rig.append(*numbered(0, 30))
    async with rig.running() as run:
        rig.flusher.drain()
        await run
    assert len(rig.sink.calls) <= 10
    assert (await rig.counts()).pending == 30


async def test_drain_during_a_probe_waits_for_the_probe_only() -> None:
    """A probe that is out is answered; whatever it says, `run` then returns."""
    rig = Rig(ScriptedSink([DOWN, DOWN]))
    async with rig.running() as run:
        await rig.append(*numbered(0, 50))
        await rig.sink.called(1)
        await rig.clock.sleeper(0.5)
        rig.sink.hold()
        await rig.clock.advance(1)
        await rig.sink.called(2)
        rig.flusher.drain()
        await settle_down()
        assert not run.done()
        rig.sink.release()
        await run
    assert (await rig.counts()).pending == 50


async def test_drain_of_an_idle_flusher_returns_at_once() -> None:
    """Nothing to send, nothing to wait for; draining twice, or before `run`, is fine as well."""
    rig = Rig(ScriptedSink())
    async with rig.running() as run:
        rig.flusher.drain()
        rig.flusher.drain()
        await run
    early = Rig(ScriptedSink())
    early.flusher.drain()
    await early.append("a")
    await early.flusher.run()
    assert (await early.counts()).sent == 1


async def test_records_that_arrive_while_draining_do_not_prolong_it() -> None:
    """What comes after everything was handed out stays for the next start, or goes out; `run` returns either way."""
    rig = Rig(ScriptedSink(), size=1)
    rig.sink.hold()
    async with rig.running() as run:
        await rig.append("a")
        await rig.sink.called(1)
        rig.flusher.drain()
        await settle_down()
        await rig.append("b")
        rig.sink.release()
        await run
    counts = await rig.counts()
    assert counts.accepted == counts.sent + counts.pending == 2


async def test_cancelling_leaves_the_batch_pending_and_counts_no_attempt() -> None:
    """A request that is interrupted is no failure: the condition and the counts are as before."""
    rig = Rig(ScriptedSink())
    rig.sink.hold()
    async with rig.running() as run:
        await rig.append(*numbered(0, 50))
        await rig.sink.called(1)
        run.cancel()
        await asyncio.wait([run])
    assert run.cancelled()
    assert rig.breaker.condition == Condition()
    assert rig.log.settlements == []
    assert (await rig.counts()).pending == 50


async def test_cancelling_a_probe_does_not_block_the_next_one() -> None:
    """The failures before it still count; the probe itself never happened."""
    rig = Rig(ScriptedSink([DOWN]))
    async with rig.running() as run:
        await rig.append(*numbered(0, 50))
        await rig.sink.called(1)
        await rig.clock.sleeper(0.5)
        rig.sink.hold()
        before = rig.breaker.condition
        await rig.clock.advance(1)
        await rig.sink.called(2)
        run.cancel()
        await asyncio.wait([run])
    assert rig.breaker.condition == before
    assert before.state is State.RETRYING
    assert rig.breaker.wait_s() == 0.0


async def test_cancelling_while_nothing_is_due_takes_nothing() -> None:
    """Records that were waiting are not in flight afterwards."""
    rig = Rig(ScriptedSink())
    async with rig.running() as run:
        await rig.append("a")
        await rig.clock.sleeper(5)
        run.cancel()
        await asyncio.wait([run])
    assert (await rig.counts()).in_flight == 0
    batch = await rig.log.fetch(Lane("there", Kind.EVENT), BatchPolicy().at_once())
    assert names(list(batch.payloads)) == ["a"]


@pytest.mark.parametrize("steps", range(25))
async def test_cancelling_at_any_moment_of_a_drain_ends_it(steps: int) -> None:
    """The grace may run out at any point of a drain: `run` then ends, whatever the destination does."""
    rig = Rig(ScriptedSink())
    rig.sink.hold()
    async with rig.running() as run:
        await rig.append("a", "b")
        await rig.append_profiles("pro")
        await settle_down()
        rig.flusher.drain()
        for _ in range(steps):
            await asyncio.sleep(0)
        run.cancel()
        await settle_down()
        ended = run.done()
        rig.sink.release()
    assert ended
    assert run.cancelled()


@pytest.mark.parametrize("steps", range(25))
async def test_draining_at_any_moment_of_a_delivery_loses_nothing(steps: int) -> None:
    """Whenever a stop comes, every record is either delivered and settled, or pending."""
    rig = Rig(ScriptedSink([DOWN]), size=1)
    async with rig.running() as run:
        await rig.append_profiles("pro")
        await rig.append("a", "b")
        for _ in range(steps):
            await asyncio.sleep(0)
        rig.flusher.drain()
        await run
    counts = [await rig.counts(kind) for kind in Kind]
    assert sum(lane.sent for lane in counts) == len(rig.sink.delivered)
    assert sum(lane.sent + lane.pending for lane in counts) == 3
