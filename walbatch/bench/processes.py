"""The processes of a measurement: each runs for as long as a block takes, and tells what it wrote if it fails.

However the block is left, they are ended; one that is left by an exception, also Ctrl-C, kills them at once.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self

from walbatch.errors import MeasurementFailed
from walbatch.ownership import LOCK_FILE

PYTHON = (sys.executable, "-P", "-m")
"""Runs a module as it is installed: nothing of the directory where it is started gets in its way."""

WALBATCH = (*PYTHON, "walbatch.cli")
DEADLINE_S = 600.0
STOP_S = 60.0
_ENDS = {0, -signal.SIGTERM, -signal.SIGKILL, -signal.SIGINT}
"""Of a process that did what it was asked for, or was ended with the command."""


class Child:
    """A process; its `line` is the next one that it prints."""

    def __init__(self, command: Sequence[str], env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
        self.command = shlex.join(command)
        self._is_told = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        self.started_s = time.perf_counter()
        try:
            with _signals_wait():
                self.process = subprocess.Popen(  # noqa: S603  our own programs
                    command,
                    env=env,
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    text=True,
                )
        except BaseException:
            if hasattr(self, "process"):
                self.process.kill()
                self.process.wait()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is not None:
            self.process.kill()  # what it has is thrown away with the measurement
        self.stop()

    def stop(self) -> None:
        """End it if it still runs, and print what it wrote to stderr if it failed."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_S)
        finally:
            self.process.kill()
            self.process.wait()
            if not self._is_told and self.process.returncode not in _ENDS:
                sys.stderr.write(f"{self._ended()}\n")
            self._errors.close()
            if self.process.stdout:
                self.process.stdout.close()

    def check(self) -> None:
        """Raise if it ended by a failure."""
        if self.process.poll() not in {None, 0}:
            raise MeasurementFailed(self._ended())

    def output(self) -> str:
        """Wait for its end, and return what it printed.

        Raises:
            MeasurementFailed: it failed, or took too long; the text is what it wrote to stderr.
        """
        try:
            text: str = self.process.communicate(timeout=DEADLINE_S)[0]
        except subprocess.TimeoutExpired as error:
            raise MeasurementFailed(f"{self.command} did not end within {DEADLINE_S:g} s") from error
        self.check()
        return text

    @property
    def line(self) -> str:
        """Return the next line of its output."""
        text = self.process.stdout.readline().strip() if self.process.stdout else ""
        if not text:
            raise MeasurementFailed(f"{self.command} printed nothing\n{self._stderr()}")
        return text

    def _ended(self) -> str:
        self._is_told = True
        return f"{self.command} ended with {self.process.returncode}\n{self._stderr()}".rstrip()

    def _stderr(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Let what would end us wait until the process that is being started can be ended as well."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    former = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        for first in came[:1]:
            signal.raise_signal(first)


class Walbatch(Child):
    """A server on a data directory, delivering to a port of this machine. It is ready when the block begins.

    It has these settings and no other: neither those of the environment, nor those of a `.env`.
    """

    def __init__(self, directory: Path, sink_port: int, *, command: Sequence[str] = WALBATCH, **more: str) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        settings = {
            "DATA_DIR": str(directory),
            "GRPC_LISTEN": "127.0.0.1:0",
            "ADMIN_LISTEN": "127.0.0.1:0",
            "MIXPANEL_TOKEN": "bench",
            "MIXPANEL_URL": f"http://127.0.0.1:{sink_port}",
            "LOG_LEVEL": "error",
            "SHUTDOWN_GRACE": "10s",  # what is left of a backlog would go on for longer
            "FLUSH_INTERVAL": "200ms",  # what is left of a load goes out before the next one
            **more,
        }
        env = {name: value for name, value in os.environ.items() if not name.startswith("WALBATCH_")}
        self.env = env | {f"WALBATCH_{name}": value for name, value in settings.items()}
        super().__init__([*command, "serve"], self.env, directory)
        self.startup_s = 0.0

    def __enter__(self) -> Self:
        try:
            until(self._ready, self)
        except BaseException:
            self.process.kill()
            self.stop()
            raise
        self.startup_s = time.perf_counter() - self.started_s
        return self

    def _ready(self) -> bool:
        with suppress(OSError, HTTPException, ValueError, KeyError):
            facts = json.loads((self.directory / LOCK_FILE).read_text())
            self.address, self._admin = facts["grpc"], facts["admin"]
            return bool(facts["pid"] == self.process.pid and get(self._admin, "/readyz")[0] == HTTPStatus.OK)
        return False

    def stats(self) -> dict[str, Any]:
        """Return its own numbers."""
        return told(self._admin, "/stats", self)

    def settle(self) -> None:
        """Wait until nothing is pending."""
        until(lambda: self.stats()["pending"] == 0, self)


class Sink(Child):
    """The destination that answers at once."""

    def __init__(self) -> None:
        super().__init__([*PYTHON, "walbatch.bench.null_sink"])

    def __enter__(self) -> Self:
        try:
            self.port = int(self.line)
        except BaseException:
            self.process.kill()
            self.stop()
            raise
        return self

    def received(self) -> dict[str, float]:
        """Return how many `records` came, and how many came each second after the first request: `per_s`."""
        return told(f"127.0.0.1:{self.port}", "/count", self)

    def wait_for(self, records: int, sender: Child) -> float:
        """Wait until so many records came, and return the rate."""
        until(lambda: self.received()["records"] >= records, sender)
        return self.received()["per_s"]


def told(address: str, path: str, process: Child) -> dict[str, Any]:
    """Return the numbers that a process tells.

    Raises:
        MeasurementFailed: it does not.
    """
    try:
        document: dict[str, Any] = json.loads(get(address, path)[1])
    except (OSError, HTTPException, ValueError) as error:
        process.check()
        raise MeasurementFailed(f"{process.command} does not answer: {error}") from error
    return document


def get(address: str, path: str) -> tuple[int, bytes]:
    """Return the status and the body of an answer."""
    with closing(HTTPConnection(address, timeout=30)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def until(condition: Callable[[], bool], process: Child) -> None:
    """Wait until something holds, for as long as a process lives."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if condition():
            return
        process.check()
        threading.Event().wait(0.01)
    raise MeasurementFailed(f"{process.command} was waited for, {DEADLINE_S:g} s")


def output(command: Sequence[str], env: dict[str, str] | None = None) -> str:
    """Run a process to its end and return what it printed.

    Raises:
        MeasurementFailed: it failed, or took too long; the text is what it wrote to stderr.
    """
    with Child(command, env) as child:
        return child.output()
