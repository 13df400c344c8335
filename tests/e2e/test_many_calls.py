"""More calls at once than one connection may have."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from programs import accounted, site

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

pytestmark = pytest.mark.e2e

CALLERS = 300
CALLS_EACH = 10


async def test_no_call_is_refused_because_there_are_many(tmp_path: Path) -> None:
    """Three hundred callers on one connection, each with its next call at once: what is too much waits, unseen."""
    with site(tmp_path) as here:
        here.serve()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{here.grpc_port}") as channel:
            track = AnalyticsServiceStub(channel).TrackEvent

            async def call_again_and_again(caller: int) -> None:
                for number in range(CALLS_EACH):
                    event = pb.Event(name="Tick", distinct_id=f"u{caller}", event_id=f"{caller}-{number}")
                    answer = await track(pb.TrackEventRequest(event=event), timeout=60)
                    assert not answer.duplicate

            await asyncio.gather(*(call_again_and_again(caller) for caller in range(CALLERS)))
        assert accounted(here.stats())["accepted"] == CALLERS * CALLS_EACH
