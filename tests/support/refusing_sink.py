"""A fake Mixpanel with a rule of its own: it refuses events named Poison. refusing_sink.py PORT OUT."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from walbatch.testing import mixpanel
from walbatch.testing.validator import Failure, Received, event_failure


def _failure(record: Received, now_ms: int, *, strict: bool = True) -> Failure | None:
    if record.value.get("event") == "Poison":
        return Failure.of("event", "must not be poison")
    return event_failure(record, now_ms, strict=strict)


async def main(port: int, out: Path) -> None:
    """Serve until killed."""
    async with mixpanel.serve_fake(mixpanel.FakeMixpanel(out), port=port):
        print("listening", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    mixpanel.event_failure = _failure  # type: ignore[attr-defined]  # it is where the fake looks it up
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
