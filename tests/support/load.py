"""Clients that keep a server busy while something is done to it, and what they know at the end."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import probe
from programs import Program, Site, eventually, grown
from settled import settled_account
from total_queue import Verdict

LOAD_CLIENT = str(Path(__file__).with_name("load_client.py"))


class Load:
    """Some clients of a site's server, from their start to `end`. Their logs lie in the site's directory.

    `options` are those of load_client.py.
    """

    def __init__(self, here: Site, clients: int = 2, *options: str) -> None:
        self.logs: list[Path] = []
        self._here = here
        self._options = options
        self._clients: list[Program] = []
        for _ in range(clients):
            self.more()

    def more(self) -> Path:
        """Start another client, and return its log."""
        log = self._here.path / f"client-{len(self.logs)}.log"
        address = f"127.0.0.1:{self._here.grpc_port}"
        self._clients.append(self._here.start(sys.executable, LOAD_CLIENT, address, str(log), log.stem, *self._options))
        self.logs.append(log)
        return log

    def goes_on(self, size: int = 20_000) -> None:
        """Wait until the clients have written so many bytes more, 20 or so for each record and answer."""
        before = sum(log.stat().st_size for log in self.logs if log.exists())
        eventually(partial(grown, self.logs, before + size), "the clients go on")

    def end(self) -> None:
        """End the clients, none of which may have ended by itself."""
        for client in self._clients:
            assert client.process.poll() is None, client.output()
            client.kill()
        self._clients.clear()

    def settled(self) -> Verdict:
        """Drain, see that all is well, and compare what was acknowledged, to probes too, with what became of it."""
        return settled_account(self._here, [*self.logs, self._here.path / probe.LOG])
