"""A disk in memory that can lose its power: what was not synced may be there afterwards, or in part, or not.

    write, truncate   change what processes read at once, and the medium at some later time, or never
    sync              the medium has all that was written to the file before
    create, remove    change the folder's names at once, and the medium's at a sync of the folder, or earlier
    image             the disk after a power cut at this moment: the medium, and any choice of what was under way

A sync that fails does what Linux does (USENIX ATC 2020, "Can Applications Recover from fsync Failures?"): what was
under way is forgotten as if the medium had it, processes go on reading it from memory, and a later sync succeeds
without it. Linux keeps whole pages, so writing a neighbour would repair some of the hole; here nothing does but
writing the very bytes again, which is the worse disk.
"""

from __future__ import annotations

import errno
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

T = TypeVar("T")

SECTOR = 512
"""What the medium writes whole or not at all, in bytes."""


class Write(NamedTuple):
    """Bytes at a place of a file."""

    offset: int
    data: bytes


class Truncate(NamedTuple):
    """The end of a file."""

    size: int


Change = Write | Truncate


@dataclass(slots=True)
class File:
    """One file: what processes read, what the medium has, and what is on its way from one to the other."""

    cache: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)

    def change(self, change: Change) -> None:
        """Write or truncate; the medium does not have it yet."""
        _apply(self.cache, change)
        self.pending.append(change)


Operation = str
"""`write`, `truncate`, `sync`, `synced`, `create`, `remove` or `sync folder`."""


Refuse = Callable[[Operation, str], int]


def works(_operation: Operation, _name: str) -> int:
    """Refuse nothing."""
    return 0


def broken(operation: Operation, times: float = 1, *, after: int = 0, code: int = errno.EIO) -> Refuse:
    """Return what refuses operations of this kind: so many in a row, after so many that it still lets through."""
    count = itertools.count(1)
    return lambda asked, _name: code if asked == operation and after < next(count) <= after + times else 0


class Disk:
    """A folder of files. Every operation is shown to `watch`, after what it wrote and before what it syncs."""

    def __init__(self, chance: random.Random) -> None:
        self.files: dict[str, File] = {}
        """What processes see, by name."""
        self.watch: Callable[[Operation, str], None] = lambda _operation, _name: None
        self.refuse: Refuse = works
        """Says with which `errno` an operation fails; 0 is success. A refused write changes nothing."""
        self._names: dict[str, File] = {}
        self._pending_names: list[tuple[str, File | None]] = []
        self._chance = chance

    def create(self, name: str) -> File:
        """Return the file of this name, which is made if it is missing."""
        if name not in self.files:
            self.files[name] = File()
            self._pending_names.append((name, self.files[name]))
            self.watch("create", name)
        return self.files[name]

    def remove(self, name: str) -> None:
        """Take a name away. The medium may still have it, until the folder is synced."""
        del self.files[name]
        self._pending_names.append((name, None))
        self.watch("remove", name)

    def rename(self, name: str, target: str) -> None:
        """Give a file another name. The medium may know neither of it, until the folder is synced."""
        self.files[target] = self.files.pop(name)
        self._pending_names += [(target, self.files[target]), (name, None)]
        self.watch("rename", name)

    def write(self, name: str, file: File, change: Change) -> None:
        """Change a file.

        Raises:
            OSError: it was refused, and nothing was changed.
        """
        operation = "write" if isinstance(change, Write) else "truncate"
        self._check(operation, name)
        file.change(change)
        self.watch(operation, name)

    def sync(self, name: str, file: File) -> None:
        """Bring a file to the medium.

        Raises:
            OSError: some of it may be there, the rest never will be, and no later sync will tell.
        """
        self.watch("sync", name)
        code = self.refuse("sync", name)
        arrived = _some(file.pending, self._chance) if code else file.pending
        for change in arrived:
            _apply(file.durable, change)
        file.pending = []
        if code:
            raise OSError(code, "the disk refused to sync", name)
        self.watch("synced", name)

    def sync_folder(self) -> None:
        """Bring the names to the medium."""
        self.watch("sync folder", "")
        for name, file in self._pending_names:
            _rename(self._names, name, file)
        self._pending_names = []

    def image(self, chance: random.Random) -> Disk:
        """Return the disk as a power cut at this moment could leave it."""
        choose = chance.choice(CHOICES)
        names = dict(self._names)
        for name, file in _in_order(self._pending_names, chance):
            _rename(names, name, file)
        after = Disk(random.Random(chance.random()))
        for name, file in names.items():
            content = bytearray(file.durable)
            for change in choose(file.pending, chance):
                _apply(content, change)
            after.files[name] = File(content, bytearray(content))
        after._names = dict(after.files)
        return after

    def _check(self, operation: Operation, name: str) -> None:
        code = self.refuse(operation, name)
        if code:
            raise OSError(code, f"the disk refused to {operation}", name)


def _apply(content: bytearray, change: Change) -> None:
    if isinstance(change, Truncate):
        del content[change.size :]
        content.extend(bytes(change.size - len(content)))
        return
    end = change.offset + len(change.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[change.offset : end] = change.data


def _rename(names: dict[str, File], name: str, file: File | None) -> None:
    if file is None:
        names.pop(name, None)
    else:
        names[name] = file


def _nothing(_pending: Sequence[Change], _chance: random.Random) -> list[Change]:
    return []


def _everything(pending: Sequence[Change], _chance: random.Random) -> list[Change]:
    return [*pending]


def _beginning(pending: Sequence[Change], chance: random.Random) -> list[Change]:
    """What was first, up to some change that may be torn."""
    arrived = [*_in_order(pending, chance)]
    return [*arrived[:-1], *(part for last in arrived[-1:] for part in _torn(last, chance))]


def _some(pending: Sequence[Change], chance: random.Random) -> list[Change]:
    """Any of it, in any order, some of it torn."""
    share = chance.random()
    arrived = [change for change in pending if chance.random() < share]
    chance.shuffle(arrived)
    return [part for change in arrived for part in (_torn(change, chance) if chance.random() < 0.3 else [change])]


def _all_but_one(pending: Sequence[Change], chance: random.Random) -> list[Change]:
    missing = chance.randint(1, max(1, len(pending)))
    return [change for number, change in enumerate(pending, 1) if number != missing]


CHOICES = (_nothing, _everything, _beginning, _all_but_one, _some, _some, _some)
"""What of the pending changes reached the medium; the last is the hardest, so it is taken most often."""


def _in_order(pending: Sequence[T], chance: random.Random) -> Sequence[T]:
    return pending[: chance.randint(0, len(pending))]


def _torn(change: Change, chance: random.Random) -> list[Change]:
    """Return the sectors of a write that reached the medium; a truncation is whole or not at all."""
    if isinstance(change, Truncate):
        return [change]
    parts: list[Change] = []
    start = 0
    while start < len(change.data):
        length = SECTOR - (change.offset + start) % SECTOR
        if chance.random() < 0.5:
            parts.append(Write(change.offset + start, change.data[start : start + length]))
        start += length
    return parts
