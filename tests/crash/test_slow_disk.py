"""The disk is slow, or does not answer at all: the event loop goes on, the end comes in time, and nothing is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import grpc
import pytest
from faultshim import SYNC
from programs import eventually
from shimmed import Shimmed, shimmed

from walbatch.pb.analytics.v1 import service_pb2 as pb

pytestmark = pytest.mark.crash

SLOW_S = 0.2
GRACE_S = 2.0
AT_ONCE_S = 1.0
BATCH = 20


def seconds(call: Callable[[], object]) -> float:
    """How long a call took, in seconds."""
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_a_slow_fsync_makes_answers_slow_and_nothing_else(tmp_path: Path, matrix: Callable[..., None]) -> None:
    """Each answer waits for its fsync, the admin port answers meanwhile, and many callers share one."""
    with shimmed(tmp_path) as loaded:
        loaded.load()
        loaded.goes_on()
        loaded.shim.delay(SLOW_S, SYNC)
        assert seconds(lambda: loaded.track("slow")) >= SLOW_S
        answers = []
        for _ in range(15):
            eventually(lambda: loaded.shim.waiting, "an fsync is under way")
            answers.append(seconds(lambda: loaded.get("/livez")))
        assert sorted(answers)[len(answers) // 2] < SLOW_S / 4
        assert loaded.get("/readyz") == HTTPStatus.OK
        verdict = loaded.verdict()
    assert verdict.complaints() == []
    matrix(
        fault=f"each fsync takes {SLOW_S * 1000:.0f} ms",
        rounds=1,
        **verdict.counts(),
    )


def hung(loaded: Shimmed) -> None:
    """Let an fsync hang under load, and ask the server to stop."""
    loaded.load()
    loaded.goes_on()
    loaded.shim.hang(SYNC)
    eventually(lambda: loaded.shim.waiting, "an fsync hangs")
    assert loaded.get("/livez") == HTTPStatus.OK
    loaded.server.signal(signal.SIGTERM)
    eventually(lambda: "service.stopping" in loaded.server.output(), "it is stopping")


def test_a_stop_while_an_fsync_hangs(tmp_path: Path, matrix: Callable[..., None]) -> None:
    """The watchdog ends it with 70 at the end of the grace, and nothing acknowledged is lost."""
    with shimmed(tmp_path, shutdown_grace=f"{GRACE_S}s") as loaded:
        hung(loaded)
        assert seconds(loaded.server.wait) < GRACE_S + AT_ONCE_S
        assert loaded.server.wait() == 70
        verdict = loaded.verdict()
    assert verdict.complaints() == []
    matrix(fault="SIGTERM while an fsync hangs", rounds=1, **verdict.counts())


def test_a_second_stop_while_an_fsync_hangs(tmp_path: Path, matrix: Callable[..., None]) -> None:
    """It ends at once with 143, and nothing acknowledged is lost."""
    with shimmed(tmp_path, shutdown_grace="60s") as loaded:
        hung(loaded)
        loaded.server.signal(signal.SIGTERM)
        assert seconds(loaded.server.wait) < AT_ONCE_S
        assert loaded.server.wait() == 128 + signal.SIGTERM
        verdict = loaded.verdict()
    assert verdict.complaints() == []
    matrix(fault="SIGTERM twice while an fsync hangs", rounds=1, **verdict.counts())


def test_callers_that_leave_during_a_commit(
    tmp_path: Path, rounds: Callable[[int, int], int], matrix: Callable[..., None]
) -> None:
    """What is in a commit is stored whole, what waits for the next one is or is not, and that one is fine."""
    cancelled_ids: list[list[str]] = []
    late_ids: list[list[str]] = []
    times = rounds(2, 30)
    with shimmed(tmp_path) as own:
        for number in range(times):
            ids = [[f"{word}-{number}-{index}" for index in range(BATCH)] for word in ("cancelled", "late")]
            own.shim.hang(SYNC)
            cancelled = own.stub.Ingest.future(pb.IngestRequest(records=own.attempted(*ids[0])), timeout=10)
            eventually(lambda: own.shim.waiting, "its commit is under way")
            late = own.stub.Ingest.future(pb.IngestRequest(records=own.attempted(*ids[1])), timeout=0.1)
            with pytest.raises(grpc.RpcError) as refused:
                late.result()
            assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert cancelled.cancel()
            own.shim.disarm()
            own.track(f"next-{number}")
            cancelled_ids.append(ids[0])
            late_ids.append(ids[1])
        verdict = own.verdict()
    assert verdict.complaints() == []
    assert len(verdict.acked) == times + 1
    assert all(set(ids) <= verdict.recovered for ids in cancelled_ids)
    assert all(set(ids) <= verdict.recovered or verdict.recovered.isdisjoint(ids) for ids in late_ids)
    matrix(
        fault="callers cancel, or run into their deadline, during a commit",
        rounds=2 * times,
        **verdict.counts(),
    )
