"""File systems that a test makes, breaks and takes away again: images on loop devices, and tmpfs of a size. Needs root.

A loop device lives as long as its mount, so unmounting is all the cleaning up there is.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from programs import eventually
from watching import MIB

SHUTDOWN = 0x8004587D
"""FS_IOC_SHUTDOWN of linux/fs.h; ext4 and xfs know it."""
JOURNAL_FLUSHED, NOTHING_FLUSHED = 1, 2
"""Its flags: what still gets to the device. The second is the power cut."""

FREEZE, THAW = 0xC0045877, 0xC0045878
"""FIFREEZE and FITHAW of linux/fs.h."""

NEW_MOUNT_NAMESPACE = 0x00020000
"""CLONE_NEWNS of linux/sched.h."""

AGAIN_S = 0.001
"""How soon somebody who wants more space tries again."""

Kind = Literal["ext4", "xfs"]

_MAKE: dict[Kind, tuple[str, ...]] = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0"),  # -m 0: no blocks kept for root, as nobody else has any
    "xfs": ("mkfs.xfs", "-q", "-f"),
}
SMALLEST_MIB: dict[Kind, int] = {"ext4": 128, "xfs": 320}
"""What is asked for unless a test wants less; mkfs.xfs refuses below 300."""


def mount_for_ourselves() -> None:
    """Give this process and its children mounts of their own, which go with the last of them, however that ends.

    Nobody else's mount namespace can keep one of them alive then.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(NEW_MOUNT_NAMESPACE) == 0, os.strerror(ctypes.get_errno())
    _run("mount", "--make-rprivate", "/")


class FileSystem:
    """A file system at `path`, mounted by this command. `image` is what it is on, unless it is in memory."""

    def __init__(self, path: Path, command: Sequence[str], image: Path | None = None) -> None:
        self.path = path
        self.image = image
        self._command = command

    def mount(self) -> None:
        """Mount it; a journal that was left is replayed by this."""
        self.path.mkdir(exist_ok=True)
        _run(*self._command, str(self.path))
        # A mount that failed leaves an ordinary folder, and the test would write to the machine's own disk.
        assert self.mounted()
        assert not os.statvfs(self.path).f_flag & os.ST_RDONLY, f"{self.path} came back read-only"

    def mounted(self) -> bool:
        """Say whether something is mounted here; os.path.ismount would not see a bind mount."""
        return subprocess.run(["mountpoint", "--quiet", self.path], check=False).returncode == 0

    def unmount(self) -> None:
        """Unmount it. Whoever used it has ended, and the kernel may need a moment to notice."""
        eventually(lambda: subprocess.run(["umount", self.path], check=False).returncode == 0, f"{self.path} is free")
        if self.image is not None:
            # A second holder, another mount namespace say, keeps the file system alive, and the next mount would be of
            # this one again, with its aborted journal.
            eventually(lambda: not _run("losetup", "--associated", str(self.image)), f"nobody else has {self.image}")

    def power_cut(self, flushed: int = NOTHING_FLUSHED) -> None:
        """From now on nothing gets to the device: what it has at this moment is what the next mount finds."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", flushed))
        finally:
            os.close(descriptor)

    def repair(self) -> None:
        """Check an ext4 that is not mounted, and mend what an aborted journal has left."""
        done = subprocess.run(["e2fsck", "-f", "-y", str(self.image)], check=False, capture_output=True, text=True)
        assert done.returncode in {0, 1}, done.stdout  # clean, or mended

    def fail(self) -> None:
        """Turn it read-only under whoever writes, as the kernel does after an error of the device."""
        _run("mount", "-o", "remount,abort", str(self.path))

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let whatever writes to it wait until the end of the block. What is on an image in it stands still."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, FREEZE, 0)
            try:
                yield
            finally:
                fcntl.ioctl(descriptor, THAW, 0)
        finally:
            os.close(descriptor)

    def options(self) -> list[str]:
        """Return how it is mounted, as the kernel tells it."""
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        return next(options.split(",") for _, path, _, options, *_ in reversed(mounts) if path == str(self.path))

    def free_bytes(self) -> int:
        """Return what is left for everybody."""
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def fill(self) -> Path:
        """Take all the space there is, down to the last block, and return the file that holds it."""
        ballast = self.path / "ballast"
        with _appending(ballast) as descriptor:
            _fill(descriptor)
        return ballast

    @contextmanager
    def kept_full(self) -> Iterator[None]:
        """Whatever is given up until the end of the block, take it at once: somebody whose log has run wild."""
        ended = threading.Event()

        def fill() -> None:
            with _appending(self.path / "ballast") as descriptor:
                while not ended.wait(AGAIN_S):
                    _fill(descriptor)

        with ThreadPoolExecutor(1) as others:
            filling = others.submit(fill)
            try:
                yield
            finally:
                ended.set()
                filling.result()


@contextmanager
def loop_mounted(path: Path, kind: Kind, mib: int = 0) -> Iterator[FileSystem]:
    """A file system of its own in an image beside `path`, mounted there for the length of the block."""
    image = path.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate((mib or SMALLEST_MIB[kind]) * MIB)
    _run(*_MAKE[kind], str(image))
    with _mounted(FileSystem(path, ("mount", "-o", "loop", str(image)), image)) as made:
        yield made


@contextmanager
def in_memory(path: Path, mib: int) -> Iterator[FileSystem]:
    """A tmpfs of this size."""
    with _mounted(FileSystem(path, ("mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs"))) as made:
        yield made


@contextmanager
def bound(path: Path, directory: Path) -> Iterator[Path]:
    """The same directory under a second path, as containers with one volume see it."""
    with _mounted(FileSystem(path, ("mount", "--bind", str(directory)))) as made:
        yield made.path


@contextmanager
def _mounted(made: FileSystem) -> Iterator[FileSystem]:
    try:
        made.mount()
        yield made
    finally:
        # Lazily, so that it also goes when the test failed with something still in it; whatever was mounted is gone.
        while made.mounted():
            _run("umount", "--lazy", str(made.path))


@contextmanager
def _appending(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _fill(descriptor: int) -> None:
    for size in (MIB, 4096):
        while _grows(descriptor, size):
            pass


def _grows(descriptor: int, size: int) -> bool:
    try:
        return os.write(descriptor, bytes(size)) == size
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
