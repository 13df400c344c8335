"""Find damage in a write-ahead log that SQLite passes over in silence.

SQLite reads a -wal up to the first frame whose checksum is wrong, and takes what is left for a write that a crash cut
short: nothing of it was acknowledged. A byte that went bad in the middle looks the same to it, and everything behind
that byte would be gone. So the rest is looked at once more (https://sqlite.org/fileformat2.html section 4):

    frame     1 ... 7   8        9   10 commit   11 ...
              valid     broken   linked          linked

A frame is linked if its checksum follows from the one that is stored in the frame before it, whatever that frame's
content is now. Each commit is fsynced before the next one is written. So if a linked frame comes after a linked commit
behind the broken one, the broken one had been on the disk, and went bad later. In the last transaction, and in the
commit frame of the last but one, damage cannot be told from a write that was cut short.

If the header is broken SQLite ignores the whole file. That is right where a restart of the log was cut short, because
all of it had been taken over into the database before; else there is a page in it that the database does not have.

The caller owns the directory, and no connection is open. About 30 ms for each MiB.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_HEADER = struct.Struct(">IIII8s8s")
_FRAME = struct.Struct(">II8s8s")
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
_VERSION = 3007000
_NATIVE = "<" if sys.byteorder == "little" else ">"
_WORD = 0xFFFFFFFF

Sum = tuple[int, int]
_ZERO: Sum = (0, 0)


def is_readable(wal: Path) -> bool:
    """Say whether SQLite reads this file; if not, it ignores it. It does not look at a header without a frame."""
    if not wal.exists() or wal.stat().st_size <= _HEADER.size:
        return False
    with wal.open("rb") as file:
        return _is_valid(file.read(_HEADER.size))


def damage(wal: Path, database: Path) -> str | None:
    """Say what was durable and would be ignored; None if SQLite loses nothing by ignoring what it ignores."""
    with wal.open("rb") as file:
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size:
            return None
        magic, _, page_size, _, salt, stored = _HEADER.unpack(head)
        order = _MAGIC.get(magic, _NATIVE)
        if _is_valid(head):
            return _after_a_break(_linked(file, page_size, order, _stored(stored), salt))
        page_size = _page_size(database)
        pages = _newest_pages(_linked(file, page_size, order)) if page_size else {}
    with database.open("rb") as file:
        for number, page in pages.items():
            file.seek((number - 1) * page_size)
            if file.read(page_size) != page:
                return "the header of its -wal is broken, and the -wal has pages that the database does not have"
    return None


def _is_valid(head: bytes) -> bool:
    if len(head) < _HEADER.size:
        return False
    magic, version, _, _, _, stored = _HEADER.unpack(head)
    return magic in _MAGIC and version == _VERSION and _add(_MAGIC[magic], head[:24], _ZERO) == _stored(stored)


@dataclass(frozen=True, slots=True)
class _Frame:
    number: int
    page: int
    size_after: int
    """The database's size in pages if this frame is a commit, else 0."""
    content: bytes
    linked: bool


def _linked(
    file: BinaryIO, page_size: int, order: str, before: Sum | None = None, salt: bytes | None = None
) -> Iterator[_Frame]:
    """Yield every frame. `before` is the checksum that the first follows from; `salt` is that of what is not stale."""
    number = 0
    former = salt
    while len(raw := file.read(_FRAME.size + page_size)) == _FRAME.size + page_size:
        number += 1
        page, size_after, own, stored = _FRAME.unpack_from(raw)
        checksum = _stored(stored)
        content = raw[_FRAME.size :]
        follows = page > 0 and own == former and before is not None
        linked = follows and _add(order, content, _add(order, raw[:8], before or _ZERO)) == checksum
        yield _Frame(number, page, size_after, content, linked)
        before, former = checksum, salt or own


def _after_a_break(frames: Iterator[_Frame]) -> str | None:
    broken = 0
    committed = False
    for frame in frames:
        if not broken and not frame.linked:
            broken = frame.number
        elif broken and frame.linked and committed:
            return f"frame {broken} of its -wal is broken, and commits follow it"
        elif broken:
            committed = frame.linked and frame.size_after > 0
    return None


def _newest_pages(frames: Iterator[_Frame]) -> dict[int, bytes]:
    """Return what the first chain of linked frames has committed, by page number."""
    first: _Frame | None = None
    committed: dict[int, bytes] = {}
    written: dict[int, bytes] = {}
    chained = False
    for frame in frames:
        if not frame.linked:
            if chained:
                break
            first, written, committed = frame, {}, {}
        chained = frame.linked
        written[frame.page] = frame.content
        if frame.size_after:
            committed = {page: content for page, content in (committed | written).items() if page <= frame.size_after}
            written = {}
    return committed if chained or (first is not None and first.number == 1 and first.page > 0) else {}


def _page_size(database: Path) -> int:
    with database.open("rb") as file:
        size = int.from_bytes(file.read(18)[16:18], "big")
    return 65536 if size == 1 else size


def _stored(raw: bytes) -> Sum:
    one, two = struct.unpack(">II", raw)
    return one, two


def _add(order: str, raw: bytes, checksum: Sum) -> Sum:
    """Return SQLite's checksum over whole pairs of words, going on from another."""
    one, two = checksum
    for first, second in struct.iter_unpack(f"{order}II", raw):
        one = (one + first + two) & _WORD
        two = (two + second + one) & _WORD
    return one, two
