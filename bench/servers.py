"""Processes that only these scripts need, and what the system knows of a running one."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from walbatch.bench import processes
from walbatch.bench.processes import Child

HERE = Path(__file__).parent
PYTHON = sys.executable
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Walbatch(processes.Walbatch):
    """A server, and what it costs."""

    def cpu_s(self) -> float:
        """Return the CPU time that it has used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def rss_mib(self) -> float:
        """Return how much memory it has at this moment."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def finish(self) -> int:
        """End it, and return the bytes that it made the disk write in its life, those of its end included."""
        self.process.terminate()
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        rows = dict(row.split(": ") for row in Path(f"/proc/{self.process.pid}/io").read_text().splitlines())
        return int(rows["write_bytes"])


def cpu_of_threads(process: Child) -> dict[str, float]:
    """Return the CPU time of each thread so far, by name and number; the first one runs the event loop."""
    found = {}
    for task in sorted(Path(f"/proc/{process.process.pid}/task").iterdir(), key=lambda path: int(path.name)):
        head, _, rest = (task / "stat").read_text().rpartition(")")
        fields = rest.split()
        found[f"{head.partition('(')[2]} {task.name}"] = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return found


def empty_server() -> Child:
    """Return the ceiling; its `line` is its port."""
    return Child([PYTHON, str(HERE / "empty_server.py")])


@contextmanager
def refused_port() -> Iterator[int]:
    """Yield a port at which nobody listens, and nobody can until the block ends."""
    with closing(socket.socket()) as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]
