"""Debian's Chromium without a window, for tests that look at a page as a person does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --disable-dev-shm-usage"
).split()

WIDE, NARROW = (1280, 900), (360, 740)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser, with an empty profile that is deleted at the end."""
    if not CHROMIUM.exists():
        raise AssertionError(f"{CHROMIUM} is missing; as root on Debian, tests/browser/tools.sh installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Look:
    """One person's look at pages: a profile of its own, and a list of everything that went wrong in it."""

    def __init__(
        self, browser: Browser, *, size: tuple[int, int] = WIDE, dark: bool = False, script: bool = True
    ) -> None:
        self.trouble: list[str] = []
        """Errors and warnings on the console, uncaught exceptions, what the policy forbade, and requests elsewhere."""
        self._context: BrowserContext = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            java_script_enabled=script,
            locale="en-GB",
        )
        self._context.set_default_timeout(15_000)
        self.page: Page = self._context.new_page()
        self.page.on("console", lambda m: self.trouble.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("request", self._asked)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:")):
            self.trouble.append(f"asked for {request.url}")

    def storage(self) -> dict[str, object]:
        """Return what outlives the tab: cookies and local storage."""
        return dict(self._context.storage_state())

    def close(self) -> None:
        """Close the page."""
        self._context.close()


def refusing(path: Path, *reasons: str) -> Path:
    """Write a script for the fake Mixpanel, which refuses the first events of its first request for these reasons."""
    failed = [
        {"index": index, "field": field, "message": message}
        for index, (field, _, message) in enumerate(reason.partition(": ") for reason in reasons)
    ]
    body = {"code": 400, "error": "some data points in the request failed validation", "failed_records": failed}
    path.write_text(json.dumps([{"fault": "status", "status": 400, "body": body}]))
    return path
