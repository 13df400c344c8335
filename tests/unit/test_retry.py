"""When a destination is asked again: the waits, and who may send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walbatch.retry import MAX_RETRY_AFTER_S, Backoff, Breaker, Condition, State
from walbatch.testing.clock import FakeClock

uniform = st.floats(0, 1, exclude_max=True)


@pytest.fixture
def breaker(clock: FakeClock) -> Breaker:
    """A closed breaker with the default waits and no jitter."""
    return Breaker(Backoff(), clock, lambda: 0.0)


async def fail(breaker: Breaker, clock: FakeClock, times: int) -> None:
    """Let that many probes fail, each as soon as it is permitted."""
    for _ in range(times):
        await clock.advance(breaker.wait_s() or 0.0)
        breaker.failed(breaker.permit(), "503")


@given(uniform)
def test_the_ramp_is_exact(random: float) -> None:
    """The first five waits are 1, 2, 4, 8 and 16 seconds, whatever chance says."""
    assert [Backoff().delay_s(n, random) for n in range(1, 6)] == [1, 2, 4, 8, 16]


def test_probes_double_on_to_a_minute() -> None:
    """After the ramp the wait grows to 32 and then to 60 seconds, and stays there."""
    assert [Backoff().delay_s(n, 0.0) for n in (6, 7, 8, 100)] == [32, 60, 60, 60]


@given(st.integers(6, 10**9), uniform)
def test_jitter_only_shortens_a_probe(failures: int, random: float) -> None:
    """A probe comes up to a fifth earlier than its nominal wait, and never later."""
    nominal = Backoff().delay_s(failures, 0.0)
    assert 0.8 * nominal <= Backoff().delay_s(failures, random) <= nominal <= 60


@given(st.integers(1, 10**9), uniform, st.floats(0.001, 10), st.floats(1, 3600), st.integers(0, 20))
def test_waits_never_shrink_nor_pass_the_limit(
    failures: int, random: float, base_s: float, max_s: float, attempts: int
) -> None:
    """The nominal wait grows with the failures, stays within the limit, and never overflows."""
    backoff = Backoff(base_s, max_s, attempts)
    assert 0 < backoff.delay_s(failures, random) <= max_s
    assert backoff.delay_s(failures, 0.0) <= backoff.delay_s(failures + 1, 0.0)


def test_an_outage_of_years_does_not_overflow() -> None:
    """The doubling stops before a float does."""
    assert Backoff().delay_s(10**12, 0.0) == 60


def test_a_closed_breaker_lets_everyone_through(breaker: Breaker) -> None:
    """While all is well there is neither a wait nor a limit."""
    tickets = [breaker.permit() for _ in range(10)]
    assert breaker.wait_s() == 0.0
    for ticket in tickets:
        breaker.succeeded(ticket)
    assert breaker.condition == Condition()


async def test_ten_requests_that_fail_together_are_one_failure(breaker: Breaker, clock: FakeClock) -> None:
    """Requests of the same moment count once; the last error is kept all the same."""
    tickets = [breaker.permit() for _ in range(10)]
    for n, ticket in enumerate(tickets):
        breaker.failed(ticket, f"error {n}")
    now_ms = clock.wall_ms()
    assert breaker.condition == Condition(State.RETRYING, 1, now_ms + 1000, "error 9", now_ms)
    assert breaker.wait_s() == 1.0


async def test_the_ramp_then_opens(breaker: Breaker, clock: FakeClock) -> None:
    """Five failures are retries; from the sixth on the breaker is open, and probes without end."""
    seen = []
    for _ in range(8):
        await fail(breaker, clock, 1)
        seen.append((breaker.condition.state, breaker.wait_s()))
    assert seen[:5] == [(State.RETRYING, s) for s in (1, 2, 4, 8, 16)]
    assert seen[5:] == [(State.OPEN, 32), (State.OPEN, 60), (State.OPEN, 60)]
    assert breaker.condition.failures == 8


async def test_one_probe_at_a_time(breaker: Breaker, clock: FakeClock) -> None:
    """After the wait one request is let through, and nobody else until it has ended."""
    await fail(breaker, clock, 1)
    await clock.advance(1)
    assert breaker.wait_s() == 0.0
    ticket = breaker.permit()
    assert breaker.wait_s() is None
    await clock.advance(100)
    assert breaker.wait_s() is None
    breaker.failed(ticket, "503")
    assert breaker.wait_s() == 2.0


async def test_a_probe_that_succeeds_closes(breaker: Breaker, clock: FakeClock) -> None:
    """One success forgets every failure."""
    await fail(breaker, clock, 7)
    await clock.advance(60)
    breaker.succeeded(breaker.permit())
    assert breaker.condition == Condition()
    assert breaker.wait_s() == 0.0
    breaker.failed(breaker.permit(), "503")
    assert breaker.wait_s() == 1.0


async def test_a_success_from_before_the_failure_does_not_close(breaker: Breaker) -> None:
    """An answer to a request that left before the outage says nothing about it."""
    early, late = breaker.permit(), breaker.permit()
    breaker.failed(late, "503")
    breaker.succeeded(early)
    assert breaker.condition.state is State.RETRYING
    assert breaker.wait_s() == 1.0


async def test_a_failure_from_before_the_success_does_not_count_twice(breaker: Breaker, clock: FakeClock) -> None:
    """A slow failure of the same outage neither opens again nor lets a second probe through."""
    slow, quick = breaker.permit(), breaker.permit()
    breaker.failed(quick, "503")
    await clock.advance(1)
    probe = breaker.permit()
    breaker.failed(slow, "timed out")
    assert breaker.condition.failures == 1
    assert breaker.condition.last_error == "timed out"
    assert breaker.wait_s() is None
    breaker.succeeded(probe)
    assert breaker.condition.state is State.OK


async def test_an_abandoned_probe_lets_the_next_one_through(breaker: Breaker, clock: FakeClock) -> None:
    """A probe that was never sent is no failure, and blocks nobody."""
    await fail(breaker, clock, 1)
    await clock.advance(1)
    stale = breaker.permit()
    breaker.abandoned(stale)
    assert breaker.wait_s() == 0.0
    probe = breaker.permit()
    breaker.failed(probe, "503")
    await clock.advance(2)
    breaker.permit()
    breaker.abandoned(stale)
    assert breaker.wait_s() is None


async def test_a_pause_probes_once_a_minute(breaker: Breaker, clock: FakeClock) -> None:
    """Wrong credentials are asked about every 60 seconds, until a person has mended them."""
    began_ms = clock.wall_ms()
    for n in (1, 2, 3):
        await clock.advance(breaker.wait_s() or 0.0)
        breaker.paused(breaker.permit(), "401")
        assert breaker.condition == Condition(State.PAUSED, n, clock.wall_ms() + 60_000, "401", began_ms)
        assert breaker.wait_s() == 60.0
    await clock.advance(60)
    breaker.succeeded(breaker.permit())
    assert breaker.condition == Condition()


@pytest.mark.parametrize(
    ("asked_s", "waits_s"),
    [(None, 1.0), (0.25, 1.0), (30.0, 30.0), (300.0, 300.0), (86_400.0, MAX_RETRY_AFTER_S)],
    ids=["not asked", "shorter than ours", "longer than ours", "just allowed", "cut"],
)
def test_the_longer_wait_wins(breaker: Breaker, clock: FakeClock, asked_s: float | None, waits_s: float) -> None:
    """A Retry-After is honoured if it is longer than our own wait, up to five minutes."""
    breaker.failed(breaker.permit(), "429", asked_s)
    assert breaker.wait_s() == waits_s
    assert breaker.condition.retry_at_ms == clock.wall_ms() + round(waits_s * 1000)


async def test_a_restart_goes_on_where_it_stopped(breaker: Breaker, clock: FakeClock) -> None:
    """The stored condition is taken up: the rest of the wait, and the place on the ramp."""
    await fail(breaker, clock, 4)
    stored = breaker.condition
    await clock.advance(3)
    again = Breaker(Backoff(), clock, lambda: 0.0, stored)
    assert again.condition == stored
    assert again.wait_s() == 5.0
    await clock.advance(5)
    again.failed(again.permit(), "503")
    assert again.wait_s() == 16.0


async def test_a_wait_that_ended_while_nobody_ran_is_over(breaker: Breaker, clock: FakeClock) -> None:
    """After a long stop the first probe goes out at once, alone."""
    await fail(breaker, clock, 6)
    await clock.advance(3600)
    again = Breaker(Backoff(), clock, lambda: 0.0, breaker.condition)
    assert again.wait_s() == 0.0
    again.permit()
    assert again.wait_s() is None


async def test_a_wall_clock_that_was_set_back_does_not_stop_delivery(breaker: Breaker, clock: FakeClock) -> None:
    """A stored moment in the far future is cut to the longest wait there is."""
    await fail(breaker, clock, 1)
    clock.wall_jump_ms = -365 * 86_400_000
    again = Breaker(Backoff(), clock, lambda: 0.0, breaker.condition)
    assert again.wait_s() == MAX_RETRY_AFTER_S


def test_a_stored_condition_without_a_moment_is_asked_at_once(clock: FakeClock) -> None:
    """A person who resumed a destination left no moment to wait for."""
    again = Breaker(Backoff(), clock, lambda: 0.0, Condition(State.OPEN, 9, None, "503"))
    assert again.wait_s() == 0.0
    again.failed(again.permit(), "503")
    assert again.condition.failures == 10


async def test_a_row_of_failures_has_one_beginning(breaker: Breaker, clock: FakeClock) -> None:
    """It is kept through every state and over a restart; a success ends it, and the next failure begins another."""
    began_ms = clock.wall_ms()
    await fail(breaker, clock, 7)
    assert (breaker.condition.state, breaker.condition.since_ms) == (State.OPEN, began_ms)
    again = Breaker(Backoff(), clock, lambda: 0.0, breaker.condition)
    await clock.advance(again.wait_s() or 0.0)
    again.paused(again.permit(), "401")
    assert (again.condition.state, again.condition.since_ms) == (State.PAUSED, began_ms)
    await clock.advance(60)
    again.succeeded(again.permit())
    assert again.condition.since_ms is None
    again.failed(again.permit(), "503")
    assert again.condition.since_ms == clock.wall_ms() > began_ms


@pytest.mark.parametrize("failures", [1, 7])
async def test_a_probe_that_is_asked_for_goes_at_once_and_alone(
    breaker: Breaker, clock: FakeClock, failures: int
) -> None:
    """Whatever was to be waited for; its failure is the next of the row, with the wait of the row."""
    await fail(breaker, clock, failures)
    breaker.probe_now()
    assert breaker.wait_s() == 0.0
    probe = breaker.permit()
    breaker.probe_now()
    assert breaker.wait_s() is None
    breaker.failed(probe, "503")
    assert breaker.wait_s() == Backoff().delay_s(failures + 1, 0.0)
    assert breaker.condition.failures == failures + 1


async def test_asking_for_a_probe_while_all_is_well_changes_nothing(breaker: Breaker) -> None:
    """The destination is asked anyway."""
    breaker.probe_now()
    assert breaker.wait_s() == 0.0
    assert breaker.condition == Condition()


def test_jitter_is_asked_for_at_each_failure(clock: FakeClock) -> None:
    """Two installations with different luck do not probe in step."""
    lucks = iter([0.0, 0.5])
    one, other = (
        Breaker(Backoff(), clock, lambda: next(lucks), Condition(State.OPEN, 9, None, "503")) for _ in range(2)
    )
    one.failed(one.permit(), "503")
    other.failed(other.permit(), "503")
    assert (one.wait_s(), other.wait_s()) == (60.0, 54.0)
