"""What a person can do to delivery while it runs: pause, resume, flush."""

from __future__ import annotations

import asyncio

import pytest
from flusher_rig import Rig, names, numbered, settle_down

from walbatch.delivery import Hold, Pause
from walbatch.event import Kind
from walbatch.retry import Condition, State
from walbatch.testing.clock import FakeClock
from walbatch.testing.sink import ScriptedSink

DOWN = Hold("503 Service Unavailable")


async def flush(rig: Rig) -> int:
    """Do as `walbatch flush` does."""
    due = rig.log.make_due("there")
    rig.flusher.ask_now()
    await settle_down()
    return due


async def test_nothing_goes_out_during_a_pause_and_all_of_it_after_it() -> None:
    """Full batches and old ones are kept, of every kind; the resume sends them without a wait."""
    rig = Rig(ScriptedSink())
    async with rig.running():
        await rig.log.pause("there", 1)
        await rig.append(*numbered(0, 120))
        await rig.append_profiles("pro")
        await rig.clock.advance(3600)
        await settle_down()
        assert rig.sink.calls == []
        assert (await rig.counts()).pending == 120
        at_s = rig.clock.monotonic_s()
        await rig.log.pause("there", None)
        await rig.settled(120)
        await rig.sink.has(121)
        assert rig.clock.monotonic_s() == at_s
    assert (await rig.counts(Kind.PROFILE)).sent == 1


async def test_a_request_under_way_ends_well_during_a_pause() -> None:
    """Its answer counts, and is noted."""
    rig = Rig(ScriptedSink(), size=1, max_size=1)
    rig.sink.hold()
    async with rig.running():
        await rig.append("a")
        await rig.sink.called(1)
        await rig.log.pause("there", 1)
        await rig.append("b")
        rig.sink.release()
        await rig.settled(1)
        await settle_down()
        assert len(rig.sink.calls) == 1
        assert (await rig.counts()).pending == 1


async def test_the_last_flush_sends_nothing_to_a_paused_destination() -> None:
    """A stop does not wait for it either; everything stays pending."""
    rig = Rig(ScriptedSink())
    async with rig.running() as run:
        await rig.append(*numbered(0, 30))
        await rig.log.pause("there", 1)
        rig.flusher.drain()
        await run
    assert rig.sink.calls == []
    assert (await rig.counts()).pending == 30


@pytest.mark.parametrize("steps", range(20))
async def test_a_pause_at_any_moment_loses_nothing_and_doubles_nothing(steps: int) -> None:
    """Whatever is on its way at that moment is delivered once, and the rest after the resume."""
    rig = Rig(ScriptedSink(), size=1, max_size=1)
    async with rig.running():
        await rig.append("a", "b", "c")
        await rig.append_profiles("pro")
        for _ in range(steps):
            await asyncio.sleep(0)
        await rig.log.pause("there", 1)
        await settle_down()
        during = len(rig.sink.calls)
        await settle_down()
        assert len(rig.sink.calls) == during
        await rig.log.pause("there", None)
        await rig.settled(3)
        await rig.sink.has(4)
    assert len(rig.sink.delivered) == len(set(rig.sink.delivered)) == 4


async def test_an_outage_is_not_probed_during_a_pause() -> None:
    """The destination is left alone; the resume asks it, once its wait is over."""
    rig = Rig(ScriptedSink([DOWN]), size=1)
    async with rig.running():
        await rig.append("a")
        await rig.sink.called(1)
        await settle_down()
        await rig.log.pause("there", 1)
        await rig.clock.advance(3600)
        assert len(rig.sink.calls) == 1
        await rig.log.pause("there", None)
        await rig.settled(1)
    assert len(rig.sink.calls) == 2


async def test_a_flush_sends_what_waits_once() -> None:
    """Of every kind, without a wait; what comes after it waits for its batch as ever."""
    rig = Rig(ScriptedSink())
    async with rig.running():
        await rig.append("a", "b")
        await rig.append_profiles("pro")
        await settle_down()
        assert await flush(rig) == 3
        await rig.sink.has(3)
        await rig.append("c")
        await settle_down()
        assert len(rig.sink.delivered) == 3
        assert await rig.clock.sleeper(5) == 10
        await rig.clock.advance(10)
        await rig.settled(3)


async def test_a_flush_with_nothing_to_send_sends_nothing() -> None:
    """An idle destination is not asked."""
    rig = Rig(ScriptedSink())
    async with rig.running():
        assert await flush(rig) == 0
    assert rig.sink.calls == []


@pytest.mark.parametrize("answer", [DOWN, Hold("429", after_s=300.0), Pause("401")])
async def test_a_flush_asks_a_destination_that_is_down_once(answer: Hold | Pause) -> None:
    """One batch, at once, whatever was to be waited for; if it fails, the backoff goes on with its next wait."""
    rig = Rig(ScriptedSink(lambda *_: answer))
    async with rig.running():
        await rig.append(*numbered(0, 50))
        await rig.append_profiles("pro")
        await rig.sink.called(1)
        await settle_down()
        rig.sink.hold()
        assert await flush(rig) == 51
        await flush(rig)
        assert len(rig.sink.calls) == 2
        rig.sink.release()
        await settle_down()
        assert len(rig.sink.calls) == 2
    assert rig.breaker.condition.failures == 2


async def test_a_flush_that_finds_the_destination_well_again_sends_everything() -> None:
    """Nobody waits for the rest of a minute."""
    rig = Rig(ScriptedSink(), Condition(State.OPEN, 9, FakeClock().wall_ms() + 60_000, "503", 1))
    await rig.append(*numbered(0, 120))
    async with rig.running():
        await settle_down()
        assert rig.sink.calls == []
        assert await flush(rig) == 120
        await rig.settled(120)
        assert rig.clock.monotonic_s() == 0
    assert rig.breaker.condition == Condition()
    assert names(rig.sink.delivered) == numbered(0, 120)


async def test_a_flush_does_not_break_a_pause() -> None:
    """What it made due goes out after the resume."""
    rig = Rig(ScriptedSink())
    async with rig.running():
        await rig.log.pause("there", 1)
        await rig.append("a")
        assert await flush(rig) == 1
        assert rig.sink.calls == []
        await rig.log.pause("there", None)
        await rig.settled(1)
        assert rig.clock.monotonic_s() == 0
