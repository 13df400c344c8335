"""A client that cancels most of its calls and streams, before, during and after their commit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from bad_destination import destinations
from programs import WALBATCH, Program, Site, site
from settled import settled_account
from steady_client import steady
from watching import MIB, memory

pytestmark = pytest.mark.crash

SUPPORT = Path(__file__).parent.parent / "support"
BROKEN = (sys.executable, str(SUPPORT / "broken_server.py"))
MOST_MEMORY = 32 * MIB
SETTINGS = {"flush_interval": "100ms"}


def be_fickle(here: Site, log: Path, seconds: float) -> None:
    """Run the client to its end."""
    address = f"127.0.0.1:{here.grpc_port}"
    client = here.start(sys.executable, str(SUPPORT / "fickle_client.py"), address, str(log), str(seconds))
    assert client.wait(seconds + 30) == 0, client.output()


def start(here: Site, port: int, entry: Sequence[str] = (WALBATCH, "serve")) -> Program:
    """Start a server that delivers to this port."""
    here.delivers_to(port)
    return here.serve(entry=entry)


@pytest.mark.timeout(120)
def test_cancelled_calls(tmp_path: Path, matrix: Callable[..., None], rounds: Callable[[int, int], int]) -> None:
    """What was acknowledged is there, nobody else notices, the memory stays flat, and the stop is an orderly one."""
    seconds = rounds(2, 10)
    with site(tmp_path, **SETTINGS) as here, destinations() as there:
        server = start(here, there.add(here.out).port)
        fickle = tmp_path / "fickle.log"
        with steady(f"127.0.0.1:{here.grpc_port}", tmp_path / "client.log") as client:
            be_fickle(here, fickle, 1)  # whatever is made once is made by now
            before = memory(server)
            be_fickle(here, fickle, seconds)
            assert memory(server) - before < MOST_MEMORY
        assert not client.failures
        assert here.is_ready(server)
        verdict = settled_account(here, [client.log, fickle])
        assert not verdict.dead
        assert not verdict.complaints(most_repeats=0)
        assert verdict.acked
        given_up = len(verdict.attempted) - len(verdict.acked)
        assert 4 * given_up > len(verdict.attempted), "a quarter or more of the calls had no answer any more"
        assert "Traceback" not in server.output()
        assert server.stop() == 0
    broken = broken_by_cancelling(tmp_path / "control")
    assert broken == 1
    matrix(
        fault="calls and streams cancelled at random moments",
        rounds=fickle.read_text().count("attempt") // 10,
        **verdict.counts(),
        control=f"a commit that asks who waits: exit {broken}",
    )


def broken_by_cancelling(path: Path) -> int:
    """Return the exit code of a server whose commits cannot bear that a caller has gone, and that ends by itself."""
    path.mkdir()
    with site(path, **SETTINGS) as here, destinations() as there:
        server = start(here, there.add(here.out).port, (*BROKEN, "let_a_cancelled_call_break_the_commit"))
        be_fickle(here, path / "fickle.log", 2)
        ended = server.wait()
        assert "InvalidStateError" in server.output()
        return ended
