"""A site whose server runs on a disk that a test can break, with clients under load and calls of the test's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import canary
import grpc
import probe
from faultshim import Shim
from load import Load
from programs import WALBATCH, Site, site
from total_queue import Verdict

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

SOME_BYTES = 4000
"""A client's log has grown by so much once some of its calls were acknowledged."""


class Shimmed:
    """The server, the disk under it, and what was sent to it. What a test sends itself is in the log of probes."""

    def __init__(self, here: Site, entry: Sequence[str]) -> None:
        self.here = here
        self.shim = Shim(here.path)
        here.sink()
        self.server = here.serve(entry=self.shim.entry(*entry))
        self._load = Load(here, clients=0)
        self._channel = grpc.insecure_channel(f"127.0.0.1:{here.grpc_port}")
        self.stub = AnalyticsServiceStub(self._channel)

    def load(self) -> Path:
        """Start another client, and return its log."""
        return self._load.more()

    def end_load(self) -> None:
        """End every client."""
        self._load.end()

    def goes_on(self) -> None:
        """Wait until the clients have further acknowledgements."""
        self._load.goes_on(SOME_BYTES)

    def attempted(self, *ids: str) -> list[pb.Record]:
        """Write down that the test attempts these events, and return them."""
        self._write("attempt", ids)
        return [
            pb.Record(
                event=pb.Event(event_id=i, name="Own", distinct_id=canary.PERSON, properties_json=canary.PROPERTIES)
            )
            for i in ids
        ]

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
        return self.here.admin_get(path)[0]

    def verdict(self) -> Verdict:
        """Take the fault back, end the clients, kill the server if it runs, start one that is whole, and judge."""
        self.shim.disarm()
        self.end_load()
        if self.server.process.poll() is None:
            self.server.kill()
        self.here.serve()
        verdict = self._load.settled()
        print(verdict.summary())
        return verdict

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _write(self, word: str, ids: Sequence[str]) -> None:
        with (self.here.path / probe.LOG).open("a") as log:
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
