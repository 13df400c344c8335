"""A site whose server runs on a disk that a test can break, with clients under load and calls of the test's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import grpc
from faultshim import Shim
from programs import WALBATCH, Program, Site, eventually, grown, site
from settled import settled_account
from total_queue import Verdict

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

LOAD_CLIENT = Path(__file__).with_name("load_client.py")
SOME_BYTES = 3000
"""A client's log has grown by so much once some of its calls were acknowledged."""


class Shimmed:
    """The server, the disk under it, and what was sent to it. What `calls` sends is in a client's log as well."""

    def __init__(self, here: Site, entry: Sequence[str]) -> None:
        self.here = here
        self.shim = Shim(here.path)
        here.sink()
        self.server = here.serve(entry=self.shim.entry(*entry))
        self.logs: list[Path] = []
        self.own_log = here.path / "own.log"
        self._clients: list[Program] = []
        self._channel = grpc.insecure_channel(f"127.0.0.1:{here.grpc_port}")
        self.stub = AnalyticsServiceStub(self._channel)

    def load(self) -> Path:
        """Start another client, and return its log."""
        log = self.here.path / f"client-{len(self.logs)}.log"
        address = f"127.0.0.1:{self.here.grpc_port}"
        self._clients.append(self.here.start(sys.executable, str(LOAD_CLIENT), address, str(log), f"c{len(self.logs)}"))
        self.logs.append(log)
        return log

    def end_load(self) -> None:
        """End every client."""
        for client in self._clients:
            assert client.process.poll() is None, client.output()
            client.kill()
        self._clients.clear()

    def goes_on(self) -> None:
        """Wait until the clients have further acknowledgements."""
        size = sum(log.stat().st_size for log in self.logs if log.exists())
        eventually(partial(grown, self.logs, size + SOME_BYTES), "the clients go on")

    def attempted(self, *ids: str) -> list[pb.Record]:
        """Write down that the test attempts these events, and return them."""
        self._write("attempt", ids)
        return [pb.Record(event=pb.Event(event_id=i, name="Own", distinct_id="u", properties_json="{}")) for i in ids]

    def acked(self, *ids: str) -> None:
        """Write down that these were acknowledged to the test."""
        self._write("ack", ids)

    def track(self, event_id: str) -> None:
        """Send one event, and write down what became of it.

        Raises:
            grpc.RpcError: it was not acknowledged.
        """
        self.stub.Ingest(pb.IngestRequest(records=self.attempted(event_id)), timeout=10)
        self.acked(event_id)

    def get(self, path: str) -> int:
        """Return the status with which the admin port answers."""
        with closing(HTTPConnection(self.here.lock()["admin"], timeout=5)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status

    def verdict(self) -> Verdict:
        """Take the fault back, end the clients, kill the server if it runs, start one that is whole, and judge."""
        self.shim.disarm()
        self.end_load()
        if self.server.process.poll() is None:
            self.server.kill()
        self.here.serve()
        verdict = settled_account(self.here, [*self.logs, self.own_log])
        print(verdict.summary())
        return verdict

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _write(self, word: str, ids: Sequence[str]) -> None:
        with self.own_log.open("a") as log:
            log.writelines(f"{word} {one}\n" for one in ids)


@contextmanager
def shimmed(path: Path, *, entry: Sequence[str] = (WALBATCH, "serve"), **settings: object) -> Iterator[Shimmed]:
    """A site with a server on a disk that can be broken; all of it ends with the block."""
    with site(path, **settings) as here:
        made = Shimmed(here, entry)
        try:
            yield made
        finally:
            made.close()
