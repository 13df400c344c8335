"""Zero what SQLite leaves behind when it moves rows between pages, which `secure_delete` does not reach.

A page of a table grows from both ends: pointers at its beginning, rows at its end, and a gap between. When SQLite
rebuilds a page because rows went to a neighbour, their bytes stay in the gap, where no later deletion finds them
(https://sqlite.org/fileformat2.html#b_tree_pages for the format). No statement cleans it up but VACUUM, which would
hold up everybody and needs the whole database once more.

So the gaps are zeroed in the file itself. That is safe only while SQLite's log is empty and the caller holds the write
lock: then the file is all there is, and nobody writes to it. A gap means nothing to SQLite, so neither a reader nor a
crash in the middle can see a difference. Afterwards the writer must forget its cached pages, or it would write the old
gaps again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from walbatch.errors import WalbatchError

_INNER, _LEAVES = frozenset({2, 5}), frozenset({10, 13})
_CHUNK_PAGES = 256
_LOCK_BYTE = 2**30
"""The page with this byte is never used."""

MAX_PAGES = 2**25
"""Below this the first byte of a page says whether it is one of a table: those of long rows begin with the number of
the next page, whose first byte is 0 or 1. With pages of 4 KiB it is 128 GiB."""

_WAL_HEADER, _FRAME_HEADER = 32, 24


class TooLarge(WalbatchError):
    """There are more pages than can be told apart. Only VACUUM, while nothing else has the database open, helps."""


class Layout(NamedTuple):
    """What the header of a database says about its pages, in bytes."""

    page: int
    usable: int
    mapped: bool
    """Whether there are pages that say what the others are (auto_vacuum)."""


def layout(descriptor: int) -> Layout:
    """Read the header."""
    header = os.pread(descriptor, 100, 0)
    page = int.from_bytes(header[16:18])
    page = 2**16 if page == 1 else page
    return Layout(page, page - header[20], int.from_bytes(header[52:56]) != 0)


def find(descriptor: int) -> list[int]:
    """Return the pages of a database whose gaps are not zero. Reads all of the file, which nobody may write meanwhile.

    Raises:
        TooLarge: as it says; nothing was changed.
    """
    form = layout(descriptor)
    count = os.fstat(descriptor).st_size // form.page
    if count >= MAX_PAGES:
        raise TooLarge(
            f"the records are deleted, but a database of {count:,} pages is too large to scrub, so its file may keep"
            " old bytes: stop the server, and run `sqlite3 events.db 'PRAGMA secure_delete=1; VACUUM'`"
        )
    found = []
    for first in range(1, count + 1, _CHUNK_PAGES):
        chunk = os.pread(descriptor, _CHUNK_PAGES * form.page, (first - 1) * form.page)
        for place in range(len(chunk) // form.page):
            page = chunk[place * form.page : (place + 1) * form.page]
            if _unclean(page, first + place, form):
                found.append(first + place)
    return found


def clean(descriptor: int, numbers: Iterable[int]) -> int:
    """Zero the gaps of these pages, durably, and return how many had to be. See the module for when that is safe."""
    form = layout(descriptor)
    cleaned = 0
    for number in sorted(set(numbers)):
        start = (number - 1) * form.page
        page = os.pread(descriptor, form.page, start)
        if len(page) == form.page and (gap := _unclean(page, number, form)):
            os.pwrite(descriptor, bytes(len(gap)), start + gap.start)
            cleaned += 1
    if cleaned:
        os.fsync(descriptor)
    return cleaned


def pages_in(wal: Path, page_bytes: int) -> Iterator[int]:
    """Yield the numbers of the pages that are in SQLite's log."""
    with wal.open("rb") as file:  # SQLite has no locks on this file that closing it could drop
        position, end = _WAL_HEADER, wal.stat().st_size
        while position < end:
            file.seek(position)
            yield int.from_bytes(file.read(4))
            position += _FRAME_HEADER + page_bytes


def _unclean(page: bytes, number: int, form: Layout) -> range | None:
    """Return where the gap of a table's page is, if it is not zero; None for any other page."""
    begin = 100 if number == 1 else 0
    kind = page[begin]
    if kind not in _INNER and kind not in _LEAVES:
        return None
    if form.mapped and _is_map(number, form):
        return None
    cells = int.from_bytes(page[begin + 3 : begin + 5])
    start = begin + (12 if kind in _INNER else 8) + 2 * cells
    end = int.from_bytes(page[begin + 5 : begin + 7]) or 2**16
    return range(start, end) if start < end <= form.usable and page.count(0, start, end) != end - start else None


def _is_map(number: int, form: Layout) -> bool:
    """Say whether a page is one of those that say what the others are: the second one, and then at equal distances."""
    distance = form.usable // 5 + 1
    lock = _LOCK_BYTE // form.page + 1
    place = (number - 2) // distance * distance + 2
    return number >= 2 and number == (place + 1 if place == lock else place)  # noqa: PLR2004
