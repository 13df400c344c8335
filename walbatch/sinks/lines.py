"""Records as lines of text, for destinations that are no HTTP API. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from walbatch.event import Kind
from walbatch.sinks.mixpanel import PATHS


def as_lines(kind: Kind, payloads: Sequence[str]) -> str:
    """Return one JSON line for each record, `{"endpoint":"/import","record":{...}}`, with Mixpanel's endpoint of it."""
    return "".join(f'{{"endpoint":"{PATHS[kind]}","record":{payload}}}\n' for payload in payloads)
