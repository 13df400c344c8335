"""Somebody reads the database for a long time, so that SQLite's log cannot be trimmed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from bad_destination import destinations
from long_reader import reading
from programs import Site, eventually, site
from settled import settled_account
from watching import MIB, numbers

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

pytestmark = pytest.mark.crash

LIMIT_MIB = 32
SLACK = 64 * MIB
"""What may be written until the limit is noticed: a second of a load of 1 MB a call, and what waits in memory."""
SETTINGS = {"max_wal_bytes": f"{LIMIT_MIB}MiB", "flush_interval": "50ms", "max_backlog_bytes": "1GiB"}


def send_until_refused(here: Site, log: Path) -> str:
    """Send large events until one is refused, and return why; fail if none is after many times the limit."""
    text = '{"text":"' + "x" * 100_000 + '"}'
    with grpc.insecure_channel(f"127.0.0.1:{here.grpc_port}") as channel, log.open("a") as written:
        stub = AnalyticsServiceStub(channel)
        for number in range(6 * LIMIT_MIB):
            ids = [f"{log.stem}-{number}-{index}" for index in range(10)]
            records = [pb.Record(event=pb.Event(event_id=i, name="E", properties_json=text)) for i in ids]
            written.writelines(f"attempt {event_id}\n" for event_id in ids)
            try:
                stub.Ingest(pb.IngestRequest(records=records), timeout=10)
            except grpc.RpcError as error:
                return f"{error.code().name}: {error.details()}"
            written.writelines(f"ack {event_id}\n" for event_id in ids)
    raise AssertionError("nothing was refused")


@pytest.mark.timeout(120)
def test_a_reader_that_stays(tmp_path: Path, matrix: Callable[..., None], rounds: Callable[[int, int], int]) -> None:
    """Delivery goes on, the log grows to its limit and no further, and shrinks when the reader has gone."""
    times = rounds(1, 3)
    with site(tmp_path, **SETTINGS) as here, destinations() as there:
        one = there.add(here.out)
        here.delivers_to(one.port)
        server = here.serve()
        logs = [tmp_path / f"client-{number}.log" for number in range(times)]
        largest = 0
        for log in logs:
            with reading(here.data / "events.db"):
                assert send_until_refused(here, log).startswith("RESOURCE_EXHAUSTED: the write-ahead log has")
                eventually(lambda: numbers(here)["pending"] == 0, "what was accepted is delivered meanwhile")
                largest = max(largest, wal_bytes(here))
                assert largest < LIMIT_MIB * MIB + SLACK
                told = numbers(here)
                assert (told["storage"]["accepting"], told["storage"]["reason"]) == (False, "WAL_HELD")
                assert here.is_ready(server) is False
            eventually(lambda: wal_bytes(here) < 8 * MIB, "the log is trimmed", 10)
            eventually(lambda: numbers(here)["storage"]["accepting"], "records are accepted again", 10)
        assert '"log.refusing"' in server.output()
        verdict = settled_account(here, logs)
        assert not verdict.dead
        assert not verdict.complaints(most_repeats=0)
    matrix(
        fault="somebody reads the database for a long time",
        rounds=times,
        **verdict.counts(),
        control=f"limit of 1 GiB: {unlimited(tmp_path / 'control') // MIB} MiB of log",
    )


def wal_bytes(here: Site) -> int:
    """Return the size of the write-ahead log, without opening it."""
    return (here.data / "events.db-wal").stat().st_size


def unlimited(path: Path) -> int:
    """Return to what size the log grows where the limit is far off."""
    path.mkdir()
    with site(path, **SETTINGS | {"max_wal_bytes": "1GiB"}) as here, destinations() as there:
        here.delivers_to(there.add(here.out).port)
        here.serve()
        with reading(here.data / "events.db"), pytest.raises(AssertionError, match="nothing was refused"):
            send_until_refused(here, path / "client.log")
        size = wal_bytes(here)
    assert size > LIMIT_MIB * MIB + SLACK
    return size
