"""Mixpanel goes away for longer than all attempts, and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import eventually, site

pytestmark = pytest.mark.e2e

LINES = "".join(
    f'{{"event": "Tick", "properties": {{"distinct_id": "u{n}", "$insert_id": "tick-{n}", "n": {n}}}}}\n'
    for n in range(120)
)


def test_everything_is_delivered_after_an_outage_longer_than_all_attempts(tmp_path: Path) -> None:
    """With the destination gone, all 5 attempts fail, probes go on, nothing is dropped, and no person is needed."""
    with site(tmp_path, retry_base="20ms", retry_max="100ms") as here:
        server = here.serve()
        here.run("send", "-", text=LINES)
        held = eventually(lambda: (d := here.stats()["destinations"][0])["failures"] > 8 and d, "more than 8 failures")
        assert held["state"] == "open"
        assert "cannot connect" in held["last_error"]
        assert here.stats()["pending"] == 120
        here.sink()
        numbers = here.drained()
        assert (numbers["sent"], numbers["dead"]) == (120, 0)
        assert numbers["destinations"][0]["state"] == "ok"
        assert sorted(r["properties"]["n"] for r in here.delivered()) == list(range(120))
        assert server.stop() == 0


def test_backoff_survives_a_restart(tmp_path: Path) -> None:
    """A server that is restarted during an outage goes on waiting where it was, instead of starting the ramp anew."""
    with site(tmp_path, retry_base="20ms", retry_max="1h", retry_attempts=60, flush_interval="50ms") as here:
        server = here.serve()
        here.run("send", "--event", "Tick", "--distinct-id", "u1")
        before = eventually(
            lambda: (d := here.stats()["destinations"][0])["retry_in_s"] and d["failures"] >= 7 and d, "7 failures"
        )
        server.kill()
        here.serve()
        after = here.stats()["destinations"][0]
        assert after["failures"] >= before["failures"]
        assert after["state"] == "retrying"
