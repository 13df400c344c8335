"""One data directory under two paths, as two containers see the same volume."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from file_systems import bound
from load import Load
from programs import WALBATCH, Program, Site, eventually, site

SHARED = (sys.executable, str(Path(__file__).parent.parent / "support" / "shared_server.py"))


def start_beside(here: Site, data: Path, entry: tuple[str, ...]) -> Program:
    """Start a second server on a directory, on ports of its own."""
    settings = here.settings
    here.settings = settings | {"data_dir": data, "grpc_listen": "127.0.0.1:0"}
    try:
        return here.start(*entry)
    finally:
        here.settings = settings


def test_a_second_server_ends_whatever_path_it_came_by(
    tmp_path: Path, rounds: Callable[[int, int], int], matrix: Callable[..., None]
) -> None:
    """It exits with 75 and names the first, which goes on; `stats` works by both paths; nothing is delivered twice."""
    times = rounds(2, 5)
    with site(tmp_path, min_free_disk=0) as here:
        here.sink()
        first = here.serve()
        load = Load(here)
        with bound(tmp_path / "bound", here.data) as other:
            for number in range(times):
                load.goes_on(2000)
                second = start_beside(here, other if number % 2 == 0 else here.data, (WALBATCH, "serve"))
                assert second.wait() == 75, second.output()
                assert f"pid {first.process.pid}" in second.output()
            stats = json.loads(here.run("stats", "--json", "--data-dir", str(other)).stdout)
            assert stats["serving"]
            assert stats["accepted"]
            load.end()
            verdict = load.settled()
            control = start_beside(here, other, SHARED)
            eventually(lambda: "service.ready" in control.output(), "without the lock two serve one directory")
            control.kill()
    matrix(
        fault="second server, also by a bind mount",
        rounds=times,
        **verdict.counts(),
        control="without the lock both serve",
    )
    assert verdict.acked
    assert not verdict.complaints(most_repeats=0)
