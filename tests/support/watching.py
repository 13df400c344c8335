"""What can be seen of a running server without starting a command: its numbers, and its memory."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from programs import Program, Site, accounted, eventually

MIB = 2**20


def numbers(here: Site) -> dict[str, Any]:
    """Return what the server's admin port says of its log, and check on the way that nothing is unaccounted for."""
    return accounted(json.loads(here.admin_get("/stats", timeout_s=10)[1]))


def pending_at(document: dict[str, Any], names: Sequence[str] = ()) -> int:
    """Return how many records wait for these destinations, or for any."""
    wanted = [d for d in document["destinations"] if not names or d["name"] in names]
    return sum(lane["pending"] for destination in wanted for lane in destination["lanes"])


def drained(here: Site, names: Sequence[str] = (), timeout_s: float = 60) -> dict[str, Any]:
    """Wait until nothing waits for these destinations, or for any, and return the numbers."""
    done: dict[str, Any] = eventually(
        lambda: not pending_at(n := numbers(here), names) and n, "nothing is pending", timeout_s
    )
    return done


def memory(server: Program, line: str = "VmRSS") -> int:
    """Return the bytes of memory that a process holds, or with `VmHWM` the most that it ever held."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(rf"^{line}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024
