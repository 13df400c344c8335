"""Let a person correct records in their own editor."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import typer

from walbatch.errors import InvalidRecord, WalbatchError

from .options import on_terminal

if TYPE_CHECKING:
    from walbatch.wal.dead_letters import Letter

MAX_LETTERS = 100
"""More is no work for an editor; a patch is."""


class EditFailed(WalbatchError):
    """Nothing usable came back. Nothing was sent."""


def edit(letters: Sequence[Letter]) -> dict[int, str]:
    """Open the records in the person's editor and return what they are then, as JSON text by number.

    Those that the person took out are missing. The file is deleted at once: it holds personal data.

    Raises:
        EditFailed: there is no editor, it failed, or what it left makes no sense and is not to be mended.
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise EditFailed("there is no editor: set VISUAL or EDITOR, or correct with --patch FILE")
    numbers = {letter.stored.number for letter in letters}
    with TemporaryDirectory(prefix="walbatch-") as directory:
        file = Path(directory) / "dead-letters.json"
        file.write_bytes(_to_edit(letters))
        while True:
            _run(editor, file)
            try:
                documents = _edited(file.read_bytes(), numbers)
            except InvalidRecord as error:
                typer.echo(f"{error.field}: {error.description}", err=True)
                if not on_terminal() or not typer.confirm("Edit again?", default=True, err=True):
                    raise EditFailed("the file makes no sense; nothing was sent") from None
                continue
            if not documents:
                raise EditFailed("every record was taken out; nothing was sent")
            return documents


def _to_edit(letters: Sequence[Letter]) -> bytes:
    import orjson

    entries = {
        str(letter.stored.number): {"reason": letter.key.reason, "record": orjson.loads(letter.stored.payload)}
        for letter in letters
    }
    return orjson.dumps(entries, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _run(editor: str, file: Path) -> None:
    try:
        # The person's own command, as their shell would split it.
        subprocess.run([*shlex.split(editor), str(file)], check=True)  # noqa: S603
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise EditFailed(f"the editor ({editor}) failed: {error}; nothing was sent") from error


def _edited(text: bytes, numbers: set[int]) -> dict[int, str]:
    from walbatch import json_text

    documents = {}
    for name, entry in json_text.parse(text, "the file").items():
        if not name.isdecimal() or int(name) not in numbers:
            raise InvalidRecord(name, "UNKNOWN", "is no record of this file; take records out, but add none")
        record = entry.get("record") if isinstance(entry, dict) else None
        if not isinstance(record, dict):
            raise InvalidRecord(f"{name}.record", "NOT_AN_OBJECT", "must be a JSON object; take out the whole entry")
        documents[int(name)] = json_text.dump(record, f"{name}.record")
    return documents
