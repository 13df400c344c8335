"""`walbatch dead`: look at what a destination refused, send it again, correct it, or give it up."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .changing import check_asking, confirmed, confirmed_by_number, follow, open_log
from .choosing import PARTLY_DONE, Target, check_destination, choice_of, end, named_letters
from .options import DataDir, Json, local_settings
from .selecting import Destination, DistinctId, DryRun, Event, Limit, Since, Until, Yes
from .table import counted

if TYPE_CHECKING:
    from walbatch.dead import Corrections, Refusal
    from walbatch.settings import Settings
    from walbatch.wal.dead_letters import Plan

app = typer.Typer(
    no_args_is_help=True,
    help="Look at dead letters, send them again, correct them, or give them up.\n\n"
    "A dead letter is a record that a destination refused for itself, with the reason; or one that is held, because it"
    " may have arrived and would count twice. An ID is the number of a record, or the id of a group of letters that"
    " say the same. Works with the server up and down.",
)

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Numbers of records, ids of groups.")]
All = Annotated[bool, typer.Option("--all", help="Every open letter; the options below narrow it.")]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="Letters whose reason contains this.")]
Held = Annotated[bool | None, typer.Option("--held/--refused", help="Only those held, or only those refused.")]


@app.command("list")
def list_(data_dir: DataDir = None, destination: Destination = None, as_json: Json = False) -> None:
    """Show the open letters in groups that say the same, the latest first.

    Examples:
        walbatch dead list
        walbatch dead list --destination mixpanel --json
    """
    from walbatch.letters import group_document
    from walbatch.wal import dead_letters
    from walbatch.wal.reading import reading

    from .dead_view import print_groups

    with reading(local_settings(data_dir).data_dir) as connection:
        check_destination(connection, destination)
        groups = dead_letters.groups(connection, destination)
    if as_json:
        typer.echo(json.dumps({"groups": [group_document(group) for group in groups]}))
        return
    if not groups:
        typer.echo("no dead letters", err=True)
        return
    print_groups(groups)
    first = groups[0].key.id
    typer.echo(
        f"look at one: walbatch dead show {first}\nsend again:  walbatch dead replay {first}"
        f"   (corrected: --patch FILE or --edit)\ngive up:     walbatch dead discard {first}",
        err=True,
    )


@app.command()
def show(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="Numbers of records, ids of groups.")],
    data_dir: DataDir = None,
    destination: Destination = None,
    as_json: Json = False,
) -> None:
    """Show letters with their records, and what was sent in their place. Of a group it is the oldest record.

    Closed letters are shown as well. The records hold personal data.

    Examples:
        walbatch dead show 4711
        walbatch dead show g1a2b3c4d --json
    """
    from walbatch.wal import dead_letters
    from walbatch.wal.reading import reading

    from .dead_view import letter_document, letter_text

    with reading(local_settings(data_dir).data_dir) as connection:
        check_destination(connection, destination)
        named = named_letters(connection, ids, destination)
        found = [(one, dead_letters.copies(connection, one)) for letters in named.values() for one in letters]
    if as_json:
        typer.echo(json.dumps({"letters": [letter_document(*one) for one in found]}))
    elif found:
        typer.echo("\n\n".join(letter_text(*one) for one in found))
    end([one for one, letters in named.items() if not letters], some=bool(found))


@app.command()
def export(
    ids: Ids = None,
    data_dir: DataDir = None,
    everything: All = False,
    destination: Destination = None,
    reason: Reason = None,
    event: Event = None,
    distinct_id: DistinctId = None,
    since: Since = None,
    until: Until = None,
    held: Held = None,
    limit: Limit = None,
) -> None:
    """Write open letters with their records to stdout, a line of JSON each; without a selection all of them.

    Times are those of the refusal. The records hold personal data.

    Examples:
        walbatch dead export >letters.ndjson
        walbatch dead export --reason time --since 2026-11-23
    """
    choice = choice_of(dict(locals()))

    from walbatch import dead
    from walbatch.wal import dead_letters
    from walbatch.wal.reading import reading

    from .dead_view import export_line

    with reading(local_settings(data_dir).data_dir) as connection:
        check_destination(connection, destination)
        missing = dead_letters.unknown(connection, choice)
        count = 0
        for letter in dead.chosen(connection, choice):
            sys.stdout.buffer.write(export_line(letter))
            count += 1
    sys.stdout.buffer.flush()
    typer.echo(counted(count, "letter"), err=True)
    end(missing, some=bool(count))


@app.command()
def replay(
    ids: Ids = None,
    data_dir: DataDir = None,
    everything: All = False,
    destination: Destination = None,
    reason: Reason = None,
    event: Event = None,
    distinct_id: DistinctId = None,
    since: Since = None,
    until: Until = None,
    held: Held = None,
    limit: Limit = None,
    patch: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Correct each record by this JSON merge patch (RFC 7396).")
    ] = None,
    edit: Annotated[bool, typer.Option("--edit", help="Correct the records in $VISUAL or $EDITOR.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Send letters again to the destination that refused them, oldest first, as they are or corrected.

    Times are those of the refusal. A correction is checked like a new record; one that breaks a rule is named, and its
    letter stays (exit 3). A held letter may have arrived: sent again, it may count twice. Without being asked, say
    --held to release those.

    Examples:
        walbatch dead replay g1a2b3c4d --dry-run
        walbatch dead replay g1a2b3c4d --patch fix.json
        walbatch dead replay --all --held --yes
    """
    choice = choice_of(dict(locals()), needed=True)

    from .dead_view import matching

    if patch and edit:
        raise typer.BadParameter("give either --patch or --edit")
    settings = local_settings(data_dir)
    target = Target(settings, choice)
    typer.echo(matching(target.plan, target.destination), err=True)
    if not dry_run:
        _check_held(target.plan, yes=yes, named=held is True)
    corrections = _corrections(target, patch, edit=edit, nobody_asked=yes or dry_run)
    done: int = 0
    refused: list[Refusal] = []
    if dry_run:
        refused = target.refusals(corrections)
    elif target.plan.count and _wanted(target.plan, yes=yes):
        done, refused = _replay(settings, target, corrections)
    _tell(target, done, refused)
    if as_json:
        typer.echo(json.dumps(target.document() | {"replayed": done, "refused": [asdict(one) for one in refused]}))
    elif dry_run:
        typer.echo(target.plan.count - len(refused))
    end(target.missing, some=bool(target.plan.count))
    if refused:
        raise typer.Exit(PARTLY_DONE)


@app.command()
def discard(
    ids: Ids = None,
    data_dir: DataDir = None,
    everything: All = False,
    destination: Destination = None,
    reason: Reason = None,
    event: Event = None,
    distinct_id: DistinctId = None,
    since: Since = None,
    until: Until = None,
    held: Held = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    confirm: Annotated[
        int | None, typer.Option(metavar="N", help="Do not ask; N must be the number of letters.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Give letters up: their records will never be sent to that destination, and are deleted by and by.

    Times are those of the refusal. It cannot be undone; `walbatch dead export` with the same selection keeps a copy.

    Examples:
        walbatch dead discard g1a2b3c4d
        walbatch dead discard --all --until 30d --dry-run
    """
    choice = choice_of(dict(locals()), needed=True)

    from .dead_view import matching

    settings = local_settings(data_dir)
    target = Target(settings, choice)
    count = target.plan.count
    typer.echo(matching(target.plan, target.destination), err=True)
    done = 0
    if count and not dry_run and _given_up(count, confirm):
        with open_log(settings) as log:
            body = {"destination": target.destination, "choice": asdict(target.choice), "expected": count}
            for report in follow(log.stream("/dead/discard", body), "discarded", count):
                done = report["discarded"]
        typer.echo(f"{counted(done, 'letter')} discarded", err=True)
    if as_json:
        typer.echo(json.dumps(target.document() | {"discarded": done}))
    elif dry_run:
        typer.echo(count)
    end(target.missing, some=bool(count))


def _check_held(plan: Plan, *, yes: bool, named: bool) -> None:
    """Refuse to send what may have arrived without it being asked for by name."""
    if plan.held and yes and not named:
        raise typer.BadParameter(
            f"{plan.held} are held: they may have arrived, and sent again may count twice;"
            " say --held to send those, or --refused to leave them out"
        )


def _corrections(target: Target, patch: Path | None, *, edit: bool, nobody_asked: bool) -> Corrections:
    from walbatch.dead import UNCHANGED, Corrections

    if patch is not None:
        return Corrections(patch=_patch(patch))
    if not edit or not target.plan.count:
        return UNCHANGED
    check_asking(yes=nobody_asked)  # now, not after the person's work
    return target.edited()


def _patch(file: Path) -> dict[str, Any]:
    from walbatch import json_text
    from walbatch.errors import InvalidRecord

    try:
        return json_text.parse(file.read_bytes(), "--patch")
    except OSError as error:
        raise typer.BadParameter(f"--patch: {file} cannot be read: {error.strerror}") from error
    except InvalidRecord as error:
        raise typer.BadParameter(f"--patch: {file} {error.description}") from error


def _wanted(plan: Plan, *, yes: bool) -> bool:
    if plan.held and not yes:
        warning = f"{plan.held} of these {plan.count} may have arrived: sent again, they may count twice"
        return confirmed_by_number(warning, plan.held, instead="say --held --yes")
    return confirmed(f"Send {plan.count} records again?", yes=yes)


def _replay(settings: Settings, target: Target, corrections: Corrections) -> tuple[int, list[Refusal]]:
    from walbatch.dead import Refusal

    body = {
        "destination": target.destination,
        "choice": asdict(replace(target.choice, limit=target.plan.count)),  # no more than the person was told
        "patch": None if corrections.patch is None else json.dumps(corrections.patch),
        "documents": dict(corrections.documents),
    }
    done = 0
    refused: list[Refusal] = []
    with open_log(settings) as log:
        for report in follow(log.stream("/dead/replay", body), "replayed", target.plan.count):
            done = report["replayed"]
            refused += [Refusal(**one) for one in report["refused"]]
    return done, refused


def _tell(target: Target, done: int, refused: Sequence[Refusal]) -> None:
    from .dead_view import refusal_text

    for refusal in refused:
        typer.echo(refusal_text(refusal), err=True)
    if done:
        again = f"{counted(done, 'record')} in the log again, for {target.destination} only"
        typer.echo(f"{again}; follow them with `walbatch stats`", err=True)


def _given_up(count: int, confirm: int | None) -> bool:
    if confirm is None:
        return confirmed_by_number(
            f"{counted(count, 'record')} will never be sent", count, instead=f"say --confirm {count} to go ahead"
        )
    if confirm != count:
        raise typer.BadParameter(f"--confirm: {count} letters match, not {confirm}; nothing was discarded")
    return True
