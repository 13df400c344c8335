"""Tell the service manager how the server is, by systemd's notify protocol: a datagram for each thing to say.

    STATUS=...               starting, accepting, refusing, stopping: `systemctl status` shows it
    EXTEND_TIMEOUT_USEC=...  while it starts: to read a large log may take longer than the manager would wait
    READY=1                  records are accepted
    WATCHDOG=1               the event loop runs. Commits and checkpoints run in a thread, so a slow disk is no hang
    STOPPING=1               a stop signal came

Without NOTIFY_SOCKET nothing is sent. A manager that cannot be told, or does not read, is no reason to wait or to stop:
it is logged, and told again with the next sign of life.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

import structlog

from walbatch.clock import Clock

log = structlog.stdlib.get_logger("walbatch.notify")

INTERVAL_S = 10.0
"""Between two signs of life while it starts, if the manager has no watchdog. Each gives the start three more."""


class Manager:
    """Who started this process, as a context. Without an address every call does nothing.

    `watchdog_s` is the time without a sign of life after which the manager ends the process; 0 if it does not look.
    """

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address  # an abstract one is written with @
        self._watches = watchdog_s > 0
        self._interval_s = watchdog_s / 2 if self._watches else INTERVAL_S
        self._starting = True
        self._untold: dict[str, str] = {}
        self._never = asyncio.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """Return the one that this environment names. A watchdog that is meant for another process is left alone."""
        watchdog_us = 0
        if environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            with suppress(ValueError):
                watchdog_us = int(environ.get("WATCHDOG_USEC", ""))
        return cls(environ.get("NOTIFY_SOCKET", ""), watchdog_us / 1e6)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    def status(self, text: str) -> None:
        """Say in a short sentence what the server does."""
        self._tell(STATUS=_one_line(text))

    def ready(self, text: str) -> None:
        """Say that the start is over, and what the server does now."""
        self._starting = False
        self._tell(READY="1", STATUS=_one_line(text))

    def stopping(self, text: str) -> None:
        """Say that the server has begun to stop."""
        self._tell(STOPPING="1", STATUS=_one_line(text))

    async def keep_alive(self, clock: Clock) -> None:
        """Say again and again that the event loop runs, until it is cancelled."""
        while True:
            signs = {"WATCHDOG": "1"} if self._watches else {}
            if self._starting:
                signs["EXTEND_TIMEOUT_USEC"] = str(round(3 * self._interval_s * 1e6))
            self._tell(**signs)
            await clock.wait(self._never, self._interval_s)

    def _tell(self, **facts: str) -> None:
        told = self._untold | facts
        if not self._address or not told:
            return
        try:
            self._socket.sendto("\n".join(f"{name}={value}" for name, value in told.items()).encode(), self._address)
        except OSError as error:
            if not self._untold:
                log.warning("notify.failed", error=str(error))
            self._untold = told
        else:
            self._untold = {}


def _one_line(text: str) -> str:
    return " ".join(text.split())
