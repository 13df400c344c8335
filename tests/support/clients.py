"""What each of the clients in examples/ has to do, whatever its language."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from failing_server import Request, Server
from programs import DEADLINE_S, environment, site

from walbatch.errors import BacklogFull, LogClosed
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.rich_errors import Refusal

EXAMPLES = Path(__file__).parents[2] / "examples"

ENVIRONMENT = environment() | {"GRPC_GO_RETRY": "on"}
"""Without a setting of ours. Until 1.40 grpc-go had to be told that it may do as the service config says."""

SAYS = [
    "order completed: durability_fsynced, duplicate: false",
    "order completed: durability_fsynced, duplicate: true",
    "record 1 is refused: event.name must not be empty or blank (required)",
    "2 accepted",
]
"""In lower case, since languages spell a truth differently."""


def run(command: Sequence[str], address: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a client to its end."""
    return subprocess.run(
        [*command, address], env=ENVIRONMENT, cwd=cwd, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def check_delivers(command: Sequence[str], cwd: Path, tmp_path: Path) -> None:
    """It says what it should, and all that was accepted arrives."""
    with site(tmp_path) as here:
        here.sink()
        here.serve()
        done = run(command, f"127.0.0.1:{here.grpc_port}", cwd)
        assert done.returncode == 0, done.stderr
        assert done.stdout.lower().splitlines() == SAYS
        here.drained()
        names = Counter(record.get("event", "an update") for record in here.delivered())
    assert names == {"Order Completed": 1, "an update": 1, "Page Viewed": 1, "Signed Out": 1}


def check_waits(command: Sequence[str], tmp_path: Path) -> None:
    """It is started first, and waits for the server."""
    (tmp_path / "go").mkdir()  # where the one in Go looks for it from
    (tmp_path / "service-config.json").symlink_to(EXAMPLES / "service-config.json")
    with site(tmp_path / "go", destination="stdout", mixpanel_token="", mixpanel_url="") as here:
        client = here.start(*command, f"127.0.0.1:{here.grpc_port}")
        here.serve()
        assert client.wait() == 0, client.output()


def check_repeats(command: Sequence[str], cwd: Path, server: Server) -> None:
    """A call that ends with UNAVAILABLE is sent again, and is the same event."""
    failures = iter([LogClosed("a moment"), LogClosed("a moment")])
    server.fault = lambda _: next(failures, None)
    done = run(command, server.address, cwd)
    assert done.returncode == 0, done.stderr
    tried = [request for request in server.requests if isinstance(request, pb.TrackEventRequest)]
    assert len(tried) == 4
    assert all(request == tried[0] for request in tried)


def check_gives_back(command: Sequence[str], cwd: Path, server: Server) -> None:
    """What is refused for lack of room is not repeated at once: the program says what to do with it."""

    def full(request: Request) -> Refusal:
        del request
        return BacklogFull("20GiB wait")

    server.fault = full
    done = run(command, server.address, cwd)
    assert (done.returncode, len(server.requests)) == (1, 1)
    assert "send it again in half a minute" in done.stderr
