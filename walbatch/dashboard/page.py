"""The files of the page, and the page with the numbers of a moment already in it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import NamedTuple

TYPES = {".css": "text/css", ".js": "text/javascript"}


class File(NamedTuple):
    """What is served under a name."""

    content: bytes
    media_type: str


@cache
def static() -> dict[str, File]:
    """Return the files beside the page by their names. No other name leads anywhere."""
    folder = files("walbatch.dashboard") / "static"
    return {
        file.name: File(file.read_bytes(), media_type)
        for file in folder.iterdir()
        for suffix, media_type in TYPES.items()
        if file.name.endswith(suffix)
    }


@cache
def _template() -> Template:
    return Template((files("walbatch.dashboard") / "static" / "page.html").read_text(encoding="utf-8"))


def render(texts: Mapping[str, str]) -> str:
    """Return the page with these texts in it."""
    return _template().substitute({name: escape(text) for name, text in texts.items()})
