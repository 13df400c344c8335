"""`walbatch health`: for container health checks and for scripts."""

from __future__ import annotations

import typer

from .options import DataDir, local_settings


def health(data_dir: DataDir = None) -> None:
    """Ask the running server whether it accepts records: 0 yes, 1 not at this moment, 4 no server.

    Examples:
        walbatch health
        walbatch health --data-dir /var/lib/walbatch
    """
    from .admin_client import connect

    status, text = connect(local_settings(data_dir).data_dir).status("/readyz")
    typer.echo(text.strip())
    if status != 200:  # noqa: PLR2004
        raise typer.Exit(1)
