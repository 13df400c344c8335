"""`walbatch send`: from the shell, from files and from other programs into the log."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import DataDir, Json, local_settings
from .selecting import duration_s
from .table import animated

if TYPE_CHECKING:
    from walbatch.pb.analytics.v1 import service_pb2 as pb

    from .client import Ack
    from .intake import Batch, Refusal

PARTLY = 3
"""Exit code when some of the records were refused."""

CHUNK_BYTES = 64 * 1024

PAUSE_S = 0.1
"""How long the input may be silent before what came so far is sent: `tail -f app.ndjson | walbatch send` keeps up."""

_MEANING = {
    "fsynced": "on disk (fsynced)",
    "replicated": "on the disks of several machines (replicated)",
    "buffered": "in memory only (buffered)",
}

File = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", show_default=False, help="One JSON object a line; - is standard input."),
]
Name = Annotated[str | None, typer.Option(metavar="NAME", help="Send one event of this name.", show_default=False)]
Id = Annotated[str | None, typer.Option(metavar="ID", show_default=False, help="The event's field of this name.")]
EventId = Annotated[str | None, typer.Option(metavar="ID", show_default=False, help="Idempotency key; else a new one.")]
Ip = Annotated[str | None, typer.Option(metavar="IP", show_default=False, help="The user's address, for geolocation.")]
Pairs = Annotated[
    list[str] | None,
    typer.Option("--property", "-p", metavar="KEY=VALUE", show_default=False, help="Value is JSON, or else text."),
]
Object = Annotated[str | None, typer.Option(metavar="JSON", show_default=False, help="Properties as a JSON object.")]
Time = Annotated[
    str | None,
    typer.Option("--time", metavar="TIME", show_default=False, help="2h (ago), 2026-11-23, or RFC 3339; else now."),
]
To = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", show_default=False, help="The server; else the data directory's, or the settings'."
    ),
]
RetryFor = Annotated[str, typer.Option(metavar="DURATION", help="How long to repeat a call that fails.")]


def send(
    file: File = None,
    event: Name = None,
    distinct_id: Id = None,
    pairs: Pairs = None,
    properties: Object = None,
    event_id: EventId = None,
    event_time: Time = None,
    user_id: Id = None,
    device_id: Id = None,
    ip: Ip = None,
    to: To = None,
    retry_for: RetryFor = "30s",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Send one event, or a file of records, and return when they are stored.

    A line of the file is what Mixpanel takes: an event {"event": "Signed Up", "properties": {"distinct_id": "u1",
    ...}}, also $identify, $create_alias and $merge; a profile update {"$distinct_id": "u1", "$set": {...}}, or a group
    update {"$group_key": "company", "$group_id": "acme", "$set": {...}}, with any one operation. Exit code: 0 all are
    stored, 1 none or not all could be sent, 3 some were refused, 4 no server.

    Examples:
        walbatch send --event Signup --distinct-id user-1 --property plan=pro
        walbatch send events.ndjson
        tail -f app.ndjson | walbatch send -
    """
    fields = {
        "distinct_id": distinct_id,
        "$insert_id": event_id,
        "$user_id": user_id,
        "$device_id": device_id,
        "ip": ip,
    }
    shape = _properties(pairs or [], properties) | {key: value for key, value in fields.items() if value is not None}
    _check_usage(file, event, alone=bool(shape or event_time))
    time_ms, retry_for_s = _time_ms(event_time), duration_s("--retry-for", retry_for)
    target = _target(to, data_dir)
    tally = Tally()
    if event is None:
        with _opened(file) as source, _summary(tally, as_json=as_json):
            _send_lines(source, target, retry_for_s, tally)
    else:
        with _summary(tally, as_json=as_json):
            _send_one({"event": event, "properties": shape}, time_ms, target, retry_for_s, tally)
    if tally.refused:
        raise typer.Exit(PARTLY if tally.accepted + tally.duplicates else 1)


@dataclass(slots=True)
class Tally:
    """What is known so far."""

    accepted: int = 0
    duplicates: int = 0
    refused: int = 0
    durability: str | None = None
    resume_at_line: int | None = None
    """The first line of which nothing is known; None if there is none."""

    def add(self, ack: Ack) -> None:
        """Count one answer."""
        self.accepted += ack.accepted
        self.duplicates += ack.duplicates
        self.refused += len(ack.refusals)
        self.durability = ack.durability or self.durability


@contextmanager
def _summary(tally: Tally, *, as_json: bool) -> Iterator[None]:
    """Write the summary at the end, whatever the end is."""
    try:
        yield
    finally:
        text = f"{tally.accepted} accepted, {tally.duplicates} duplicates, {tally.refused} refused"
        if tally.durability:
            text += f"; {_MEANING.get(tally.durability, tally.durability)}"
        typer.echo(text, err=True)
        if as_json:
            typer.echo(json.dumps(asdict(tally)))


def _send_one(shape: dict[str, Any], time_ms: int | None, target: str, retry_for_s: float, tally: Tally) -> None:
    from walbatch.errors import InvalidRecord
    from walbatch.shapes import shaped

    from .client import Ack, Client, Failed
    from .intake import Refusal

    try:
        event: pb.Event = shaped(shape).event
        if time_ms is not None:
            event.event_time.FromMilliseconds(time_ms)
        with Client(target, retry_for_s) as client:
            ack = client.track(event)
    except InvalidRecord as error:
        ack = Ack(refusals=(Refusal(0, error.field, error.reason, error.description),))
        typer.echo(_describe(ack.refusals[0]), err=True)
    except Failed as error:
        again = f"send it again with --event-id {event.event_id}, and it is stored once"
        raise type(error)(f"{error}; {again}") from None
    tally.add(ack)


def _send_lines(source: int, target: str, retry_for_s: float, tally: Tally) -> None:
    from .client import Client, Failed
    from .intake import batches, split_lines

    tally.resume_at_line = 1
    try:
        with _progress(source) as report, Client(target, retry_for_s) as client:
            for batch, ack in client.ingest(batches(split_lines(_chunks(source)))):
                tally.add(ack)
                tally.resume_at_line = batch.last_line + 1
                report(batch, ack, tally)
    except Failed as error:
        raise type(error)(f"{error}; {_position(tally.resume_at_line)}") from None
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {_position(tally.resume_at_line)}", err=True)
        raise
    tally.resume_at_line = None


def _position(line: int) -> str:
    return (
        f"{line - 1} lines are acknowledged: resume at line {line} "
        "(what has an $insert_id is stored once, however often it is sent)"
    )


@contextmanager
def _opened(file: Path | None) -> Iterator[int]:
    """Yield the descriptor to read from."""
    if file is None or str(file) == "-":
        yield sys.stdin.fileno()
    else:
        try:
            source = file.open("rb", buffering=0)
        except OSError as error:
            raise typer.BadParameter(f"{file}: {error.strerror}") from error
        with source:
            yield source.fileno()


def _chunks(source: int) -> Iterator[bytes | None]:
    """Yield what is there to be read, and None when there has been nothing for a while."""
    while True:
        if not select.select([source], [], [], PAUSE_S)[0]:
            yield None
        elif chunk := os.read(source, CHUNK_BYTES):
            yield chunk
        else:
            return


@contextmanager
def _progress(source: int) -> Iterator[Callable[[Batch, Ack, Tally], None]]:
    """Yield what is to be called after each answer: it writes the refusals and, on a terminal, moves a bar."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    # The console's own idea of a terminal can be overruled by the environment.
    with Progress(console=console, disable=not animated()) as progress:
        task = progress.add_task("sending", total=os.fstat(source).st_size or None)

        def report(batch: Batch, ack: Ack, tally: Tally) -> None:
            for refusal in ack.refusals:
                console.print(_describe(refusal), markup=False, emoji=False, highlight=False, soft_wrap=True)
            progress.update(task, advance=batch.source_bytes, description=f"{tally.accepted} accepted")

        yield report


def _describe(refusal: Refusal) -> str:
    where = [f"line {refusal.line}"] * bool(refusal.line) + [refusal.field] * bool(refusal.field)
    text = ": ".join([*where, f"{refusal.description} ({refusal.reason})"])
    # A field's name can be anything, such as a code that repaints the terminal.
    return "".join(char if char.isprintable() else "?" for char in text)


def _check_usage(file: Path | None, event: str | None, *, alone: bool) -> None:
    if event is None and alone:
        raise typer.BadParameter("these options describe one event: name it with --event NAME")
    if event is not None and file is not None:
        raise typer.BadParameter("give either --event or FILE")
    if event is None and file is None and sys.stdin.isatty():
        raise typer.BadParameter("there is nothing to send: give --event NAME, or FILE, or pipe lines into it")


def _properties(pairs: list[str], text: str | None) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    if text is not None:
        found = _json_or(None, text)
        if not isinstance(found, dict):
            raise typer.BadParameter("""--properties: is not a JSON object; write '{"plan": "pro"}'""")
        properties = found
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter("--property: has no =; write plan=pro")
        properties[key] = _json_or(value, value)
    return properties


def _json_or(default: str | None, text: str) -> Any:
    import orjson

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return default


def _time_ms(text: str | None) -> int | None:
    from walbatch.units import parse_time_ms

    if text is None:
        return None
    try:
        return parse_time_ms(text, time.time_ns() // 1_000_000)
    except ValueError as error:
        raise typer.BadParameter(f"--time: {text!r} {error}") from error


def _target(to: str | None, data_dir: Path | None) -> str:
    """Return where to connect: as told, else where the directory's server is, else where the settings say."""
    from walbatch.ownership import is_owned, owner

    if to is not None:
        host, _, port = to.rpartition(":")
        if not to.startswith("unix:") and not (host and port.isdecimal()):
            raise typer.BadParameter(f"--to: {to!r} is not an address; write 127.0.0.1:50051, or unix:/path")
        return to
    settings = local_settings(data_dir)
    serving = is_owned(settings.data_dir)
    address: str = (serving and owner(settings.data_dir).get("grpc")) or settings.grpc_listen
    if address.startswith("unix:"):
        return address
    host, _, port = address.rpartition(":")
    if port == "0":
        from .client import Unanswered

        raise Unanswered(f"no server has {settings.data_dir} at the moment; start `walbatch serve`, or say --to")
    everywhere = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104  (it is what we never connect to)
    return f"{everywhere.get(host, host)}:{port}"
