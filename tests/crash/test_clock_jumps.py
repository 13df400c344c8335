"""The wall clock jumps both ways, by an hour and by a day, while the monotonic clock goes on."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import grpc
import pytest
from bad_destination import BadDestination, Destinations, destinations
from faultshim import Shim
from programs import WALBATCH, Site, eventually, site
from settled import settled_account
from steady_client import TIME_MS, steady
from watching import drained, numbers

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

pytestmark = pytest.mark.crash

BROKEN = (sys.executable, str(Path(__file__).parent.parent / "support" / "broken_server.py"))
HOUR, DAY = 3600.0, 86_400.0
JUMPS = (HOUR, -HOUR, DAY, -DAY)
INTERVAL_S = 0.2
LONGEST_WAIT_S = 0.4
BATCH = 10
SETTINGS = {
    "flush_interval": f"{INTERVAL_S}s",
    "batch_size": 2000,  # so that a batch is due by its age alone
    "retry_base": "100ms",
    "retry_max": f"{LONGEST_WAIT_S}s",
    "retry_attempts": 2,
}


def deliveries(one: BadDestination, count: int, timeout_s: float = 10) -> list[float]:
    """Wait for so many more requests, and return the times between them."""
    start = len(one.arrivals)
    eventually(lambda: len(one.arrivals) >= start + count + 1, "it goes on delivering", timeout_s)
    return [after - before for before, after in pairwise(one.arrivals[start : start + count + 1])]


def at_its_pace(one: BadDestination) -> bool:
    """Say whether the newest deliveries came at the interval that is set. The first ones after an outage do not."""
    gaps = [after - before for before, after in pairwise(one.arrivals[-5:])]
    return len(gaps) == 4 and 0.5 * INTERVAL_S < statistics.median(gaps) < 1.5 * INTERVAL_S


def nameless(here: Site, count: int) -> list[str]:
    """Send events without an id, and return the ids that they were given."""
    with grpc.insecure_channel(f"127.0.0.1:{here.grpc_port}") as channel:
        stub = AnalyticsServiceStub(channel)
        request = pb.TrackEventRequest(event=pb.Event(name="Nameless", distinct_id="u"))
        return [stub.TrackEvent(request, timeout=5).event_id for _ in range(count)]


def pace_in_an_outage(there: Destinations, one: BadDestination) -> float:
    """Return the time between two probes, once the ramp has ended, and end the outage."""
    there.switch(one, "500")
    pace_s = statistics.median(deliveries(one, 5)[2:])
    there.switch(one, "good")
    return pace_s


def times_are_untouched(lines: Sequence[str]) -> bool:
    """Say whether every event of the steady client has the time that it was sent with."""
    found = [json.loads(line)["record"]["properties"] for line in lines]
    numbered = [(p["$insert_id"].split("-"), p["time"]) for p in found if p["$insert_id"].startswith("client-")]
    return all(at == TIME_MS + int(call) * BATCH + int(index) for (_, call, index), at in numbered)


@pytest.mark.timeout(120)
def test_clock_jumps(tmp_path: Path, matrix: Callable[..., None], rounds: Callable[[int, int], int]) -> None:
    """Delivery and probes keep their pace, ids stay unique, times of events are as they were sent, nothing is lost."""
    times = rounds(1, 4)
    shim = Shim(tmp_path)
    ids: list[str] = []
    with site(tmp_path, **SETTINGS) as here, destinations() as there:
        one = there.add(here.out)
        here.delivers_to(one.port)
        server = here.serve(entry=shim.entry(WALBATCH, "serve"))
        with steady(f"127.0.0.1:{here.grpc_port}", tmp_path / "client.log", batch=BATCH) as client:
            for number, offset_s in enumerate(JUMPS * times):
                shim.set_clock(offset_s)
                deliveries(one, 5)
                ids += nameless(here, 5)
                eventually(lambda: at_its_pace(one), "it delivers at its pace", 10)
                if number % len(JUMPS) == 1:
                    assert 0.9 * LONGEST_WAIT_S * 0.8 < pace_in_an_outage(there, one) < 2 * LONGEST_WAIT_S
                assert here.is_ready(server)
        assert not client.failures
        log = tmp_path / "nameless.log"
        log.write_text("".join(f"attempt {event_id}\nack {event_id}\n" for event_id in ids))
        verdict = settled_account(here, [client.log, log])
        assert not verdict.dead
        assert not verdict.complaints(most_repeats=0)
        assert len(set(ids)) == len(ids)
        assert times_are_untouched(one.lines())
    matrix(
        fault="the wall clock jumps by an hour and a day, both ways",
        rounds=len(JUMPS) * times,
        **verdict.counts(),
        control=f"waits by the wall clock: nothing for {stalled_s(tmp_path / 'control'):.0f} s",
    )


def stalled_s(path: Path) -> float:
    """Return for how long a server that measures waits by the wall clock delivers nothing after a jump, at least."""
    path.mkdir()
    shim = Shim(path)
    limit_s = 10 * INTERVAL_S
    with site(path, **SETTINGS) as here, destinations() as there:
        one = there.add(here.out)
        here.delivers_to(one.port)
        here.serve(entry=shim.entry(*BROKEN, "wait_by_the_wall_clock"))
        with steady(f"127.0.0.1:{here.grpc_port}", path / "client.log", batch=1) as client:
            deliveries(one, 2)
            acked = client.acked
            for hours in range(1, 8):  # one of these is between an arrival and the delivery for which it waits
                shim.set_clock(-hours * HOUR)
                eventually(lambda: client.acked > acked + 2 * hours, "the client goes on")  # noqa: B023
            with pytest.raises(AssertionError, match="it goes on delivering"):
                deliveries(one, 2, limit_s)
    return limit_s


def test_a_clock_that_jumps_and_the_retention(tmp_path: Path) -> None:
    """What is pending stays under any clock; what was sent is purged as early as the clock says, and not before."""
    shim = Shim(tmp_path)
    with site(tmp_path, **SETTINGS, retention="12h") as here, destinations() as there:
        one = there.add(here.out)
        here.delivers_to(one.port)
        entry = shim.entry(WALBATCH, "serve")
        server = here.serve(entry=entry)
        log = tmp_path / "nameless.log"
        log.write_text("".join(f"attempt {event_id}\nack {event_id}\n" for event_id in nameless(here, 20)))
        assert drained(here)["sent"] == 20
        there.switch(one, "500")
        with log.open("a") as more:
            more.writelines(f"attempt {event_id}\nack {event_id}\n" for event_id in nameless(here, 7))
        for offset_s, purged in ((-DAY, 0), (HOUR, 0), (DAY, 20)):
            server.stop()
            shim.set_clock(offset_s)
            server = here.serve(entry=entry)  # it purges when it starts, and then every minute
            told = eventually(lambda: (n := numbers(here))["purged"] == purged and n, f"{purged} are purged")  # noqa: B023
            assert told["pending"] == 7
        there.switch(one, "good")
        verdict = settled_account(here, [log])
        assert not verdict.complaints(most_repeats=0)
