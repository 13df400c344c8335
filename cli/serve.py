"""`walbatch serve`: the server."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DataDir

if TYPE_CHECKING:
    from collections.abc import Coroutine

Text = Annotated[str | None, typer.Option(show_default=False)]
Switch = Annotated[bool | None, typer.Option(show_default=False)]


def serve(
    data_dir: DataDir = None,
    max_backlog_bytes: Text = None,
    min_free_disk: Text = None,
    max_wal_bytes: Text = None,
    retention: Text = None,
    allow_affected_sqlite: Switch = None,
    grpc_listen: Text = None,
    grpc_reflection: Switch = None,
    admin_listen: Text = None,
    destination: Text = None,
    mixpanel_project_id: Text = None,
    mixpanel_region: Text = None,
    mixpanel_url: Text = None,
    mixpanel_timeout: Text = None,
    unknown_outcomes: Text = None,
    destinations_file: Text = None,
    batch_size: Text = None,
    flush_interval: Text = None,
    batch_max: Text = None,
    max_in_flight: Text = None,
    retry_attempts: Text = None,
    retry_base: Text = None,
    retry_max: Text = None,
    shutdown_grace: Text = None,
    log_format: Text = None,
    log_level: Text = None,
) -> None:
    """Accept records over gRPC, and deliver them.

    Each option is the setting of the same name, WALBATCH_..., and wins over it; .env.example says what each means.
    Credentials have no option: everyone on the machine could read them.
    """
    overrides = dict(locals())  # the options are the settings, name by name
    # What a start makes stays: looking for cycles in it took a tenth of the time. The service goes back to it.
    gc.disable()

    from walbatch.logs import configure
    from walbatch.settings import load

    settings = load(overrides, need_destination=True)
    configure(settings.log_format, settings.log_level)
    os.umask(0o077)  # what the log holds is for this user's eyes only

    from walbatch.service import StopSignal
    from walbatch.service import serve as serve_until_stopped

    _run(serve_until_stopped(settings, StopSignal()))


def _run(main: Coroutine[None, None, None]) -> None:
    """Run on uvloop where there is one: unary calls are a third faster."""
    if sys.platform == "win32":
        import asyncio

        asyncio.run(main)
    else:
        import uvloop

        uvloop.run(main)
