"""Loads on a server, each from a process of its own: h2load where it is installed, else our client in Python."""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path

from walbatch.bench import loads
from walbatch.bench.client import WARM_UP_S
from walbatch.bench.loads import Load, python
from walbatch.bench.processes import Walbatch, output
from walbatch.bench.samples import ONE, SERVICE

REFUSED = -1
"""h2load's status of a stream that was reset."""

H2LOAD = shutil.which("h2load")
BY = "" if H2LOAD else "load by our Python client, as h2load is not installed: bench/tools.sh"
"""What a row has to tell of its load."""


def unary(address: str, scratch: Path, seconds: float, *, connections: int, in_flight: int) -> Load:
    """Call TrackEvent again and again: each connection with so many calls in flight."""
    if H2LOAD is None:
        return python(address, "unary", connections * in_flight, seconds)
    body, log = scratch / "body", scratch / "h2load.log"
    body.write_bytes(b"\0" + len(ONE).to_bytes(4, "big") + ONE)
    log.unlink(missing_ok=True)
    shape = (f"-c{connections}", f"-m{in_flight}", f"-D{round((seconds + WARM_UP_S) * 1000)}ms")
    headers = ("-H", "content-type: application/grpc", "-H", "te: trailers")
    url = f"http://{address}/{SERVICE}/TrackEvent"
    output([H2LOAD, *shape, *headers, "-d", str(body), f"--log-file={log}", url])
    return _read(log)


def _read(log: Path) -> Load:
    """Read h2load's log: when each request began, its status, and how long it took, in microseconds."""
    every = [tuple(map(int, line.split("\t"))) for line in log.read_text().splitlines()]
    if not every or any(status not in {200, REFUSED} for _, status, _ in every):
        raise RuntimeError(f"h2load got other answers than 200: {log.read_text()[:200]}")
    rows = [row for row in every if row[1] == 200]
    begin = every[0][0] + WARM_UP_S * 1e6
    warm = [(started, taken) for started, _, taken in rows if started >= begin]
    end = max(started + taken for started, taken in warm)
    cuts = statistics.quantiles([taken for _, taken in warm], n=100)
    rate = len(warm) / (end - begin) * 1e6
    return Load(len(rows), rate, cuts[49] / 1000, cuts[98] / 1000, refused=len(every) - len(rows))


class Checked(loads.Checked):
    """Loads on a walbatch server, by h2load as well."""

    def __init__(self, server: Walbatch, scratch: Path, seconds: float) -> None:
        super().__init__(server, seconds)
        self._scratch = scratch

    def unary(self, *, connections: int = 1, in_flight: int = 1) -> Load:
        """See `unary`."""
        address = self.server.address
        shape = {"connections": connections, "in_flight": in_flight}
        return self.checked(lambda: unary(address, self._scratch, self._seconds, **shape))
