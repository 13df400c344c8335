"""The disk refuses every further write, and the server says so by its exit code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from programs import WALBATCH, site
from total_queue import judge

LOAD_CLIENT = str(Path(__file__).parent.parent / "support" / "load_client.py")
LARGEST_FILE = 200_000

pytestmark = pytest.mark.crash


def test_a_disk_that_refuses_to_write_ends_the_server_and_loses_nothing(tmp_path: Path) -> None:
    """After three failed commits the exit is 74; what was acknowledged before is delivered after the next start."""
    with site(tmp_path) as here:
        here.sink()
        # The limit makes every write beyond it fail, which SQLite reports as an I/O error.
        server = here.serve(entry=("prlimit", f"--fsize={LARGEST_FILE}", WALBATCH, "serve"))
        log = tmp_path / "client.log"
        client = here.start(sys.executable, LOAD_CLIENT, f"127.0.0.1:{here.grpc_port}", str(log), "c")
        assert server.wait(60) == 74, server.output()
        assert "3 commits in a row failed" in server.output()
        assert "Traceback" not in server.output()
        client.kill()
        here.serve()
        here.drained()
        verdict = judge([log.read_text()], here.delivered_lines())
        assert verdict.acked
        assert not verdict.lost
        assert not verdict.unexpected
