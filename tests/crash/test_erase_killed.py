"""An erasure is killed at each of its steps; run again, it leaves nothing, and takes nothing from others."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from erasing_killed import STEPS
from log_records import open_log
from person_log import MINE, fill
from programs import Site, eventually, site
from traces import files_with, secret_id

from walbatch.testing.clock import FakeClock

pytestmark = pytest.mark.crash

KILLED = (sys.executable, str(Path(__file__).parent.parent / "support" / "erasing_killed.py"))
FEW = ("before erase_slice 2", "after bury 1", "before scrub 1")


def filled(here: Site, who: str) -> None:
    """Make a log with records of a person in every state."""

    async def make() -> None:
        clock = FakeClock(time.time_ns() // 10**6)
        async with open_log(here.data, clock, "mixpanel") as log:
            await fill(log, clock, who, "mixpanel")

    asyncio.run(make())


def killed(here: Site, who: str, step: str, *, serving: bool) -> None:
    """Erase, by the server if there is one, and kill who does it at a step."""
    arguments = ("erase", "--distinct-id", who, "--yes")
    if not serving:
        ended = here.start("env", f"KILL_AT={step}", *KILLED, *arguments).wait()
        assert ended == -signal.SIGKILL
        return
    server = here.serve(entry=("env", f"KILL_AT={step}", *KILLED, "serve"))
    command = here.run(*arguments, check=False)
    assert (command.returncode, server.wait()) == (4, -signal.SIGKILL)
    assert "run this again" in command.stderr or "does not answer" in command.stderr


def check_nothing_is_left(here: Site, who: str, *, serving: bool) -> None:
    """Erase once more, and look at everything that there is."""
    if serving:
        here.serve()
    again = here.run("erase", "--distinct-id", who, "--yes", check=False)
    assert again.returncode == 0, again.stderr
    assert files_with(here.data, who) == []
    numbers = here.stats()
    assert (numbers["erased"], numbers["accepted"]) == (MINE, MINE + 5)
    assert sum(numbers[name] for name in ("sent", "pending", "dead", "resolved")) == 5


@pytest.mark.timeout(300)
@pytest.mark.parametrize("serving", [False, True])
def test_an_erasure_that_is_killed_is_finished_by_the_next(
    tmp_path: Path,
    rounds: Callable[[int, int], int],
    matrix: Callable[..., None],
    serving: bool,  # noqa: FBT001
) -> None:
    """Wherever it was cut off, with a server and without one: afterwards no file has a trace, and the counts add up."""
    chosen = (FEW[:1] if serving else FEW, STEPS)[rounds(0, 1)]
    left = 0
    for number, step in enumerate(chosen):
        who, path = secret_id(), tmp_path / str(number)
        path.mkdir()
        with site(path, retry_base="50ms", retry_max="200ms") as here:
            filled(here, who)
            killed(here, who, step, serving=serving)
            left += bool(files_with(here.data, who))
            check_nothing_is_left(here, who, serving=serving)
    assert left, "no kill left anything behind: the search was not put to the test"
    matrix(
        fault=f"SIGKILL during an erasure{' by the server' * serving}",
        rounds=len(chosen),
        acked=len(chosen) * (MINE + 5),
        lost=0,
        control=f"traces before the second run: {left} of {len(chosen)}",
    )


def test_a_late_record_is_refused_after_a_kill_right_behind_the_tombstone(tmp_path: Path) -> None:
    """Nothing is deleted yet, and nobody comes back all the same."""
    who = secret_id()
    with site(tmp_path) as here:
        filled(here, who)
        killed(here, who, "after bury 1", serving=False)
        here.serve()
        line = f'{{"event": "late", "properties": {{"distinct_id": "{who}", "time": 1600000000}}}}\n'
        late = here.run("send", "-", text=line, check=False)
        assert late.returncode == 1
        assert "erased at" in late.stderr
        eventually(lambda: here.stats()["accepted"] == MINE + 5, "it is not accepted")
