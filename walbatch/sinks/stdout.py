"""The sink for a first look and for tests: what would be sent is printed instead."""

from __future__ import annotations

import asyncio
import errno
import io
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self

from walbatch.delivery import DELIVERED, Answer, Hold, Settled
from walbatch.event import Kind
from walbatch.sinks.lines import as_lines


class StdoutSink:
    """Writes each record as one JSON line, `{"endpoint":"/import","record":{...}}`, and flushes.

    As with any pipe, a reader that stops reading stops delivery; nothing else waits for it.
    """

    def __init__(self, stream: Any = None) -> None:
        """Write to a text or binary stream; without one, to standard output."""
        self._stream = sys.stdout if stream is None else stream
        self._writing = threading.Lock()

    async def __aenter__(self) -> Self:
        """Do nothing: the stream is open."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Leave the stream open for its owner."""

    async def send(self, kind: Kind, payloads: Sequence[str]) -> Answer:
        """Print records; see `walbatch.sinks.Sink`. A reader that has gone is a `Hold`."""
        try:
            await _in_daemon_thread(self._write, as_lines(kind, payloads))
        except OSError as error:
            return Hold(f"cannot write to the output: {error.strerror}")
        except ValueError:
            return Hold("cannot write to the output: it is closed")
        return Settled([DELIVERED] * len(payloads), "written")

    def _write(self, lines: str) -> None:
        # Under a text stream lie the bytes: payloads are UTF-8, whatever the locale says.
        stream = getattr(self._stream, "buffer", self._stream)
        with self._writing:
            if isinstance(stream, io.TextIOBase):
                stream.write(lines)
            else:
                _write_all(stream, lines.encode())
            stream.flush()


async def _in_daemon_thread(function: Callable[[str], None], argument: str) -> None:
    """Run a function in a thread that does not hold up the end of the process: a reader may never read on."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error = None
        try:
            function(argument)
        except Exception as caught:  # noqa: BLE001  it is raised again where it is waited for
            error = caught
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(finish, error)

    threading.Thread(target=run, name="stdout", daemon=True).start()
    await done


def _write_all(stream: Any, data: bytes) -> None:
    """Write to a stream that may take a part only, as standard output does under PYTHONUNBUFFERED."""
    rest = memoryview(data)
    while rest:
        written = stream.write(rest)
        if written is None:
            raise BlockingIOError(errno.EAGAIN, "its reader is behind")
        rest = rest[written:]
