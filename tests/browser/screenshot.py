"""Take the picture of the dashboard that the README shows: a real server, real events, a real outage.

The earthquakes of `examples/earthquakes.ndjson` go through a server to the fake Mixpanel, again and again with new ids,
more and fewer by and by. The fake refuses a few of the first for a reason, and is down for a while in the middle.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, cycle
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from browsing import NARROW, Look, chromium, refusing
from programs import Program, Site, site

EVENTS = Path(__file__).parents[2] / "examples" / "earthquakes.ndjson"

EVERY_S = 2.0
MOST, FEWEST = 220, 40
"""Events of one sending, at the height and at the ebb."""

TIDE_S = 300.0

SETTINGS: dict[str, object] = {"retry_max": "5s", "flush_interval": "1s", "batch_max": 100, "max_in_flight": 1}
LATENCY = ("--latency", "400ms")
"""So that a backlog takes its time, as over a network."""

DOWN = (0.45, 0.58)
"""When the fake Mixpanel is away, as shares of the whole time."""

REASONS = (
    "properties.felt: must be a whole number of reports",
    "properties.felt: must be a whole number of reports",
    "properties.felt: must be a whole number of reports",
    "properties.alert: is none of green, yellow, orange, red",
)


def earthquakes() -> Iterator[str]:
    """Yield the earthquakes without end, each time with an id that was not there before."""
    events = [json.loads(line) for line in EVENTS.read_text(encoding="utf-8").splitlines()]
    for number, event in zip(count(), cycle(events), strict=False):
        properties = event["properties"]
        yield json.dumps({**event, "properties": properties | {"$insert_id": f"{properties['$insert_id']}-{number}"}})


def live(here: Site, sink: Program, total_s: float, enough: threading.Event) -> None:
    """Let events come and the fake Mixpanel go, until it is enough."""
    events = earthquakes()
    began = time.monotonic()
    while not enough.is_set():
        now_s = time.monotonic() - began
        away = DOWN[0] <= now_s / total_s < DOWN[1]
        running = sink.process.poll() is None
        if away and running:
            sink.stop()
        elif not away and not running:
            sink = here.sink(*LATENCY)
        tide = (1 + math.sin(2 * math.pi * now_s / TIDE_S)) / 2
        here.run("send", "-", text="\n".join(next(events) for _ in range(round(FEWEST + tide * (MOST - FEWEST)))))
        enough.wait(max(EVERY_S - (time.monotonic() - began - now_s), 0))


@contextmanager
def busy(here: Site, script: Path, minutes: float) -> Iterator[None]:
    """Start everything, and return after so many minutes; events go on coming for as long as the context lasts."""
    sink = here.sink("--script", str(script), *LATENCY)
    here.serve()
    enough = threading.Event()
    coming = threading.Thread(target=live, args=(here, sink, minutes * 60, enough))
    coming.start()
    try:
        enough.wait(minutes * 60)
        yield
    finally:
        enough.set()
        coming.join()


def main() -> int:
    """Run it all, and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, help="where to write the picture")
    parser.add_argument("--minutes", type=float, default=14.0, help="for how long events come first")
    parser.add_argument("--all", action="store_true", help="also a dark one and one of a phone, beside it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="walbatch-screenshot-") as folder, chromium() as browser:
        script = refusing(Path(folder) / "script.json", *REASONS)
        with site(Path(folder), **SETTINGS) as here, busy(here, script, options.minutes):
            url = here.run("dashboard").stdout.strip()
            kinds: list[tuple[str, dict[str, Any]]] = [("", {})]
            if options.all:
                kinds += [("-dark", {"dark": True}), ("-phone", {"size": NARROW, "dark": True})]
            for name, kind in kinds:
                look = Look(browser, **kind)
                look.page.goto(url)
                look.page.locator("#batches tr").first.wait_for()
                look.page.locator("#chart path.in").wait_for(state="attached")
                target = options.picture.with_stem(options.picture.stem + name)
                look.page.screenshot(path=target, full_page=True)
                look.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
