"""What a person can do with dead letters: send them again, as they are or corrected, or give them up.

A letter that is sent again is closed in the commit that appends its copy, so a run that breaks off, wherever, is
continued by running it again: what was done is not open any more. A copy goes to its letter's destination alone, and
what another destination made of the record stays as it is. Letters go oldest first, so that the updates of one user
keep their order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import orjson

from walbatch import json_text
from walbatch.clock import Clock
from walbatch.corrections import corrected
from walbatch.errors import InvalidRecord, WalbatchError
from walbatch.event import Kind, Offset, Record
from walbatch.wal import dead_letters
from walbatch.wal.dead_letters import Choice, Letter
from walbatch.wal.driver import Connection
from walbatch.wal.selection import copy
from walbatch.wal.sqlite import SqliteLog

PAGE = 500
"""Letters of one commit. Each page is durable before the next is read."""


class Changed(WalbatchError):
    """Other letters are open than when they were counted. Look again, and decide again."""


@dataclass(frozen=True, slots=True)
class Corrections:
    """What to change in records before they are sent again."""

    patch: Mapping[str, Any] | None = None
    """A JSON merge patch (RFC 7396) for every record without a document."""
    documents: Mapping[int, str] = field(default_factory=dict)
    """What stands in place of a record, as JSON text, by number."""

    def of(self, number: int, document: dict[str, Any]) -> Any:
        """Return what is to be sent in place of a record, given decoded.

        Raises:
            InvalidRecord: the document is no JSON object.
        """
        if number in self.documents:
            return json_text.parse(self.documents[number], "record")
        return document if self.patch is None else merged(document, self.patch)


UNCHANGED = Corrections()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a corrected record was not taken. Its letter stays open. `reason` is a stable UPPER_SNAKE word."""

    number: int
    field: str
    reason: str
    description: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is: letters sent again so far, and what was refused since the last time."""

    replayed: int
    refused: Sequence[Refusal]


async def replay(
    log: SqliteLog, clock: Clock, destination: str, choice: Choice, corrections: Corrections = UNCHANGED
) -> AsyncIterator[Progress]:
    """Append copies of what is chosen at one destination, oldest first, and report after each page.

    Raises:
        Unavailable: the pages before are stored, and their letters closed.
    """
    done = 0
    numbers = await log.read(dead_letters.offsets, replace(choice, destination=destination))
    for page in _pages(numbers):
        letters = await log.read(dead_letters.letters, destination, page)
        records, refused = copies(letters, corrections, clock.wall_ms())
        taken = []
        for record in records:
            if (refusal := log.refusal(record)) is None:
                taken.append(record)
            else:
                refused.append(_refusal(record.replay_of or 0, refusal))
        await log.append(taken)
        done += len(taken)
        yield Progress(done, refused)


async def discard(log: SqliteLog, destination: str, choice: Choice, expected: int) -> AsyncIterator[int]:
    """Close what is chosen at one destination, for good, and yield the count so far after each page.

    Raises:
        Changed: it is not `expected` letters; none was closed.
        Unavailable: the pages before are closed.
    """
    numbers = await log.read(dead_letters.offsets, replace(choice, destination=destination))
    if len(numbers) != expected:
        raise Changed(f"{len(numbers)} letters match now, not {expected}; nothing was discarded, look again")
    done = 0
    for page in _pages(numbers):
        done += await log.discard(destination, page)
        yield done


def chosen(connection: Connection, choice: Choice) -> Iterator[Letter]:
    """Yield the chosen letters with their records, destination by destination, oldest first."""
    everywhere = (
        letter
        for name in dead_letters.destinations(connection, choice)
        for page in _pages(dead_letters.offsets(connection, replace(choice, destination=name)))
        for letter in dead_letters.letters(connection, name, page)
    )
    return islice(everywhere, choice.limit)


def refusals(connection: Connection, choice: Choice, corrections: Corrections, now_ms: int) -> list[Refusal]:
    """Return what a replay would refuse at this moment."""
    return [refusal for letter in chosen(connection, choice) for refusal in copies([letter], corrections, now_ms)[1]]


def copies(letters: Sequence[Letter], corrections: Corrections, now_ms: int) -> tuple[list[Record], list[Refusal]]:
    """Return what is to be appended in place of each letter's record, and what cannot be. Pure."""
    records, refused = [], []
    for letter in letters:
        try:
            records.append(_copy(letter, corrections, now_ms))
        except InvalidRecord as error:
            refused.append(_refusal(letter.stored.number, error))
    return records, refused


def _refusal(number: int, error: InvalidRecord) -> Refusal:
    return Refusal(number, error.field, error.reason, error.description)


def _copy(letter: Letter, corrections: Corrections, now_ms: int) -> Record:
    stored, destination = letter.stored, letter.key.destination
    if corrections != UNCHANGED:
        before = orjson.loads(stored.payload)
        after = corrections.of(stored.number, before)
        if _text(after) != _text(before):  # what is left alone keeps its bytes
            record = corrected(Kind(stored.kind), after, event_id=stored.event_id, now_ms=now_ms)
            return record._replace(replay_of=Offset(stored.number), destination=destination)
    return copy(stored, destination, now_ms)


def _text(document: Any) -> bytes:
    """Return the text by which documents are compared: to Python 1, 1.0 and True are equal."""
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def merged(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch to decoded JSON and return the result (https://www.rfc-editor.org/rfc/rfc7396)."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def _pages(numbers: Sequence[Offset]) -> list[Sequence[Offset]]:
    return [numbers[start : start + PAGE] for start in range(0, len(numbers), PAGE)]
