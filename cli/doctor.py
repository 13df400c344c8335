"""`walbatch doctor`: is everything as it should be, and if not, what to do."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DataDir, Json

if TYPE_CHECKING:
    from pathlib import Path

    from walbatch.diagnosis import Finding


def doctor(
    data_dir: DataDir = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no destination.")] = False,
    as_json: Json = False,
) -> None:
    """Check settings, destinations, directory, disk, server and log, with the server up or down.

    Each destination is asked whether it takes the credentials; no record is sent. The log is only read; a scratch file
    beside it times the disk for a moment. Exit code 0 if nothing fails, 65 if the log is damaged, 1 if anything else
    fails. Warnings do not fail.

    Examples:
        walbatch doctor
        walbatch doctor --offline
        walbatch doctor --data-dir /var/lib/walbatch --json
    """
    from walbatch.doctor import examine, exit_code

    findings = []
    for finding in examine(data_dir, _ask, time.time_ns() // 1_000_000, offline=offline):
        findings.append(finding)
        if not as_json:
            _print(finding)
    code = exit_code(findings)
    if as_json:
        document = {"exit_code": code, "checks": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(document))
    raise typer.Exit(code)


def _ask(directory: Path) -> tuple[int, str]:
    from .admin_client import connect

    return connect(directory).status("/readyz")


def _print(finding: Finding) -> None:
    fix = f" ({finding.fix})" if finding.fix else ""
    typer.echo(f"{finding.status:4}  {finding.check}: {finding.text}{fix}")
