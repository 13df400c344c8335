"""A server whose event loop hangs for good at SIGUSR1."""

from __future__ import annotations

import asyncio
import signal
import threading
from importlib.metadata import entry_points

from walbatch import service


class _Hanging(service.StopSignal):
    def install(self) -> None:
        super().install()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, threading.Event().wait)


if __name__ == "__main__":
    service.StopSignal = _Hanging  # type: ignore[misc]
    (script,) = entry_points(group="console_scripts", name="walbatch")
    script.load()(["serve"])
