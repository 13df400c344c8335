"""The counters of the real server, beside what `walbatch stats` says, before and after a restart."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
from metered import Samples, samples
from programs import Site, site
from prometheus_client.parser import text_string_to_metric_families

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

pytestmark = pytest.mark.e2e

EVENTS = 120
INVALID = 7
STEPS = [{"fault": "status", "status": 503}, {"fault": "status", "status": 429}]


def scraped(here: Site) -> Samples:
    """Return what the server's admin port tells."""
    status, text = here.admin_get("/metrics")
    assert status == 200
    return samples(text_string_to_metric_families(text))


async def send(here: Site) -> None:
    """Send valid events in calls of ten, one call twice, and some that are invalid."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{here.grpc_port}") as channel:
        ingest = AnalyticsServiceStub(channel).Ingest
        valid = [pb.Record(event=pb.Event(name="Tick", distinct_id="u1", event_id=f"e{n}")) for n in range(EVENTS)]
        for first in (*range(0, EVENTS, 10), 0):
            await ingest(pb.IngestRequest(records=valid[first : first + 10]), timeout=30)
        answer = await ingest(pb.IngestRequest(records=[pb.Record(event=pb.Event())] * INVALID), timeout=30)
        assert len(answer.rejections) == INVALID


async def test_the_counters_agree_with_stats_and_begin_anew_with_a_restart(tmp_path: Path) -> None:
    """Known numbers go in, through a destination that is down twice; each is found again, exactly."""
    script = tmp_path / "script.json"
    script.write_text(json.dumps(STEPS))
    with site(tmp_path, retry_base="50ms") as here:
        here.sink("--script", str(script))
        server = here.serve()
        before = scraped(here)
        assert before["walbatch_events_accepted_total"] == {(): 0}
        assert before["walbatch_events_sent_total"]["mixpanel", "events"] == 0
        await send(here)
        stats = here.drained()
        found = scraped(here)
        assert found["walbatch_events_received_total"]["Ingest",] == EVENTS + 10 + INVALID
        assert found["walbatch_events_accepted_total"] == {(): EVENTS} == {(): stats["accepted"]}
        assert found["walbatch_events_duplicate_total"] == {(): 10}
        assert found["walbatch_events_rejected_total"]["REQUIRED",] == INVALID
        assert found["walbatch_events_sent_total"]["mixpanel", "events"] == EVENTS == stats["sent"]
        attempts = found["walbatch_delivery_attempts_total"]
        assert (attempts["mixpanel", "events", "failed"], attempts["mixpanel", "events", "throttled"]) == (1, 1)
        ours = ("unary", "analytics.v1.AnalyticsService", "Ingest")
        assert found["grpc_server_handled_total"][*ours, "OK"] == EVENTS / 10 + 2
        assert found["walbatch_commit_duration_seconds_count"][()] >= EVENTS / 10
        assert 0 < found["walbatch_ingest_ack_duration_seconds_sum"]["Ingest",] < 60
        assert server.stop() == 0
        here.serve()
        again = scraped(here)
        assert again["walbatch_events_accepted_total"] == {(): 0}
        assert again["walbatch_events_sent_total"]["mixpanel", "events"] == 0
        assert here.stats()["sent"] == EVENTS
