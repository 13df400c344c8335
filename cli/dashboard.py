"""`walbatch dashboard`: where the page of the running server is."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .options import DataDir, Json, local_settings


def dashboard(
    data_dir: DataDir = None,
    with_token: Annotated[
        bool, typer.Option("--with-token", help="So that the page can also change things, for whoever has the address.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the address of the running server's page, which shows it live. Opens nothing.

    With the token in it the page can also pause, flush and replay; it removes it from the address at once. Without, it
    asks for the token when somebody wants to change something.

    Examples:
        walbatch dashboard
        walbatch dashboard --with-token
    """
    from .admin_client import connect

    url = connect(local_settings(data_dir).data_dir).page(with_token=with_token)
    typer.echo(json.dumps({"url": url}) if as_json else url)
