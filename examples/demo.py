"""Show walbatch at work, without an account and without leaving anything behind.

Starts the fake Mixpanel and a server, sends the earthquakes of `earthquakes.ndjson`, waits until they have arrived,
replays a selection, stops everything, and checks what the fake Mixpanel was sent. Needs nothing but an environment
with walbatch in it: `make demo`, or `python examples/demo.py` with that environment's Python.
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
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

WALBATCH = Path(sys.executable).with_name("walbatch")
EVENTS = Path(__file__).with_name("earthquakes.ndjson")
REPLAYED = "Quarry Blast Reported"

LIMIT_S = 28.0
"""For everything before the stop: a demonstration that hangs demonstrates nothing."""
STOP_S = 10.0
POLL_S = 0.3
TAIL_LINES = 15


class Unexpected(Exception):
    """Something went otherwise than promised; the text says what."""


class Demo:
    """One run: its directory, its settings and its deadline."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.arrived = directory / "arrived.ndjson"
        self.server_log = directory / "serve.log"
        self._until_s = time.monotonic() + LIMIT_S
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._settings = {
            "WALBATCH_DATA_DIR": str(self.data),
            "WALBATCH_GRPC_LISTEN": "127.0.0.1:0",
            "WALBATCH_ADMIN_LISTEN": "127.0.0.1:0",
            "WALBATCH_MIXPANEL_TOKEN": "a-token-for-the-fake",
            "WALBATCH_FLUSH_INTERVAL": "1s",
        }

    def run(self) -> str:
        """Go through all of it, and return the sentence that says what arrived."""
        sink_log = self.directory / "sink.log"
        with self.background(sink_log, "sink", "--listen", "127.0.0.1:0", "--out", str(self.arrived)):
            url = self.until(lambda: _address(sink_log), "the fake Mixpanel listens")
            print(f"  fake Mixpanel at {url}")
            self._settings["WALBATCH_MIXPANEL_URL"] = url
            with self.background(self.server_log, "serve"):
                self.wait_until_ready()
                self.command("send", str(EVENTS))
                self.command("stats")
                self.wait_until_delivered()
                self.command("replay", "--event", REPLAYED, "--yes")
                self.wait_until_delivered()
                self.command("stats")
        return verdict(EVENTS.read_text(encoding="utf-8"), self.arrived.read_text(encoding="utf-8"))

    def command(self, *arguments: str) -> None:
        """Run a command in the open, and expect it to succeed."""
        _show(arguments)
        code = self._run(arguments, None).returncode
        if code:
            raise Unexpected(f"walbatch {arguments[0]} ended with exit code {code}")

    def wait_until_ready(self) -> None:
        """Ask until the server accepts records."""
        _show(["health"])
        self.until(lambda: self._run(["health"], subprocess.PIPE).returncode == 0, "the server is ready")
        facts = json.loads((self.data / "walbatch.lock").read_text())
        print(f"  server at {facts['grpc']}")

    def wait_until_delivered(self) -> None:
        """Ask until nothing waits any more."""
        _show(["stats", "--json"], "until nothing is pending")
        self.until(self._nothing_is_pending, "everything is delivered")

    def _nothing_is_pending(self) -> bool:
        pending: int = json.loads(self._run(["stats", "--json"], subprocess.PIPE).stdout or '{"pending": -1}')[
            "pending"
        ]
        print(f"  {pending} pending")
        return pending == 0

    def _run(self, arguments: Any, output: int | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [WALBATCH, *arguments],
            env=self._environment(),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
            timeout=max(self._until_s - time.monotonic(), 0.1),
            check=False,
        )

    def _environment(self) -> dict[str, str]:
        """Return the environment with these settings and no other, so that the run is the same on every machine."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("WALBATCH_")}
        return clean | self._settings

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Return the first true value of a condition."""
        while time.monotonic() < self._until_s:
            if value := condition():
                return value
            self._check_running()
            threading.Event().wait(POLL_S)
        raise Unexpected(f"waited in vain until {what}")

    def _check_running(self) -> None:
        for name, process in self._running.items():
            if process.poll() is not None:
                raise Unexpected(f"walbatch {name} ended by itself with exit code {process.returncode}")

    @contextmanager
    def background(self, log: Path, *arguments: str) -> Iterator[None]:
        """Run a command beside everything else, and stop it by its pid, whatever happens; it has to end well."""
        _show(arguments, "in the background")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [WALBATCH, *arguments],
                env=self._environment(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for this program, which then stops the others in order
            )
        self._running[arguments[0]] = process
        try:
            yield
            self._check_running()
        except BaseException:
            _stop(process)
            raise
        del self._running[arguments[0]]
        print(f"$ kill {process.pid}   # walbatch {arguments[0]}", flush=True)
        if code := _stop(process):
            raise Unexpected(f"walbatch {arguments[0]} ended with exit code {code} after SIGTERM")


def verdict(sent: str, arrived: str) -> str:
    """Compare what was sent with what arrived, and return the sentence that says it."""
    names = {event["properties"]["$insert_id"]: event["event"] for event in map(json.loads, sent.splitlines())}
    copies: defaultdict[str, list[str]] = defaultdict(list)
    for line in arrived.splitlines():
        copies[json.loads(line)["record"]["properties"]["$insert_id"]].append(line)
    missing = names.keys() - copies.keys()
    if missing or copies.keys() - names.keys():
        raise Unexpected(f"{len(missing)} of {len(names)} events did not arrive")
    for key, lines in copies.items():
        expected = 2 if names[key] == REPLAYED else 1
        if len(lines) != expected or len(set(lines)) != 1:
            raise Unexpected(
                f"{key} arrived {len(lines)} times as {len(set(lines))} different texts; expected {expected}"
            )
    repeated = Counter(names.values())[REPLAYED]
    return (
        f"All {len(copies)} events of {EVENTS.name} arrived at the fake Mixpanel, and the {repeated} named "
        f"{REPLAYED!r} arrived there once more by the replay, byte for byte the same."
    )


def _show(arguments: Any, note: str = "") -> None:
    text = shlex.join(["walbatch", *arguments])
    print(f"$ {text}   # {note}" if note else f"$ {text}", flush=True)


def _address(log: Path) -> str:
    """Return the URL that the fake Mixpanel has printed; empty as long as it has not."""
    _, _, rest = log.read_text(encoding="utf-8").partition("fake Mixpanel at ")
    return rest.partition(";")[0]


def _stop(process: subprocess.Popen[bytes]) -> int:
    """Stop a process that was started here, and return its exit code."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        return process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _terminated(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def main() -> int:
    """Run it, and return the exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    with tempfile.TemporaryDirectory(prefix="walbatch-demo-") as directory:
        demo = Demo(Path(directory))
        try:
            print(f"\n{demo.run()}")
        except KeyboardInterrupt:
            print("\ninterrupted; everything that was started is stopped", file=sys.stderr)
            return 128 + signal.SIGINT
        except (Unexpected, OSError, subprocess.TimeoutExpired) as error:
            text = f"`walbatch {error.cmd[1]}` took too long" if isinstance(error, subprocess.TimeoutExpired) else error
            print(f"\nThe demonstration failed: {text}", file=sys.stderr)
            if demo.server_log.exists():
                tail = demo.server_log.read_text(encoding="utf-8").splitlines()[-TAIL_LINES:]
                print("The end of the server's log:", *tail, sep="\n  ", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
