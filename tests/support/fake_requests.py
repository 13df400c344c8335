"""Requests that the tests send to the fake Mixpanel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from walbatch.clock import SystemClock
from walbatch.testing.mixpanel import FakeMixpanel, serve_fake

NOW_MS = SystemClock().wall_ms()
EVENT = {"event": "E", "properties": {"time": NOW_MS, "distinct_id": "u1", "$insert_id": "i-1"}}
BAD = {"event": "E", "properties": {"time": 5, "distinct_id": "u1", "$insert_id": "i-2"}}
UPDATE = {"$token": "T", "$distinct_id": "u1", "$set": {"plan": "pro"}}
TIME_MESSAGE = "'properties.time' is invalid: must be specified as seconds since epoch"


def event(name: Any = "E", without: Any = "", **properties: Any) -> dict[str, Any]:
    """Build an event with some properties changed, and one left out."""
    changed = EVENT["properties"] | properties  # type: ignore[operator]
    return {"event": name, "properties": {key: value for key, value in changed.items() if key != without}}


@asynccontextmanager
async def client_of(fake: FakeMixpanel, timeout_s: float = 5.0) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the fake on a socket, and yield a client for it."""
    async with serve_fake(fake) as url, httpx.AsyncClient(base_url=url, trust_env=False, timeout=timeout_s) as client:
        yield client


async def on_socket(fake: FakeMixpanel, requests: int = 1, timeout_s: float = 5.0) -> list[int]:
    """Serve the fake on a socket, send the same event some times, and return the statuses."""
    async with client_of(fake, timeout_s) as client:
        return [(await client.post("/import", json=[EVENT])).status_code for _ in range(requests)]
