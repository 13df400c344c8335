"""The clients in Node and Go do what the one in Python does. `make examples` installs what they need, and runs this."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import clients
import pytest
from clients import EXAMPLES
from failing_server import Server

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]  # Go compiles its libraries as well

OLDER = {
    "grpc.NewClient(": "grpc.Dial(",
    "grpc.WithTransportCredentials(insecure.NewCredentials())": "grpc.WithInsecure()",
    '\t"google.golang.org/grpc/credentials/insecure"\n': "",
}
"""What Debian's grpc-go of 2020 calls otherwise."""


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    """Compile the client in Go, with the package that protoc makes of the proto."""
    path = tmp_path_factory.mktemp("go")
    source = path / "src" / "example.com" / "track"
    (source / "analyticsv1").mkdir(parents=True)
    text = (EXAMPLES / "go" / "track.go").read_text()
    for new, old in OLDER.items():
        assert new in text
        text = text.replace(new, old)
    (source / "track.go").write_text(text)
    package = "Manalytics/v1/service.proto=example.com/track/analyticsv1"
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{EXAMPLES.parent / 'proto'}"]
    for plugin in ("go", "go-grpc"):
        protoc += [f"--{plugin}_out={source}", f"--{plugin}_opt=module=example.com/track", f"--{plugin}_opt={package}"]
    subprocess.run([*protoc, "analytics/v1/service.proto"], check=True)
    env = os.environ | {"GO111MODULE": "off", "GOPATH": f"{path}:/usr/share/gocode", "GOCACHE": str(path / "cache")}
    subprocess.run(["go", "vet", "example.com/track"], check=True, env=env)
    subprocess.run(["go", "build", "-o", str(path / "track"), "example.com/track"], check=True, env=env)
    return [str(path / "track")]


@pytest.fixture(params=["node", "go"])
def command(request: pytest.FixtureRequest) -> Sequence[str]:
    """Return how a client is started."""
    if request.param == "go":
        compiled: Sequence[str] = request.getfixturevalue("go")
        return compiled
    return ["node", str(EXAMPLES / "node" / "track.js")]


@pytest.fixture
def server() -> Iterator[Server]:
    """Return a running server."""
    running = Server()
    running.start()
    yield running
    running.stop()


def test_it_delivers(command: Sequence[str], tmp_path: Path) -> None:
    """What it sends arrives; the same event is stored once; a bad one is named."""
    clients.check_delivers(command, EXAMPLES / "go", tmp_path)


def test_it_waits_for_the_server(command: Sequence[str], tmp_path: Path) -> None:
    """The service config says so."""
    clients.check_waits(command, tmp_path)


def test_it_repeats_the_same_event(command: Sequence[str], server: Server) -> None:
    """The service config says so."""
    clients.check_repeats(command, EXAMPLES / "go", server)


def test_it_says_what_to_do_with_what_was_refused(command: Sequence[str], server: Server) -> None:
    """A full server is not hammered."""
    clients.check_gives_back(command, EXAMPLES / "go", server)


def test_the_client_in_go_is_formatted() -> None:
    """As gofmt would write it."""
    done = subprocess.run(["gofmt", "-l", str(EXAMPLES / "go")], capture_output=True, text=True, check=True)
    assert done.stdout == ""
