"""`walbatch sink`: run the fake Mixpanel."""

from __future__ import annotations

import signal
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from walbatch.units import parse_bytes, parse_duration_s

if TYPE_CHECKING:
    from walbatch.testing.mixpanel import FakeMixpanel


_LAST_PORT = 65_535


class _Region(StrEnum):
    us = "us"
    eu = "eu"
    india = "in"


class _IdMode(StrEnum):
    original = "original"
    simplified = "simplified"


class _InsertIdKey(StrEnum):
    plain = "insert_id"
    dollar = "$insert_id"


def _size(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise typer.BadParameter(f"--max-bytes: {text!r} {error}") from error


def _duration_s(text: str) -> float:
    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise typer.BadParameter(f"--latency: {text!r} {error}") from error


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > _LAST_PORT:
        raise typer.BadParameter(f"--listen: {text!r} is not an address; write HOST:PORT, such as 127.0.0.1:8089")
    return host.strip("[]"), int(port)


def sink(
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0 takes any free one.")
    ] = "127.0.0.1:8089",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append every accepted record here, fsynced before the answer.")
    ] = None,
    fail_rate: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of requests that fail before anything is accepted.")
    ] = 0.0,
    status: Annotated[int, typer.Option(min=300, max=599, help="What a failing request is answered.")] = 503,
    latency: Annotated[
        str, typer.Option(metavar="DURATION", help="How long to wait before each request is processed: 200ms, 2s.")
    ] = "0s",
    token: Annotated[
        str, typer.Option(help="Refuse imports with any other token; other records with one are lost.")
    ] = "",
    seed: Annotated[int | None, typer.Option(help="Make the failures repeatable.")] = None,
    script: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Play the faults of this file: docs/fake-mixpanel.md.")
    ] = None,
    projects: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Know these projects, instead of one; JSON, with their secrets.")
    ] = None,
    region: Annotated[
        _Region, typer.Option(help="Be this region's edge; what belongs to another is refused or lost.")
    ] = _Region.us,
    id_mode: Annotated[
        _IdMode, typer.Option(help="How the project merges ids; with --projects each has its own.")
    ] = _IdMode.original,
    max_bytes: Annotated[
        str, typer.Option(metavar="SIZE", help="Refuse larger requests, unpacked: 10MiB, 2MiB.")
    ] = "10MiB",
    max_events_per_minute: Annotated[
        int, typer.Option(min=0, help="Answer 429 to a project beyond this rate; 0 is no limit.")
    ] = 0,
    insert_id_key: Annotated[
        _InsertIdKey, typer.Option(help="How refused records are told apart; Mixpanel's pages have both.")
    ] = _InsertIdKey.plain,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep what is accepted in memory, for GET /api/2.0/export.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the address and nothing else.")] = False,
) -> None:
    """Run a stand-in for Mixpanel, to try walbatch out without an account.

    It judges records as Mixpanel does, writes what it accepts, and fails as often as you like. Stop it with Ctrl-C.

    Examples:
        walbatch sink
        walbatch sink --out delivered.ndjson --keep
        walbatch sink --fail-rate 0.2 --status 429 --latency 2s
    """
    import asyncio

    from walbatch.testing.exchange import Spelling
    from walbatch.testing.mixpanel import FakeMixpanel
    from walbatch.testing.projects import load_projects
    from walbatch.testing.script import load_script

    if projects and (token or id_mode is not _IdMode.original):
        raise typer.BadParameter("--projects: leave out --token and --id-mode; the file has them for each project")
    host, port = _address(listen)
    fake = FakeMixpanel(
        out,
        fail_rate=fail_rate,
        status=status,
        latency_s=_duration_s(latency),
        token=token,
        seed=seed,
        faults=load_script(script) if script else None,
        projects=load_projects(projects) if projects else (),
        region=region.value,
        id_mode=id_mode.value,
        max_bytes=_size(max_bytes),
        max_events_per_minute=max_events_per_minute,
        spelling=Spelling(insert_id_key=insert_id_key.value),
        keep=keep,
    )
    asyncio.run(_run(fake, host, port))
    if not quiet:
        typer.echo(_summary(fake), err=True)


async def _run(fake: FakeMixpanel, host: str, port: int) -> None:
    import asyncio

    from walbatch.errors import ConfigurationError
    from walbatch.testing.mixpanel import serve_fake

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    try:
        async with serve_fake(fake, host, port) as url:
            typer.echo(f"fake Mixpanel at {url}; point walbatch here with WALBATCH_MIXPANEL_URL={url}", err=True)
            await stop.wait()
    except OSError as error:
        raise ConfigurationError(f"--listen {host}:{port}: {error.strerror}; choose another address") from error


def _summary(fake: FakeMixpanel) -> str:
    requests = ", ".join(f"{count} answered {status}" for status, count in sorted(fake.answers.items()))
    summary = f"requests: {requests or 'none'}; records accepted: {_by_endpoint(fake.accepted) or 'none'}"
    lost = _by_endpoint(fake.lost)
    return f"{summary}; lost behind a success: {lost}" if lost else summary


def _by_endpoint(counts: Counter[str]) -> str:
    return ", ".join(f"{count} to {endpoint}" for endpoint, count in sorted(counts.items()) if count)
