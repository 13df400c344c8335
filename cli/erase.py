"""`walbatch erase`: delete everything that belongs to a person."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .changing import check_asking, confirmed, follow, open_log
from .options import DataDir, Json, local_settings
from .selecting import DryRun, Yes
from .table import counted

if TYPE_CHECKING:
    from walbatch.settings import Settings

UNFINISHED = 3


def erase(
    distinct_id: Annotated[
        list[str] | None, typer.Option("--distinct-id", metavar="ID", help="The person; may be repeated.")
    ] = None,
    ids_from: Annotated[
        Path | None, typer.Option(metavar="FILE", help="One id a line, not seen in the process list; - is stdin.")
    ] = None,
    delete_copies: Annotated[
        bool, typer.Option("--delete-copies", help="Delete other databases in the data directory as well.")
    ] = False,
    data_dir: DataDir = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete every trace of a person from the log: events, profile updates, links of ids, dead letters.

    What was delivered has to be erased at the destination as well: the receipt says how much that is. From then on
    older records of the person are refused; newer ones are taken. Exit 3 if something is left: run it again.

    Examples:
        walbatch erase --distinct-id user-1 --dry-run
        walbatch erase --ids-from ids.txt --yes --json
    """
    ids = _given(distinct_id or [], ids_from)
    if not dry_run:
        check_asking(yes=yes)
    settings = local_settings(data_dir)
    body = {"ids": ids, "dry_run": True, "delete_copies": delete_copies}
    with open_log(settings) as log:
        (found,) = log.stream("/erase", body)
        typer.echo(_describe(found), err=True)
        _name_copies(found["copies"], deleting=delete_copies)
        if dry_run:
            typer.echo(json.dumps(found) if as_json else str(found["erased"]))
            return
        if not confirmed(f"Erase {counted(found['erased'], 'record')} of {_people(found)} for good?", yes=yes):
            return
        receipt = found
        for report in follow(log.stream("/erase", body | {"dry_run": False}), "erased", found["erased"]):
            receipt = report
    receipt["archives"] = _archives(settings, receipt)
    _tell(receipt)
    if as_json:
        typer.echo(json.dumps(receipt))
    if not receipt["complete"]:
        raise typer.Exit(UNFINISHED)


def _given(ids: list[str], file: Path | None) -> list[str]:
    """Return the ids. No message repeats one."""
    from walbatch.person import bare

    lines: list[str] = []
    try:
        if str(file) == "-":
            lines = sys.stdin.buffer.read().decode("utf-8-sig").split("\n")
        elif file is not None:
            lines = file.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise typer.BadParameter(f"--ids-from: {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise typer.BadParameter("--ids-from: is not UTF-8; give one id a line") from None
    given = [one.removesuffix("\r") for one in [*ids, *lines] if one.strip()]
    if not given or not all(bare(one) for one in given):
        raise typer.BadParameter("say who: --distinct-id ID, or --ids-from FILE with one id a line")
    return list(dict.fromkeys(given))


def _people(found: dict[str, Any]) -> str:
    return "1 person" if found["people"] == 1 else f"{found['people']:,} people"


def _describe(found: dict[str, Any]) -> str:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found["records"].items() if count)
    letters = f", {counted(found['dead_letters'], 'dead letter')}" if found["dead_letters"] else ""
    return f"{counted(found['erased'], 'record')} of {_people(found)}" + (f" ({kinds}{letters})" if kinds else "")


def _name_copies(copies: list[str], *, deleting: bool) -> None:
    for copy in copies:
        become = "will be deleted" if deleting else "may hold the same; --delete-copies deletes it"
        typer.echo(f"{copy}: {become}", err=True)


def _archives(settings: Settings, receipt: dict[str, Any]) -> dict[str, str]:
    """Return where the destinations that are directories of files have what was sent, by name."""
    from walbatch.destinations import NdjsonDestination, configured
    from walbatch.errors import ConfigurationError

    try:
        known = configured(settings)
    except ConfigurationError:  # only `serve` needs it to be right
        return {}
    names = [share["name"] for share in receipt["destinations"] if share["sent"] or share["held"]]
    return {name: str(found.directory) for name in names if isinstance(found := known.get(name), NdjsonDestination)}


def _tell(receipt: dict[str, Any]) -> None:
    """Print the receipt for people."""
    lines = [f"erased at {receipt['erased_at']}: {_describe(receipt)}; what is older is refused from now on"]
    for share in receipt["destinations"]:
        where = receipt["archives"].get(share["name"])
        there = f"in the files of {where}" if where else "there"
        arrived = f"{share['sent']:,} had been sent"
        arrived += f", {share['held']:,} may have arrived" if share["held"] else ""
        todo = f": erase the person {there} as well" if share["sent"] or share["held"] else ""
        lines.append(f"{share['name']}: {arrived}{todo}; {share['pending']:,} were pending, not known to have arrived")
    lines += (f"{copy}: deleted" for copy in receipt["copies_deleted"])
    lines += _left(receipt)
    for line in lines:
        typer.echo(line, err=True)


def _left(receipt: dict[str, Any]) -> list[str]:
    """Say what keeps it from being complete."""
    left = []
    if receipt["in_flight"]:
        left.append(f"not finished: {counted(receipt['in_flight'], 'record')} still being sent; run this again")
    if not receipt["scrubbed"]:
        who = ", ".join(map(str, receipt["readers"]))
        holder = f"the process with pid {who} reads" if who else "another program reads"
        left.append(f"not finished: {holder} the database, so that its files keep old bytes; end that, run this again")
    left += (f"not finished: {copy} may hold the same; --delete-copies deletes it" for copy in receipt["copies"])
    return left
