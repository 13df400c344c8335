"""The disk fails, once or for good: what is not stored is not acknowledged, and what was acknowledged is not lost."""

from __future__ import annotations

import errno
import random
import resource
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import grpc
import pytest
from faultshim import FOR_EVER, SYNC, WRITE
from programs import eventually
from shimmed import Shimmed, shimmed
from total_queue import Verdict

pytestmark = pytest.mark.crash

FALSE_ACK = (sys.executable, str(Path(__file__).parent.parent / "support" / "false_ack_server.py"))
LARGEST_FILE = 200_000
EXIT_WITHIN_S = 10.0
FOUND_WITHIN_S = 20.0


def fail_now_and_then(loaded: Shimmed, kind: str, error: int, times: int) -> None:
    """Under load, let one call of a kind fail, and see that the clients go on; again and again."""
    chance = random.Random(times)
    loaded.load()
    for _ in range(times):
        loaded.goes_on()
        loaded.shim.fail(error, kind, at=chance.randint(1, 30))
        eventually(lambda: loaded.shim.hit, "a call failed")
    loaded.goes_on()


def falsely_acked(path: Path, kind: str, error: int) -> Verdict:
    """What the same failures do to a server that says OK although the commit failed."""
    path.mkdir()
    with shimmed(path, entry=FALSE_ACK) as loaded:
        fail_now_and_then(loaded, kind, error, 6)
        return loaded.verdict()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "error"), [(SYNC, errno.EIO), (WRITE, errno.EIO)], ids=["EIO at fsync", "EIO at write"]
)
def test_a_call_that_fails_once(
    tmp_path: Path, kind: str, error: int, rounds: Callable[[int, int], int], matrix: Callable[..., None]
) -> None:
    """The commit is refused, the next one is fine, the server goes on, and nothing acknowledged is lost."""
    with shimmed(tmp_path) as loaded:
        loaded.shim.fail(error, kind)
        with pytest.raises(grpc.RpcError) as refused:
            loaded.track("first")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert loaded.shim.last == (kind, "events.db-wal")
        loaded.track("second")
        eventually(lambda: loaded.get("/readyz") == HTTPStatus.OK, "it is ready again")
        times = rounds(4, 40)
        fail_now_and_then(loaded, kind, error, times)
        assert loaded.server.process.poll() is None
        assert "Traceback" not in loaded.server.output()
        verdict = loaded.verdict()
    assert verdict.complaints() == []
    assert "second" in verdict.acked
    control = falsely_acked(tmp_path / "control", kind, error)
    assert control.lost
    matrix(
        fault=f"{errno.errorcode[error]} once at {kind}",
        rounds=times + 1,
        **verdict.counts(),
        control=f"OK in spite of it: {control.losses()}",
    )


@pytest.mark.parametrize("kind", [SYNC, WRITE])
def test_a_disk_that_fails_for_good(tmp_path: Path, kind: str, matrix: Callable[..., None]) -> None:
    """From the first failure on nothing is acknowledged and it is not ready, and then it ends with 74."""
    with shimmed(tmp_path) as loaded:
        loaded.load()
        loaded.goes_on()
        loaded.end_load()
        loaded.here.drained()
        began = time.monotonic()
        loaded.shim.fail(errno.EIO, kind, times=FOR_EVER)
        with pytest.raises(grpc.RpcError) as refused:
            loaded.track("refused")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert loaded.get("/readyz") == HTTPStatus.SERVICE_UNAVAILABLE
        assert loaded.get("/livez") == HTTPStatus.OK
        late = loaded.load()
        assert loaded.server.wait(EXIT_WITHIN_S) == 74
        assert time.monotonic() - began < EXIT_WITHIN_S
        assert "commits in a row failed" in loaded.server.output()
        assert "Traceback" not in loaded.server.output()
        assert "ack" not in late.read_text().split()
        verdict = loaded.verdict()
    assert verdict.complaints() == []
    matrix(fault=f"EIO for ever at {kind}", rounds=1, **verdict.counts())


def test_an_idle_server_finds_out_that_the_disk_failed(tmp_path: Path) -> None:
    """Nobody has to lose a call for that: it tries by itself, is not ready, and ready again when the disk is back."""
    with shimmed(tmp_path) as idle:
        idle.track("before")
        idle.here.drained()
        idle.shim.fail(errno.EIO, SYNC, times=2)  # one less than what ends it
        eventually(lambda: idle.get("/readyz") == HTTPStatus.SERVICE_UNAVAILABLE, "it is not ready", FOUND_WITHIN_S)
        eventually(lambda: idle.get("/readyz") == HTTPStatus.OK, "it is ready again", EXIT_WITHIN_S)
        assert idle.shim.hit == 2
        assert idle.verdict().complaints() == []


def test_a_disk_that_refuses_to_write_ends_the_server_and_loses_nothing(tmp_path: Path) -> None:
    """With a real limit of the kernel: after three failed commits the exit is 74; the rest as with any other fault."""
    with shimmed(tmp_path) as loaded:
        # The limit makes every write beyond it fail, which SQLite reports as an I/O error.
        resource.prlimit(loaded.server.process.pid, resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
        loaded.load()
        assert loaded.server.wait(60) == 74, loaded.server.output()
        assert "3 commits in a row failed" in loaded.server.output()
        assert "Traceback" not in loaded.server.output()
        verdict = loaded.verdict()
    assert verdict.acked
    assert verdict.complaints() == []
