"""Which dead letters a command is about, by its arguments and options."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from .selecting import time_ms

if TYPE_CHECKING:
    from walbatch.dead import Corrections, Refusal
    from walbatch.settings import Settings
    from walbatch.wal.dead_letters import Choice, Letter, Plan
    from walbatch.wal.driver import Connection

FAILED, PARTLY_DONE = 1, 3

_NUMBER, _GROUP = re.compile("[1-9][0-9]{0,17}"), re.compile("g[0-9a-f]{8}")


def choice_of(options: dict[str, Any], *, needed: bool = False) -> Choice:
    """Return what the options of a command select."""
    from walbatch.wal.dead_letters import Choice

    now_ms = time.time_ns() // 1_000_000
    numbers, groups = parsed(options["ids"] or [])
    if options["everything"] and options["ids"]:
        raise typer.BadParameter("give either IDs or --all")
    narrowing = ("destination", "reason", "event", "distinct_id", "since", "until", "held")
    if needed and not (options["everything"] or options["ids"] or any(options[name] is not None for name in narrowing)):
        raise typer.BadParameter("say which letters: IDs as `walbatch dead list` shows them, options, or --all")
    return Choice(
        numbers=numbers,
        groups=groups,
        destination=options["destination"],
        reason=options["reason"],
        event=options["event"],
        distinct_id=options["distinct_id"],
        since_ms=time_ms("--since", options["since"], now_ms),
        until_ms=time_ms("--until", options["until"], now_ms),
        held=options["held"],
        limit=options["limit"],
    )


def parsed(ids: Iterable[str]) -> tuple[list[int], list[str]]:
    """Return which ids are numbers of records, and which are those of groups."""
    numbers, groups = [], []
    for one in dict.fromkeys(ids):
        if _NUMBER.fullmatch(one):
            numbers.append(int(one))
        elif _GROUP.fullmatch(one):
            groups.append(one)
        else:
            raise typer.BadParameter(f"ID: {one!r} is neither a number of a record nor the id of a group")
    return numbers, groups


def named_letters(connection: Connection, ids: Sequence[str], destination: str | None) -> dict[str, list[Letter]]:
    """Return the letters that each id stands for, closed ones too; of a group the oldest."""
    from walbatch.wal import dead_letters

    numbers, _ = parsed(ids)
    groups = {group.key.id: group for group in dead_letters.groups(connection, destination)}
    found: dict[str, list[Letter]] = {one: [] for one in ids}
    for number in numbers:
        letters = dead_letters.of_record(connection, number)
        found[str(number)] = [one for one in letters if destination in {None, one.key.destination}]
    for name in groups.keys() & found.keys():
        group = groups[name]
        found[name] = dead_letters.letters(connection, group.key.destination, [group.example])
    return found


class Target:
    """What a change is about: the chosen letters of one destination, counted."""

    def __init__(self, settings: Settings, choice: Choice) -> None:
        from walbatch.replay import destination_of
        from walbatch.wal import dead_letters
        from walbatch.wal.reading import reading

        self._settings = settings
        with reading(settings.data_dir) as connection:
            check_destination(connection, choice.destination)
            self.missing = dead_letters.unknown(connection, choice)
            matching = dead_letters.destinations(connection, choice)
            self.destination = choice.destination or (destination_of(matching, None) if matching else "")
            self.choice = replace(choice, destination=self.destination)
            self.plan: Plan = dead_letters.plan(connection, self.choice)

    def document(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {"destination": self.destination, "selected": self.plan.count, "held": self.plan.held}

    def refusals(self, corrections: Corrections) -> list[Refusal]:
        """Return what would be refused."""
        from walbatch.dead import refusals
        from walbatch.wal.reading import reading

        with reading(self._settings.data_dir) as connection:
            return refusals(connection, self.choice, corrections, time.time_ns() // 1_000_000)

    def edited(self) -> Corrections:
        """Let the person correct the records, and from then on be about what they left in."""
        from walbatch import dead
        from walbatch.wal import dead_letters
        from walbatch.wal.reading import reading

        from .editing import MAX_LETTERS, edit

        if self.plan.count > MAX_LETTERS:
            raise typer.BadParameter(f"--edit: {self.plan.count} are too many; say --limit {MAX_LETTERS}, or --patch")
        with reading(self._settings.data_dir) as connection:
            letters = list(dead.chosen(connection, self.choice))
        documents = edit(letters)
        left_in = [letter.stored.number for letter in letters if letter.stored.number in documents]
        with reading(self._settings.data_dir) as connection:
            self.choice = dead_letters.Choice(numbers=left_in, destination=self.destination)
            self.plan = dead_letters.plan(connection, self.choice)
        return dead.Corrections(documents=documents)


def check_destination(connection: Connection, named: str | None) -> None:
    """Refuse a destination that the log does not know, instead of finding nothing for it."""
    from walbatch.replay import destination_of
    from walbatch.wal import store

    if named is not None:
        destination_of(store.destinations(connection), named)


def end(missing: Sequence[str], *, some: bool) -> None:
    """Name the ids that stand for nothing, and end with what that means."""
    for one in missing:
        typer.echo(f"{one}: no open letter and no group has this id", err=True)
    if missing:
        raise typer.Exit(PARTLY_DONE if some else FAILED)
