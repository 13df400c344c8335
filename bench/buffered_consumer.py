"""Mixpanel's SDK for Python: buffered_consumer.py PORT EVENTS sends them to /track, 50 a request, which is its most.

It prints in how many seconds.
"""

from __future__ import annotations

import sys
import time

from mixpanel import BufferedConsumer, Mixpanel

from walbatch.bench.samples import PROPERTIES


def main(port: int, events: int) -> None:
    """Send everything."""
    consumer = BufferedConsumer(events_url=f"http://127.0.0.1:{port}/track")
    mixpanel = Mixpanel("bench", consumer=consumer)
    started = time.perf_counter()
    for _ in range(events):
        mixpanel.track("user-1", "Bench", PROPERTIES)
    consumer.flush()
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
