"""The installed program, run as its own process on real ports and files, the way a user runs it."""

from __future__ import annotations

import json
import os
import pty
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from types import MappingProxyType
from typing import Any

import canary
import outputs

WALBATCH = str(Path(sys.executable).with_name("walbatch"))
DEADLINE_S = 30.0
POLL_S = 0.02

TELLS_NAMES = {"send", "dead", "tap", "inspect"}
"""Commands that tell whoever gave them a record, or asks for it, which properties it has."""
SHOWS_RECORDS = {"dead", "export", "--reveal"}
"""Commands whose standard output is the records themselves, and the option that makes it so."""


def eventually(condition: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
    """Return the first true value of a condition, or fail. The only place where tests wait for something to happen.

    Elsewhere they let time pass only where the moment, or how long something takes, is the experiment.
    """
    rounds = round(timeout_s / POLL_S)
    for _ in range(rounds):
        if value := condition():
            return value
        threading.Event().wait(POLL_S)
    raise AssertionError(f"not within {timeout_s} s: {what}")


def grown(logs: Sequence[Path], size: int) -> bool:
    """Say whether these files have more than so many bytes by now."""
    return sum(log.stat().st_size for log in logs if log.exists()) > size


def accounted(document: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of a log, and check on the way that nothing is unaccounted for."""
    for destination in document["destinations"]:
        for lane in destination["lanes"]:
            found = sum(lane[name] for name in ("pending", "sent", "purged", "dead", "resolved", "erased"))
            assert lane["accepted"] == found, lane
    return document


def free_port() -> int:
    """Return a port that was free a moment ago, for servers that come back at the same address.

    Not one that the system would choose: it gives those to outgoing connections as well, also a moment later.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def environment(**settings: object) -> dict[str, str]:
    """Return this process's environment with exactly these WALBATCH_ settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WALBATCH_")}
    return clean | {f"WALBATCH_{name.upper()}": str(value) for name, value in settings.items()}


def _check(arguments: Sequence[str], told: str) -> None:
    """Fail if a command has told what it may not."""
    canary.check(told, f"walbatch {arguments[0]}", names=arguments[0] in TELLS_NAMES)


class Program:
    """A process that the test started, and stops. What it writes is searched for canaries at the end of the test."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path) -> None:
        self.log = log
        outputs.watch(log)
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                command, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """Return the exit code."""
        return self.process.wait(timeout_s)

    def stop(self) -> int:
        """Ask it to stop, and return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it without a chance to do anything."""
        self.process.kill()
        self.process.wait()

    def output(self) -> str:
        """Return what it has written so far."""
        return self.log.read_text()


class Site:
    """A directory with a server, a fake Mixpanel, and what both leave behind."""

    def __init__(self, path: Path, **settings: object) -> None:
        self.path = path
        self.data = Path(str(settings.get("data_dir", path / "data")))
        self.out = path / "out.ndjson"
        self.grpc_port = free_port()
        self.sink_port = free_port()
        self.settings: dict[str, object] = {
            "data_dir": self.data,
            "grpc_listen": f"127.0.0.1:{self.grpc_port}",
            "admin_listen": "127.0.0.1:0",
            "mixpanel_token": canary.SECRET,
            "mixpanel_url": f"http://127.0.0.1:{self.sink_port}",
            "flush_interval": "200ms",
            **settings,
        }
        self._running: list[Program] = []

    def delivers_to(self, port: int, scheme: str = "http") -> None:
        """Let the servers that are started from now on deliver to this port."""
        self.settings["mixpanel_url"] = f"{scheme}://127.0.0.1:{port}"

    def start(self, *command: str) -> Program:
        """Start any command with this site's settings."""
        program = Program(command, self.path / f"{len(self._running)}.log", environment(**self.settings), self.path)
        self._running.append(program)
        return program

    def serve(self, *options: str, entry: Sequence[str] = (WALBATCH, "serve")) -> Program:
        """Start a server and return once it accepts records."""
        program = self.start(*entry, *options)
        eventually(lambda: self.is_ready(program), f"the server is ready\n{program.output()}")
        return program

    def is_ready(self, program: Program) -> bool:
        """Say whether this very process accepts records; fail if it ended instead."""
        if program.process.poll() is not None:
            raise AssertionError(f"exit {program.process.returncode}: {program.output()}")
        with suppress(OSError, KeyError):
            return self.lock().get("pid") == program.process.pid and self.admin_get("/readyz")[0] == HTTPStatus.OK
        return False

    def admin_get(self, path: str, timeout_s: float = 5) -> tuple[int, str]:
        """Ask the admin port, and return the status and the text.

        Raises:
            KeyError: no server has told where its admin port is.
            OSError: nobody answers there in time.
        """
        with closing(HTTPConnection(self.lock()["admin"], timeout=timeout_s)) as connection:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()

    def lock(self) -> dict[str, Any]:
        """Return what the lock file says; nothing while it is being written."""
        with suppress(OSError, ValueError):
            facts: dict[str, Any] = json.loads((self.data / "walbatch.lock").read_text())
            return facts
        return {}

    def sink(self, *options: str) -> Program:
        """Start the fake Mixpanel and return once it listens."""
        listen = f"127.0.0.1:{self.sink_port}"
        program = self.start(WALBATCH, "sink", "--listen", listen, "--out", str(self.out), *options)
        eventually(lambda: "fake Mixpanel at" in program.output(), "the fake Mixpanel listens")
        return program

    def run(self, *arguments: str, check: bool = True, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end. It may not tell a canary, unless it is there to show records."""
        done = subprocess.run(
            [WALBATCH, *arguments],
            env=environment(**self.settings),
            cwd=self.path,
            input=text,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=check,
        )
        _check(arguments, done.stderr)
        if not SHOWS_RECORDS.intersection(arguments):
            _check(arguments, done.stdout)
        return done

    def on_terminal(
        self, *arguments: str, answers: str = "", variables: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[int, str]:
        """Run a command on a terminal of its own, type the answers, and return its exit code and what was shown.

        `variables` come into its environment beside the settings.
        """
        controller, terminal = pty.openpty()
        process = subprocess.Popen(
            [WALBATCH, *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=environment(**self.settings) | dict(variables),
            cwd=self.path,
        )
        os.close(terminal)
        os.write(controller, answers.encode())
        shown = b""
        try:
            while chunk := os.read(controller, 4096):
                shown += chunk
        except OSError:
            pass  # how the end of a terminal looks
        finally:
            os.close(controller)
        if not SHOWS_RECORDS.intersection(arguments):
            _check(arguments, shown.decode())
        return process.wait(DEADLINE_S), " ".join(shown.decode().split())

    def stats(self) -> dict[str, Any]:
        """Return the numbers, and check on the way that nothing is unaccounted for.

        Of a server of this site they are asked for where `walbatch stats` would: to start it costs half a second of a
        core, each time that somebody waits for something.
        """
        serving = {program.process.pid for program in self._running if program.process.poll() is None}
        with suppress(OSError, KeyError):
            if self.lock().get("pid") in serving:
                return accounted(json.loads(self.admin_get("/stats")[1]))
        return accounted(json.loads(self.run("stats", "--json").stdout))

    def drained(self) -> dict[str, Any]:
        """Wait until nothing is pending, and return the numbers."""
        numbers = eventually(lambda: (s := self.stats())["pending"] == 0 and s, "nothing is pending", 60)
        assert isinstance(numbers, dict)
        return numbers

    def delivered(self) -> list[dict[str, Any]]:
        """Return every record that the fake Mixpanel accepted, copies included."""
        return [json.loads(line)["record"] for line in self.delivered_lines()]

    def delivered_lines(self) -> list[str]:
        """Return the lines that the fake Mixpanel wrote."""
        return self.out.read_text().splitlines() if self.out.exists() else []

    def close(self) -> None:
        """End whatever still runs."""
        for program in self._running:
            if program.process.poll() is None:
                program.kill()


@contextmanager
def site(path: Path, **settings: object) -> Iterator[Site]:
    """A site whose processes end with the block."""
    made = Site(path, **settings)
    try:
        yield made
    finally:
        made.close()
