"""The disk in memory that the crash images are taken from: what it may forget, and what it must not."""

from __future__ import annotations

import errno
import random
from itertools import pairwise, product

import pytest
from crash_disk import CHOICES, SECTOR, Disk, File, Truncate, Write, broken, works

IMAGES = 200


@pytest.fixture
def disk() -> Disk:
    """A disk with an empty file `f`, whose name is on the medium."""
    disk = Disk(random.Random(1))
    disk.create("f")
    disk.sync_folder()
    return disk


def images(disk: Disk) -> list[Disk]:
    """Many power cuts at this moment."""
    return [disk.image(random.Random(seed)) for seed in range(IMAGES)]


def contents(disk: Disk) -> set[bytes]:
    """What `f` holds after them."""
    return {bytes(image.files["f"].cache) for image in images(disk)}


def write(disk: Disk, data: bytes, offset: int = 0) -> File:
    """Write to `f`."""
    file = disk.files["f"]
    disk.write("f", file, Write(offset, data))
    return file


def test_what_was_synced_is_in_every_image(disk: Disk) -> None:
    """After a sync no power cut takes it away; processes saw it from the first moment."""
    file = write(disk, b"synced")
    assert file.cache == b"synced"
    disk.sync("f", file)
    assert contents(disk) == {b"synced"}


def test_what_was_not_synced_may_be_missing(disk: Disk) -> None:
    """An image has it or not, and an earlier state never has more than what was written."""
    write(disk, b"hope")
    assert {b"", b"hope"} <= contents(disk)


def test_later_writes_may_arrive_without_earlier_ones(disk: Disk) -> None:
    """The order in which the medium gets writes is its own; each of the four combinations is seen."""
    write(disk, b"a" * SECTOR)
    write(disk, b"b" * SECTOR, SECTOR)
    a, b, none = b"a" * SECTOR, b"b" * SECTOR, bytes(SECTOR)
    assert {b"", a, none + b, a + b} <= contents(disk)


def test_writes_are_torn_at_sectors_and_nowhere_else(disk: Disk) -> None:
    """A sector is old or new; a write of several may be there in part, wherever it began."""
    file = write(disk, b"o" * 3 * SECTOR)
    disk.sync("f", file)
    write(disk, b"n" * 2 * SECTOR, SECTOR // 2)
    edges = (0, SECTOR // 2, SECTOR, 2 * SECTOR, 2 * SECTOR + SECTOR // 2, 3 * SECTOR)
    parts = {tuple(frozenset(content[start:end]) for start, end in pairwise(edges)) for content in contents(disk)}
    old, new = frozenset(b"o"), frozenset(b"n")
    assert all(len(part) == 5 and part[0] == part[4] == old for part in parts)
    assert {part[1:4] for part in parts} == set(product([old, new], repeat=3))


def test_any_write_may_be_the_only_one_that_is_missing(disk: Disk) -> None:
    """Of many writes all but one arrive, whichever that is."""
    disk.sync("f", write(disk, bytes(8)))
    for position in range(8):
        write(disk, b"x", position)
    assert {content.find(0) for content in contents(disk) if content.count(0) == 1} == {*range(8)}


def test_a_truncation_is_under_way_like_a_write(disk: Disk) -> None:
    """Before a sync the old end may come back."""
    file = write(disk, b"old and long")
    disk.sync("f", file)
    disk.write("f", file, Truncate(3))
    assert file.cache == b"old"
    assert contents(disk) == {b"old", b"old and long"}


def test_names_come_and_go_with_the_folder(disk: Disk) -> None:
    """A new file may be missing, and a removed one may be back, until the folder is synced."""
    disk.create("new")
    disk.remove("f")
    names = {frozenset(image.files) for image in images(disk)}
    assert names == {frozenset("f"), frozenset({"f", "new"}), frozenset({"new"})}
    disk.sync_folder()
    assert {frozenset(image.files) for image in images(disk)} == {frozenset({"new"})}


def test_a_failed_sync_keeps_the_hole(disk: Disk) -> None:
    """Processes read what the medium lacks, and the next sync succeeds without it, unless it is written again."""
    missing = b"lost" * SECTOR
    file = write(disk, missing)
    disk.refuse = broken("sync")
    with pytest.raises(OSError, match="refused to sync") as failed:
        disk.sync("f", file)
    assert failed.value.errno == errno.EIO
    assert file.cache == missing
    write(disk, b"tail", len(missing))
    disk.sync("f", file)
    (kept,) = contents(disk)
    assert kept.endswith(b"tail")
    assert kept != file.cache
    write(disk, missing)
    disk.sync("f", file)
    assert contents(disk) == {bytes(file.cache)}


def test_a_refused_write_changes_nothing(disk: Disk) -> None:
    """The disk is full for as long as it was told, and works again."""
    disk.refuse = broken("write", 1, after=1, code=errno.ENOSPC)
    file = write(disk, b"one")
    with pytest.raises(OSError, match="refused to write"):
        write(disk, b"two")
    assert file.cache == b"one"
    write(disk, b"two")
    assert file.cache == b"two"
    disk.refuse = works
    write(disk, b"six")
    assert file.cache == b"six"


def test_an_image_is_a_disk_of_its_own(disk: Disk) -> None:
    """What happens to an image changes neither the disk nor another image, and the same seed gives the same image."""
    write(disk, b"one")
    first, second = disk.image(random.Random(2)), disk.image(random.Random(2))
    assert {name: bytes(file.cache) for name, file in first.files.items()} == {
        name: bytes(file.cache) for name, file in second.files.items()
    }
    first.write("f", first.files["f"], Write(0, b"two"))
    assert disk.files["f"].cache == b"one"
    assert second.files["f"].cache != b"two"


def test_every_operation_is_shown(disk: Disk) -> None:
    """Whoever watches can cut the power after each write, and before and after each sync."""
    seen: list[tuple[str, str]] = []
    disk.watch = lambda operation, name: seen.append((operation, name))
    disk.sync("f", write(disk, b"data"))
    assert seen == [("write", "f"), ("sync", "f"), ("synced", "f")]
    assert len(CHOICES) == 7
