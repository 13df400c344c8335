"""`walbatch sink`: run the fake Mixpanel."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from walbatch.units import parse_duration_s

if TYPE_CHECKING:
    from walbatch.testing.mixpanel import FakeMixpanel


_LAST_PORT = 65_535


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
        str, typer.Option(metavar="DURATION", help="How long to wait before each answer: 200ms, 2s.")
    ] = "0s",
    token: Annotated[str, typer.Option(help="Refuse imports with any other project token.")] = "",
    seed: Annotated[int | None, typer.Option(help="Make the failures repeatable.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the address and nothing else.")] = False,
) -> None:
    """Run a stand-in for Mixpanel, to try walbatch out without an account.

    It judges records as Mixpanel does, writes what it accepts, and fails as often as you like. Stop it with Ctrl-C.
    """
    from walbatch.testing.mixpanel import FakeMixpanel

    host, port = _address(listen)
    fake = FakeMixpanel(
        out,
        fail_rate=fail_rate,
        status=status,
        latency_s=_duration_s(latency),
        token=token,
        seed=seed,
        keep=False,
    )
    asyncio.run(_run(fake, host, port))
    if not quiet:
        typer.echo(_summary(fake), err=True)


async def _run(fake: FakeMixpanel, host: str, port: int) -> None:
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
    records = ", ".join(f"{count} to {endpoint}" for endpoint, count in sorted(fake.accepted.items()) if count)
    return f"requests: {requests or 'none'}; records accepted: {records or 'none'}"
