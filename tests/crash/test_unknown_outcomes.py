"""The process ends while an update that counts twice is on its way: held or sent again, as the policy says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from programs import Program, eventually, site

pytestmark = pytest.mark.crash

ADD = '{"$distinct_id": "u1", "$add": {"credits": 5}}\n'
SET = '{"$distinct_id": "u1", "$set": {"plan": "pro"}}\n'
ANSWER_NOTHING = [{"fault": "slow", "delay": "1h", "times": 1}]


def arrived(out: Path) -> list[dict[str, Any]]:
    """The records that the destination took, in order."""
    return [json.loads(line)["record"] for line in out.read_text().splitlines()] if out.exists() else []


def kill(server: Program) -> None:
    """End it without a chance to do anything."""
    server.kill()


def stop(server: Program) -> None:
    """Ask it to end; the request under way is cut off at the end of the grace."""
    assert server.stop() == 0


@pytest.mark.parametrize("end", [kill, stop])
@pytest.mark.parametrize(("policy", "times"), [("hold", 1), ("retry", 2)])
def test_an_update_that_was_under_way_at_the_end(tmp_path: Path, policy: str, times: int, end: Any) -> None:
    """Under `hold` it is never sent twice, and waits for a person; under `retry`, the control, it counts twice."""
    script = tmp_path / "script.json"
    script.write_text(json.dumps(ANSWER_NOTHING))
    with site(tmp_path, unknown_outcomes=policy, shutdown_grace="2s") as here:
        here.sink("--script", str(script))
        server = here.serve()
        here.run("send", "-", text=ADD + SET)
        eventually(lambda: len(arrived(here.out)) == 2, "both arrived, and no answer")
        end(server)
        here.serve()
        numbers = here.drained()
        assert numbers["held"] == (1 if policy == "hold" else 0)
        assert sum("$add" in record for record in arrived(here.out)) == times
        assert sum("$set" in record for record in arrived(here.out)) == 2
        if policy == "hold":
            here.run("dead", "replay", "--held", "--yes")
            eventually(lambda: sum("$add" in record for record in arrived(here.out)) == 2, "it was released")
            assert here.drained()["held"] == 0
