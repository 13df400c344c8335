"""The program `walbatch`: its commands, and what an error looks like.

Modules of the product are imported inside the commands, so that `walbatch --help` and `walbatch stats` start fast.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from walbatch.errors import WalbatchError

from .backup import backup
from .bench import bench
from .config import app as config
from .dashboard import dashboard
from .dead import app as dead
from .delivery import flush, pause, resume
from .described import Described, describe
from .doctor import doctor
from .erase import erase
from .export import export
from .health import health
from .inspect import inspect
from .migrate import migrate
from .replay import replay
from .send import send
from .serve import serve
from .setting_options import TakesSettings
from .sink import sink
from .stats import stats
from .table import plain
from .tap import tap
from .version import version

INTERRUPTED = 130


class _Commands(TyperGroup):
    """Turns the errors of the product into one line on stderr and the exit code that they name."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except WalbatchError as error:
            typer.echo(f"walbatch: {error}", err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    def main(self, *args: Any, **options: Any) -> Any:
        if plain() and (sys.stdout.isatty() or sys.stderr.isatty()):
            from typer import rich_utils

            rich_utils.COLOR_SYSTEM = None  # with NO_COLOR alone help and errors would still be bold and dim
        return super().main(*args, **options)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_show_locals=False,  # they would hold credentials and events
    help="A durable batcher for product analytics: gRPC in, SQLite log, Mixpanel out. OK means on disk.",
    epilog="Try it without an account: `walbatch sink`, then `walbatch serve`. Settings: docs/configuration.md.",
)

PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    # The three that people come for stand first.
    "Run it": (serve, stats, replay),
    "Records": (send, tap, inspect, export, erase),
    "Delivery": (pause, resume, flush),
    "Look after it": (dashboard, doctor, health, backup, migrate, bench),
    "Try it, report it": (sink, version),
}
for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel, cls=TakesSettings if command is serve else Described)(command)
app.add_typer(dead, name="dead", rich_help_panel="Records")
app.add_typer(config, name="config", rich_help_panel="Look after it")
describe(app)
