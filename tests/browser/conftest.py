"""A browser for all of these tests, and for each a server with a fake Mixpanel. Run by `make browser`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import Look, chromium
from playwright.sync_api import Browser, expect
from programs import Site, free_port, site

expect.set_options(timeout=20_000)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The browser; without it these tests fail, and say what installs it."""
    with chromium() as started:
        yield started


@pytest.fixture
def look(browser: Browser) -> Iterator[Callable[..., Look]]:
    """Return what opens a page as a person would; at the end nothing may have gone wrong in any."""
    opened: list[Look] = []

    def open_page(url: str, **options: Any) -> Look:
        opened.append(Look(browser, **options))
        opened[-1].page.goto(url)
        return opened[-1]

    yield open_page
    trouble = [text for one in opened for text in one.trouble]
    for one in opened:
        one.close()
    assert trouble == []


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    """A running server that delivers to a fake Mixpanel, at an address that it keeps over a restart."""
    with site(tmp_path, admin_listen=f"127.0.0.1:{free_port()}") as made:
        made.sink()
        made.serve()
        yield made


@pytest.fixture
def url(here: Site) -> str:
    """Where the page is."""
    return here.run("dashboard").stdout.strip()
