"""The service manager's end of systemd's notify protocol."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

Facts = dict[str, str]


class NotifySocket:
    """A datagram socket at a path, or with @ at an abstract name, that is open within a block."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{name[1:]}" if name.startswith("@") else name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()
        if not self.name.startswith("@"):
            Path(self.name).unlink()

    def next(self, timeout_s: float = 20.0) -> Facts:
        """Return the next datagram. Raises: TimeoutError."""
        self._socket.settimeout(timeout_s)
        lines = self._socket.recv(65_536).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def until(self, wanted: Callable[[Facts], bool]) -> list[Facts]:
        """Return every datagram up to the first that is wanted."""
        seen = [self.next()]
        while not wanted(seen[-1]):
            seen.append(self.next())
        return seen

    def waiting(self) -> list[Facts]:
        """Return what has come by now."""
        seen = []
        try:
            while True:
                seen.append(self.next(0.0))
        except BlockingIOError:
            return seen
