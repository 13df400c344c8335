"""A command on a terminal of its own that goes on until it is interrupted."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from programs import WALBATCH, Site, environment, eventually

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """What a running command has written so far, as it came: `written`."""

    def __init__(self, process: subprocess.Popen[bytes], controller: int) -> None:
        self.written = b""
        self._process = process
        self._controller = controller

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while chunk := os.read(self._controller, 4096):
                self.written += chunk

    def shows(self, text: str) -> bool:
        """Say whether it has shown this by now; runs of spaces and line ends count as one space."""
        self._read()
        return text in " ".join(_ESCAPE.sub("", self.written.decode()).split())

    def interrupt(self) -> tuple[int, float]:
        """Do what Ctrl-C does; return the exit code, and after how many seconds it came."""
        began_s = time.monotonic()
        self._process.send_signal(signal.SIGINT)
        eventually(self._ended, "it ends")
        return self._process.wait(), time.monotonic() - began_s

    def _ended(self) -> bool:
        self._read()  # or it could wait for room to write
        return self._process.poll() is not None


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
