"""Faults under a program that runs: at the calls by which it writes, syncs and answers, and on its wall clock.

    shim = Shim(tmp_path, text="events.db")
    server = here.serve(entry=shim.entry(WALBATCH, "serve"))
    shim.fail(errno.EIO, SYNC)            # the next fsync fails, and no other one
    eventually(lambda: shim.hit, "it was hit")
    shim.disarm()

A fault is armed and taken back while the program runs. Calls are counted from the moment at which it is armed.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

SOURCE = Path(__file__).with_suffix(".c")

WRITE, SYNC, TRUNCATE, UNLINK, CREATE, SEND = KINDS = ("write", "fsync", "ftruncate", "unlink", "create", "answer")
"""Calls on files: write and pwrite, fsync and fdatasync, ... and `open` with O_CREAT; sendmsg on a TCP socket."""

CHANGES: Final = (WRITE, SYNC, TRUNCATE, UNLINK, CREATE)
"""All that change files."""

BEFORE, MIDDLE, AFTER = WHENS = ("before", "middle", "after")
"""When in a call. In the middle half of a write is done; calls that have no halves are not done at all."""

FOR_EVER = 0
"""As a number of times."""

_MODES: Final = {name: number for number, name in enumerate(("nothing", "kill", "fail", "delay", "hang", "lie"))}
# As `struct control` in faultshim.c: each field 8 bytes.
_FIELDS: Final = (
    *("mode", "kinds", "at", "times", "when", "argument", "seen", "hit", "waiting", "last", "clock_ns", "port"),
    *KINDS,
)
_TEXT_BYTES = 256
_TEXT_AT = 8 * len(_FIELDS)
_LAST_AT = _TEXT_AT + _TEXT_BYTES
_NOTE_AT = _LAST_AT + _TEXT_BYTES
_NOTE_BYTES = 64
_SIZE = _NOTE_AT + _NOTE_BYTES
_CONTROL = "FAULTSHIM_CONTROL"


class NoCompiler(Exception):
    """There is no C compiler, and these tests are not left out for that: install one."""


def compiled(directory: Path) -> Path:
    """Return the library, made from its source in a directory.

    Raises:
        NoCompiler: as it says.
    """
    library = directory / "faultshim.so"
    compiler = shutil.which("cc")
    if compiler is None:
        raise NoCompiler(
            "the crash tests need a C compiler named cc, to break calls under the program;"
            " install one (Debian: apt-get install gcc libc6-dev)"
        )
    made = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(library), str(SOURCE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return library


def noting() -> Callable[[str], None]:
    """Return what notes, for the test to see, what the program that runs under a shim is doing: a few letters."""
    memory = _mapped(Path(os.environ[_CONTROL]))

    def note(text: str) -> None:
        memory[_NOTE_AT:_SIZE] = text.encode()[: _NOTE_BYTES - 1].ljust(_NOTE_BYTES, b"\0")

    return note


def _mapped(path: Path) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR)
    try:
        return mmap.mmap(descriptor, _SIZE)
    finally:
        os.close(descriptor)


class Shim:
    """One program's faults. Only calls on files whose path contains `text` count, and answers from `port`."""

    def __init__(self, directory: Path, *, text: str = "events.db", port: int = 0) -> None:
        self._library = compiled(directory)
        self._path = directory / "faultshim.control"
        self._path.write_bytes(bytes(_SIZE))
        self._memory = _mapped(self._path)
        encoded = text.encode()
        assert 0 < len(encoded) < _TEXT_BYTES
        self._memory[_TEXT_AT : _TEXT_AT + len(encoded)] = encoded
        self._set("port", port)

    @property
    def environment(self) -> dict[str, str]:
        """What makes a program run under the faults. Programs that it starts do so too."""
        return {"LD_PRELOAD": str(self._library), _CONTROL: str(self._path)}

    def entry(self, *command: str) -> tuple[str, ...]:
        """Return a command that runs another one under the faults, in the same process."""
        return ("env", *(f"{name}={value}" for name, value in self.environment.items()), *command)

    def kill(self, at: int = 1, *kinds: str, when: str = BEFORE) -> None:
        """End the program with SIGKILL at its so-and-so-many-th call from now on."""
        self._arm("kill", kinds or CHANGES, at=at, times=1, when=when)

    def fail(self, error: int, *kinds: str, at: int = 1, times: int = 1, when: str = BEFORE) -> None:
        """Answer so many calls with an errno instead of doing them, or after half of the bytes, or after all."""
        self._arm("fail", kinds, at=at, times=times, when=when, argument=error)

    def delay(self, delay_s: float, *kinds: str) -> None:
        """Make every call wait before it is done."""
        self._arm("delay", kinds, argument=round(delay_s * 1000))

    def hang(self, *kinds: str, at: int = 1) -> None:
        """Let calls wait until another fault is armed, or none."""
        self._arm("hang", kinds, at=at)

    def lie(self, *kinds: str) -> None:
        """Answer that calls were done, and do nothing."""
        self._arm("lie", kinds)

    def disarm(self) -> None:
        """Let every call through from now on, also those that hang."""
        self._set("mode", 0)

    def set_clock(self, offset_s: float) -> None:
        """Put the wall clock ahead by so much, or behind if it is negative. The monotonic clock goes on as before."""
        self._set("clock_ns", round(offset_s * 1_000_000_000))

    @property
    def seen(self) -> int:
        """How many calls of the armed kinds there were since then."""
        return self._get("seen")

    @property
    def hit(self) -> int:
        """How many of them were hit."""
        return self._get("hit")

    @property
    def waiting(self) -> int:
        """How many calls hang, or are delayed, at this moment."""
        return self._get("waiting")

    @property
    def last(self) -> tuple[str, str]:
        """The kind of the call that was hit last, and the name of its file."""
        return KINDS[self._get("last")], Path(self._text(_LAST_AT, _TEXT_BYTES)).name

    @property
    def noted(self) -> str:
        """What the program noted last of what it is doing."""
        return self._text(_NOTE_AT, _NOTE_BYTES)

    def calls(self, kind: str) -> int:
        """Return how many calls of a kind there were since the beginning, hit or not."""
        return self._get(kind)

    def _arm(
        self,
        mode: str,
        kinds: tuple[str, ...],
        *,
        at: int = 1,
        times: int = FOR_EVER,
        when: str = BEFORE,
        argument: int = 0,
    ) -> None:
        assert kinds, "name the kinds of calls"
        assert at >= 1, "calls are counted from 1"
        self._set("mode", 0)
        self._set("kinds", sum(1 << KINDS.index(kind) for kind in kinds))
        self._set("at", at)
        self._set("times", times)
        self._set("when", WHENS.index(when))
        self._set("argument", argument)
        self._set("seen", 0)
        self._set("hit", 0)
        self._set("mode", _MODES[mode])  # last: from here on it counts

    def _text(self, at: int, size: int) -> str:
        return self._memory[at : at + size].split(b"\0")[0].decode()

    def _get(self, name: str) -> int:
        (value,) = struct.unpack_from("<q", self._memory, 8 * _FIELDS.index(name))
        assert isinstance(value, int)
        return value

    def _set(self, name: str, value: int) -> None:
        struct.pack_into("<q", self._memory, 8 * _FIELDS.index(name), value)
