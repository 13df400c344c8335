"""Some payloads as they are stored, and the project that they go to."""

from __future__ import annotations

from walbatch.event import profile_update, track
from walbatch.sinks.mixpanel import REGION_URLS, Credentials, Mixpanel

NOW_MS = 1_795_000_000_000
TOKEN = "0123456789abcdef0123456789abcdef"
SECRET = "a-long-service-secret"
BY_TOKEN = Credentials(token=TOKEN)
API = Mixpanel(REGION_URLS["us"], BY_TOKEN)
EVENTS = [
    track(name="Sign up", distinct_id="u1", event_id="e-0", properties={"city": "Köln"}, now_ms=NOW_MS).payload,
    track(name="Log in", distinct_id="u2", event_id="e-1", properties={"price": 1.0}, now_ms=NOW_MS).payload,
]
UPDATES = [
    profile_update(distinct_id="u1", operation="$set", properties={"plan": "pro"}, now_ms=NOW_MS).payload,
    profile_update(distinct_id="u2", operation="$set_once", properties={"seen": 1}, now_ms=NOW_MS).payload,
]
