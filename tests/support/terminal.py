"""A command on a terminal of its own that goes on until it is interrupted."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from programs import DEADLINE_S, WALBATCH, Site, environment, eventually


class Terminal:
    """What a running command has shown so far."""

    def __init__(self, process: subprocess.Popen[bytes], controller: int) -> None:
        self.process = process
        self._controller = controller
        self._shown = b""

    def shows(self, text: str) -> bool:
        """Say whether it has shown this by now; runs of spaces and line ends count as one space."""
        with suppress(BlockingIOError):
            while chunk := os.read(self._controller, 4096):
                self._shown += chunk
        return text in " ".join(self._shown.decode().split())

    def interrupt(self) -> tuple[int, float]:
        """Do what Ctrl-C does; return the exit code, and after how many seconds it came."""
        began_s = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        eventually(lambda: self.shows("\0") or self.process.poll() is not None, "it ends")
        return self.process.wait(DEADLINE_S), time.monotonic() - began_s


@contextmanager
def terminal(here: Site, *arguments: str, **variables: str) -> Iterator[Terminal]:
    """Run a command of a site on a terminal; killed at the end, if it still runs."""
    controller, end = pty.openpty()
    os.set_blocking(controller, False)
    process = subprocess.Popen(
        [WALBATCH, *arguments],
        stdin=end,
        stdout=end,
        stderr=end,
        env=environment(**here.settings) | {"COLUMNS": "160", "TERM": "xterm"} | variables,
        cwd=here.path,
    )
    try:
        yield Terminal(process, controller)
    finally:
        os.close(end)
        process.kill()
        process.wait()
        os.close(controller)
