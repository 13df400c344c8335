"""The processes of a measurement: each runs for as long as a block takes, and tells what it wrote if it fails."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
PYTHON = sys.executable
WALBATCH = str(Path(PYTHON).with_name("walbatch"))
DEADLINE_S = 600.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Child:
    """A process; its `line` is the first one that it prints."""

    def __init__(self, command: Sequence[str], env: dict[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        self.started_s = time.perf_counter()
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=self._errors, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it if it still runs, and print what it wrote to stderr if it failed."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.returncode not in {0, -signal.SIGTERM}:
            sys.stderr.write(f"{self.process.args!r} ended with {self.process.returncode}\n{self.errors()}")
        self._errors.close()
        if self.process.stdout:
            self.process.stdout.close()

    def errors(self) -> str:
        """Return what it wrote to stderr so far."""
        if self._errors.closed:
            return ""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def cpu_of_threads(self) -> dict[str, float]:
        """Return the CPU time of each thread so far, by name and number; the first one runs the event loop."""
        found = {}
        for task in sorted(Path(f"/proc/{self.process.pid}/task").iterdir(), key=lambda path: int(path.name)):
            head, _, rest = (task / "stat").read_text().rpartition(")")
            fields = rest.split()
            found[f"{head.partition('(')[2]} {task.name}"] = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
        return found

    @property
    def line(self) -> str:
        """Return the next line of its output."""
        text = self.process.stdout.readline().strip() if self.process.stdout else ""
        if not text:
            raise RuntimeError(f"{self.process.args!r} printed nothing\n{self.errors()}")
        return text


class Walbatch(Child):
    """A server on a data directory, delivering to a port of this machine. It is ready when the block begins."""

    def __init__(self, directory: Path, sink_port: int, *, command: Sequence[str] = (WALBATCH,), **more: str) -> None:
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
        super().__init__([*command, "serve"], self.env)
        self.startup_s = 0.0

    def __enter__(self) -> Self:
        try:
            until(self._ready, self)
        except BaseException:
            self.stop()
            raise
        self.startup_s = time.perf_counter() - self.started_s
        return self

    def _ready(self) -> bool:
        with suppress(OSError, ValueError, KeyError):
            facts = json.loads((self.directory / "walbatch.lock").read_text())
            self.address, self._admin = facts["grpc"], facts["admin"]
            return bool(facts["pid"] == self.process.pid and get(self._admin, "/readyz")[0] == 200)
        return False

    def stats(self) -> dict[str, Any]:
        """Return its own numbers."""
        document: dict[str, Any] = json.loads(get(self._admin, "/stats")[1])
        return document

    def settle(self) -> None:
        """Wait until nothing is pending."""
        until(lambda: self.stats()["pending"] == 0, self)

    def cpu_s(self) -> float:
        """Return the CPU time that it has used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def rss_mib(self) -> float:
        """Return how much memory it has at this moment."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def finish(self) -> int:
        """End it, and return the bytes that it made the disk write in its life, those of its end included."""
        self.process.terminate()
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        rows = dict(row.split(": ") for row in Path(f"/proc/{self.process.pid}/io").read_text().splitlines())
        return int(rows["write_bytes"])


class Sink(Child):
    """The destination that answers at once."""

    def __init__(self) -> None:
        super().__init__([PYTHON, str(HERE / "null_sink.py")])
        self.port = int(self.line)

    def received(self) -> dict[str, float]:
        """Return how many `records` came, and how many came each second after the first request: `per_s`."""
        numbers: dict[str, float] = json.loads(get(f"127.0.0.1:{self.port}", "/count")[1])
        return numbers

    def wait_for(self, records: int, sender: Child) -> float:
        """Wait until so many records came, and return the rate."""
        until(lambda: self.received()["records"] >= records, sender)
        return self.received()["per_s"]


def empty_server() -> Child:
    """Return the ceiling; its `line` is its port."""
    return Child([PYTHON, str(HERE / "empty_server.py")])


@contextmanager
def refused_port() -> Iterator[int]:
    """Yield a port at which nobody listens, and nobody can until the block ends."""
    with closing(socket.socket()) as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


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
        if process.process.poll() not in {None, 0}:
            raise RuntimeError(f"{process.process.args!r} ended with {process.process.returncode}\n{process.errors()}")
        threading.Event().wait(0.01)
    raise TimeoutError(f"not within {DEADLINE_S} s\n{process.errors()}")


def output(command: Sequence[str], env: dict[str, str] | None = None) -> str:
    """Run a process to its end and return what it printed; what it wrote to stderr is in the error if it fails."""
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{command!r} ended with {done.returncode}\n{done.stderr}")
    return done.stdout
