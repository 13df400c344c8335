"""`walbatch version`: what is needed in a bug report."""

from __future__ import annotations

import json

import typer

from .options import Json


def version(as_json: Json = False) -> None:
    """Print the versions of walbatch and of what it runs on.

    Examples:
        walbatch version
        walbatch version --json
    """
    import platform
    from importlib.metadata import version as installed

    from walbatch.wal import driver, migrate

    facts = {
        "walbatch": installed("walbatch"),
        "python": platform.python_version(),
        "sqlite": driver.SQLITE_VERSION,
        "schema": migrate.migrations()[-1][0],
        "grpcio": installed("grpcio"),
        "platform": platform.platform(),
    }
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        for name, value in facts.items():
            typer.echo(f"{name:9} {value}")
