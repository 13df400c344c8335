"""What a request leaves in memory: nothing, however it ends. A retry that left its body would fill it in an outage."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_destination import MODES, NO_PLACE, destinations
from leftovers import left_by

from walbatch.event import Kind
from walbatch.sinks.http import HttpSink
from walbatch.sinks.mixpanel import Credentials, Mixpanel

PAYLOAD = '{"event":"E","properties":{"distinct_id":"u1"}}'


@pytest.mark.parametrize("mode", ["good", NO_PLACE, *MODES])
async def test_what_was_sent_and_answered_is_not_kept(tmp_path: Path, mode: str) -> None:
    """No request and no answer is left in a cycle, where it would stay until Python looks for cycles."""
    with destinations() as there:
        url = f"http://127.0.0.1:{there.add(tmp_path / 'out.ndjson', mode).port}"
        async with HttpSink(Mixpanel(url, Credentials(token="t")), timeout_s=0.5) as sink:
            assert await left_by(lambda: sink.send(Kind.EVENT, [PAYLOAD])) == set()
