"""A control group with a limit on memory, of version 1 or 2 of the kernel's interface. Needs root."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from programs import eventually

V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")

_GROW = """
import sys
open("/proc/self/oom_score_adj", "w").write("-1000")
open(sys.argv[1], "w").write("0")
held = []
while True:
    held.append(bytes(2**20))
"""


class MemoryLimit:
    """A group of processes that may use so many bytes together."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def entry(self) -> tuple[str, ...]:
        """What to put before a command that is to run in the group, as the first to go when memory is short."""
        script = f'echo 1000 > /proc/self/oom_score_adj; echo $$ > {self.path}/cgroup.procs; exec "$@"'
        return ("sh", "-c", script, "sh")

    def exceed(self) -> None:
        """Use up the group's memory, until the kernel has killed another process of it, and leave."""
        before = self.kills()
        hog = subprocess.Popen([sys.executable, "-c", _GROW, f"{self.path}/cgroup.procs"])
        try:
            eventually(lambda: self.kills() > before, "the kernel ends a process")
        finally:
            hog.kill()
            hog.wait()

    def kills(self) -> int:
        """Return how many of its processes the kernel has ended."""
        counters = self.path / "memory.events"
        if not counters.exists():
            counters = self.path / "memory.oom_control"
        return next(int(line.split()[1]) for line in counters.read_text().splitlines() if line.startswith("oom_kill "))


@contextmanager
def memory_limit(limit: int) -> Iterator[MemoryLimit]:
    """A group with this limit in bytes, for the length of the block. Its processes must have ended by then."""
    v1 = V1.is_dir()
    path = (V1 if v1 else V2) / f"walbatch-{uuid4().hex[:8]}"
    if not v1:
        (V2 / "cgroup.subtree_control").write_text("+memory")
    path.mkdir()
    try:
        (path / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(str(limit))
        yield MemoryLimit(path)
    finally:
        eventually(lambda: not (path / "cgroup.procs").read_text(), "the group is empty")
        path.rmdir()
