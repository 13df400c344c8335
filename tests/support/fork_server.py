"""Starts servers at once: everything is imported here, and each server is a fork of this process.

    fork_server.py [VARIANT]     a module whose `install` makes the servers break a promise

Each line on stdin asks for something, and is answered by a line on stdout:
    start        -> the pid of a new server: `walbatch.service.serve` with the settings of the environment
    wait SECONDS -> how it ended, as of `os.waitstatus_to_exitcode`; it is killed if that takes longer
A server notes for the test what it is doing: `start-up`, what its transaction has in it, `serving`, `shutdown`.
"""

from __future__ import annotations

import ctypes
import os
import random
import select
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module

import uvloop
from faultshim import noting

from walbatch.errors import WalbatchError
from walbatch.logs import configure
from walbatch.service import StopSignal, serve
from walbatch.settings import Settings, load
from walbatch.wal import Lane, disk
from walbatch.wal.driver import Connection
from walbatch.wal.sqlite import SqliteLog
from walbatch.wal.transaction import Transaction

CHECKPOINT_BYTES = 160 * 1024
PR_SET_PDEATHSIG = 1


def main(variant: str | None) -> None:
    """Serve the test until it closes stdin."""
    if variant is not None:
        import_module(variant).install()
    # So that kills fall into checkpoints as well: there are some in each second.
    disk.CHECKPOINT_BYTES = CHECKPOINT_BYTES
    note = noting()
    _note_what_is_done(note)
    settings = load(need_destination=True)
    pid = 0
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "start":
            pid = os.fork()
            if pid == 0:
                _serve(settings, note)
            print(pid, flush=True)
        else:
            print(_end_of(pid, float(argument)), flush=True)


def _serve(settings: Settings, note: Callable[[str], None]) -> None:
    """Be a server until the end of the process. Never returns."""
    code = 70
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # so that none outlives the test
        note("start-up")
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        random.seed()
        configure(settings.log_format, settings.log_level)
        os.umask(0o077)
        uvloop.run(serve(settings, StopSignal()))
        code = 0
    except WalbatchError as error:
        print(error, file=sys.stderr, flush=True)
        code = error.exit_code
    finally:
        os._exit(code)


def _end_of(pid: int, limit_s: float) -> int:
    descriptor = os.pidfd_open(pid)
    try:
        ended, _, _ = select.select([descriptor], [], [], limit_s)
        if not ended:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(descriptor)
    return os.waitstatus_to_exitcode(status)


def _note_what_is_done(note: Callable[[str], None]) -> None:
    """Note what each transaction has in it, and when the end begins. Nothing else of the program changes."""
    run, close = Transaction.run, SqliteLog._close
    between = "serving"

    def noted_run(self: Transaction, connection: Connection, lanes: Iterable[Lane], bits: Mapping[str, int]) -> None:
        parts = {"append": self.records, "settle": self.settlements, "purge": self.purges}
        note("+".join(name for name, what in parts.items() if what) or "other")
        run(self, connection, lanes, bits)
        note(between)

    async def noted_close(self: SqliteLog) -> None:
        nonlocal between
        between = "shutdown"
        note(between)
        await close(self)

    Transaction.run = noted_run  # type: ignore[method-assign]
    SqliteLog._close = noted_close  # type: ignore[method-assign]


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
