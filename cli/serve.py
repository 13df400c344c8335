"""`walbatch serve`: the server."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

from .setting_options import takes_settings

if TYPE_CHECKING:
    from collections.abc import Coroutine


@takes_settings
def serve(overrides: dict[str, object]) -> None:
    """Accept records over gRPC, and deliver them.

    Each option is the setting of the same name, WALBATCH_..., and wins over it. Credentials have no option: everyone on
    the machine could read them.

    Examples:
        walbatch serve
        walbatch serve --destination stdout
        walbatch serve --data-dir /var/lib/walbatch --batch-size 100
    """
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
