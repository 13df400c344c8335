"""The program `walbatch`: its commands, and what an error looks like.

Modules of the product are imported inside the commands, so that `walbatch --help` and `walbatch stats` start fast.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from walbatch.errors import WalbatchError

from .backup import backup
from .bench import bench
from .dead import app as dead
from .delivery import flush, pause, resume
from .doctor import doctor
from .erase import erase
from .export import export
from .health import health
from .inspect import inspect
from .migrate import migrate
from .replay import replay
from .send import send
from .serve import serve
from .sink import sink
from .stats import stats
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


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_show_locals=False,  # they would hold credentials and events
    help="A durable batcher for product analytics: gRPC in, SQLite log, Mixpanel out. OK means on disk.",
    epilog="Try it without an account: `walbatch sink`, then `walbatch serve`. Settings: .env.example.",
)
# The three that people come for stand first.
DAILY = (serve, stats, replay, send, tap, inspect, export, sink, pause, resume, flush)
for command in (*DAILY, erase, backup, doctor, bench, migrate, health, version):
    app.command()(command)
app.add_typer(dead, name="dead")
