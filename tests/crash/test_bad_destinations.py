"""Destinations that misbehave in every way there is, all at the same time, beside a steady load."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from bad_destination import MODES, NO_PLACE, SMALL_BODY, BadDestination, Destinations, destinations
from programs import WALBATCH, Program, Site, eventually, site
from steady_client import SteadyClient, steady
from total_queue import Verdict, judge
from watching import MIB, drained, memory, numbers, pending_at

pytestmark = pytest.mark.crash

BROKEN = (sys.executable, str(Path(__file__).parent.parent / "support" / "broken_server.py"))
SETTINGS = {
    "mixpanel_token": "",
    "mixpanel_url": "",
    "retry_base": "50ms",
    "retry_max": "500ms",
    "retry_attempts": 3,
    "max_in_flight": 2,
    "flush_interval": "50ms",
}
PATIENT = ("429, a billion", "408, a date far off")
"""These ask for more than anybody waits for: what is kept is the longest wait that is granted, 300 s."""
SHORTEST_WAIT_S = 0.3
"""Between two probes. The longest wait is shortened by a fifth at most; the rest is for delays on the way."""
SETTLED_S = 1.2
"""After so long every ramp has ended."""
MOST_MEMORY = 40 * MIB
"""More than 20 connections and their clients take 14 MiB; an answer of 40 MB that is kept whole as much more."""


def serve(here: Site, made: dict[str, BadDestination], entry: Sequence[str] = (WALBATCH, "serve")) -> Program:
    """Start a server with a destination for each of these, named after the place in the list."""
    file = here.path / "destinations.toml"
    file.write_text(
        "".join(
            f'[destinations.d{number}]\ntype = "mixpanel"\ntoken = "t"\ntimeout = "400ms"\n'
            f'url = "http://127.0.0.1:{destination.port}"\n'
            for number, destination in enumerate(made.values())
        )
    )
    file.chmod(0o600)
    here.settings["destinations_file"] = file
    return here.serve(entry=entry)


def open_all(there: Destinations, path: Path, modes: Sequence[str]) -> dict[str, BadDestination]:
    """Open an address for each mode."""
    return {mode: there.add(path / f"out-{number}.ndjson", mode) for number, mode in enumerate(modes)}


def judged(destination: BadDestination, client: SteadyClient) -> Verdict:
    """Account for what one destination took."""
    return judge([client.log.read_text()], destination.lines())


def hurried(destination: BadDestination, since_s: float) -> list[float]:
    """Return the waits between probes that were too short, once its ramp has ended."""
    late = [at for at in destination.arrivals if at > since_s + SETTLED_S]
    return [after - before for before, after in pairwise(late) if after - before < SHORTEST_WAIT_S]


def outage(there: Destinations, here: Site, made: dict[str, BadDestination], number: int) -> None:
    """Let everybody misbehave for a while, each in another way than in the round before."""
    others = [one for mode, one in made.items() if mode not in PATIENT]
    modes = [mode for mode in made if mode not in PATIENT]
    for index, one in enumerate(others):
        there.switch(one, modes[(index + number) % len(modes)])
    since_s = time.monotonic()
    eventually(lambda: time.monotonic() - since_s > 2 * SETTLED_S, "the ramps have ended")
    for one in others:
        assert not hurried(one, since_s), one.mode
    for destination in numbers(here)["destinations"]:
        assert destination["failures"], destination
        assert destination["state"] in {"retrying", "open", "paused"}, destination
        assert sum(lane["dead"] for lane in destination["lanes"]) == 0, destination


@pytest.mark.timeout(150)
def test_every_way_in_which_a_destination_misbehaves(
    tmp_path: Path, matrix: Callable[..., None], rounds: Callable[[int, int], int]
) -> None:
    """Each is an outage: the intake goes on, one probe at a time, in little memory, and at last everything arrives."""
    times = rounds(1, 6)
    with site(tmp_path, **SETTINGS) as here, destinations() as there:
        made = open_all(there, tmp_path, [*MODES, NO_PLACE])
        server = serve(here, made)
        before = memory(server)
        with steady(f"127.0.0.1:{here.grpc_port}", tmp_path / "client.log", batch=5, pause_s=0.05) as client:
            for number in range(times):
                outage(there, here, made, number)
        assert not client.failures
        assert memory(server, "VmHWM") - before < MOST_MEMORY, "answers are not kept whole"
        healed = [f"d{number}" for number, mode in enumerate(made) if mode not in PATIENT]
        for mode in made.keys() - PATIENT:
            there.switch(made[mode], "good")
        told = {d["name"]: d for d in drained(here, healed)["destinations"]}
        verdicts = {mode: judged(one, client) for mode, one in made.items()}
        for number, (mode, verdict) in enumerate(verdicts.items()):
            state = told[f"d{number}"]
            assert not verdict.unexpected, mode
            assert not verdict.altered, mode
            if mode in PATIENT:
                assert 290 - 3 * times < state["retry_in_s"] <= 300, mode
                assert len(made[mode].arrivals) <= 2, mode
                assert pending_at({"destinations": [state]}) == client.acked, mode
            else:
                assert not verdict.lost, mode
                assert state["state"] == "ok", mode
    matrix(
        fault=f"a destination misbehaves in {len(made)} ways",
        rounds=len(made) * times,
        acked=client.acked,
        lost=sum(len(verdict.lost) for mode, verdict in verdicts.items() if mode not in PATIENT),
        duplicated=sum(len(verdict.duplicated) for verdict in verdicts.values()),
        control=f"every answer is believed: {lost_by_a_believer(tmp_path / 'control')} lost",
    )


def lost_by_a_believer(path: Path) -> int:
    """Return how many records are lost by a server that takes every end of a request for a success."""
    path.mkdir()
    with site(path, **SETTINGS) as here, destinations() as there:
        made = open_all(there, path, ["200 with a page", "a reset", "302"])
        serve(here, made, (*BROKEN, "believe_any_answer"))
        with steady(f"127.0.0.1:{here.grpc_port}", path / "client.log") as client:
            eventually(lambda: all(one.arrivals for one in made.values()), "each had a request")
        for one in made.values():
            there.switch(one, "good")
        drained(here)
        lost = [len(judged(one, client).lost) for one in made.values()]
    assert all(lost)
    return sum(lost)


def test_a_refusal_before_the_request_was_read(tmp_path: Path) -> None:
    """A server that says 413 to the head of a large request and hangs up gets smaller ones, until it takes them."""
    with site(tmp_path, **SETTINGS | {"retry_attempts": 60}) as here, destinations() as there:
        made = open_all(there, tmp_path, ["413 early"])
        serve(here, made)
        with steady(f"127.0.0.1:{here.grpc_port}", tmp_path / "client.log", batch=50, text_bytes=6_000) as client:
            eventually(lambda: client.acked > 300, "there is a load")
        numbers_at_last = drained(here, timeout_s=20)
        assert numbers_at_last["dead"] == 0
        assert made["413 early"].largest > 2 * SMALL_BODY
        verdict = judged(made["413 early"], client)
        assert verdict.acked
        assert not verdict.lost
        assert not verdict.altered
