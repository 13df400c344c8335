"""What the server writes about itself never holds what it carries."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import eventually, site

pytestmark = pytest.mark.e2e

CANARY = "canary-91be04"


@pytest.mark.parametrize("status", [400, 401, 503])
def test_no_credential_and_nothing_of_an_event_reaches_the_log(tmp_path: Path, status: int) -> None:
    """Delivered, refused or held: neither the token, nor an id, nor a property is in any log, nor in `stats`."""
    line = f'{{"event": "E", "properties": {{"distinct_id": "{CANARY}-id", "plan": "{CANARY}-plan"}}}}\n'
    settings = {"mixpanel_token": f"{CANARY}-token", "log_level": "debug", "retry_base": "50ms", "retry_max": "200ms"}
    with site(tmp_path, **settings) as here:
        failing = here.sink("--fail-rate", "1", "--status", str(status))
        server = here.serve()
        here.run("send", "-", text=line)
        refused = here.run("send", "-", text=line.replace('"E"', '""') + f'{{"event": "{CANARY}', check=False)
        assert refused.returncode == 1
        eventually(lambda: here.stats()["destinations"][0]["failures"] or here.stats()["dead"], "an answer")
        shown = here.run("stats").stdout + here.run("stats", "--json").stdout
        failing.stop()
        here.sink()
        here.drained()
        assert server.stop() == 0
        assert "flusher.batch_answered" in server.output()
        assert CANARY not in server.output() + shown + refused.stderr
