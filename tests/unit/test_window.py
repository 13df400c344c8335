"""How many requests may be under way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from walbatch.window import Window


def test_it_begins_wide_open() -> None:
    """Nothing is held back before the destination asks for it, and success never opens more than all."""
    window = Window(10)
    assert window.size == 10
    window.succeeded()
    assert window.size == 10


def test_it_is_halved_and_grows_by_one() -> None:
    """Multiplicative decrease, additive increase: as many successes as the window is wide widen it by about one."""
    window = Window(10)
    window.throttled()
    sizes = [window.size]
    for _ in range(60):
        window.succeeded()
        sizes.append(window.size)
    assert sizes[0] == 5
    assert sizes[5:8] == [5, 6, 6]
    assert sizes.index(10) in range(36, 45)


def test_one_request_is_always_possible() -> None:
    """However often the destination asks for less, there is a probe left to find out that it takes more."""
    window = Window(10)
    for _ in range(20):
        window.throttled()
    assert window.size == 1
    window.succeeded()
    assert window.size == 2


@given(st.integers(1, 20), st.lists(st.booleans(), max_size=200))
def test_it_stays_within_its_bounds(maximum: int, answers: list[bool]) -> None:
    """Whatever is answered: at least one, at most the maximum."""
    window = Window(maximum)
    for good in answers:
        window.succeeded() if good else window.throttled()
        assert 1 <= window.size <= maximum


def test_it_settles_near_what_the_destination_takes() -> None:
    """A destination that takes four at a time is soon asked for about that many, and seldom for too many."""
    window, refused, sizes = Window(10), 0, []
    for _ in range(1000):
        if window.size > 4:
            refused += 1
            window.throttled()
        else:
            window.succeeded()
        sizes.append(window.size)
    assert 2 <= min(sizes[10:]) <= max(sizes[10:]) <= 5
    assert sum(sizes) / len(sizes) > 3
    assert refused < 150
