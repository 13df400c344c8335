"""What several files of tests start from: `walbatch send` and a gRPC server that can be told to fail."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import canary
import pytest
from failing_server import LIMIT_S, Server
from programs import WALBATCH, environment
from sending import Send


@pytest.fixture
def server() -> Iterator[Server]:
    """Return a running server."""
    running = Server()
    running.start()
    yield running
    running.stop()


@pytest.fixture
def send(server: Server, tmp_path: Path) -> Send:
    """Return a function that runs the command to its end against that server."""

    def run(*arguments: object, text: str = "") -> subprocess.CompletedProcess[str]:
        to = () if "--to" in arguments else ("--to", server.address)
        command = [WALBATCH, "send", *map(str, (*arguments, *to))]
        done = subprocess.run(
            command,
            env=environment(),
            cwd=tmp_path,
            input=text,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        canary.check(done.stderr, "walbatch send", names=True)
        canary.check(done.stdout, "walbatch send")
        return done

    return run
