"""The power is cut while a person is erased; afterwards it is done again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from crash_erase import examine_erased, prepare, with_a_person
from crash_life import survey
from crash_process import Machine, simulated

from walbatch.wal import driver, gaps

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Where disks in memory are mounted."""
    machine = simulated(tmp_path, monkeypatch)
    prepare(monkeypatch)
    yield machine
    machine.disks.unregister()


def test_an_erasure_that_was_cut_is_finished_by_the_next(
    machine: Machine, rounds: Callable[[int, int], int], matrix: Callable[..., None]
) -> None:
    """Nothing of others is lost, and after it was run again no byte of the person is in any file."""
    tally = survey(machine, rounds(40, 400), with_a_person, examine=examine_erased)
    print(tally)
    assert not tally.bad, tally.examples[:5]
    matrix(fault="power cut during erase", rounds=tally.images, acked=tally.acked, lost=0)


def test_what_is_left_between_rows_is_caught(
    machine: Machine, rounds: Callable[[int, int], int], matrix: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `secure_delete` and without cleaning the gaps, the person is found in the files."""
    monkeypatch.setitem(driver._WRITER_PRAGMAS, "secure_delete", 0)
    monkeypatch.setattr(gaps, "clean", lambda _descriptor, _numbers: 0)
    tally = survey(machine, rounds(20, 100), with_a_person, examine=examine_erased, deep=0)
    print(tally)
    assert tally.bad["personal"]
    matrix(
        fault="control: erase without scrubbing",
        rounds=tally.images,
        acked=tally.acked,
        lost=0,
        control=f"{tally.bad['personal']} personal",
    )
