"""What was accepted against what a destination has, record by record. Pure: values in, complaints out.

Nothing here knows how Mixpanel or its fake do it: `final` is a second, independent idea of what updates leave.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COUNTING = ("$add", "$append", "$remove")
"""Operations that count twice when they arrive twice."""

Target = str | tuple[str, str]
"""Whose update it is: a user's distinct_id, or a group's key and id."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event. Without `time_ms` any time will do."""

    insert_id: str
    name: str
    distinct_id: str
    time_ms: int | None
    properties: Mapping[str, Any]
    """All but the parts above."""


@dataclass(frozen=True, slots=True)
class Update:
    """An update of a profile or a group. No two have the same `number`."""

    number: int
    operation: str
    value: Any


def event_complaints(accepted: Iterable[Event], found: Iterable[Event], unsure: Container[str]) -> Iterator[str]:
    """Yield what is wrong with a deduplicated view. Of the ids in `unsure` it may have the event or not."""
    wanted = {event.insert_id: event for event in accepted}
    copies = defaultdict(list)
    for event in found:
        copies[event.insert_id].append(event)
    for insert_id, event in wanted.items():
        if insert_id not in copies and insert_id not in unsure:
            yield f"lost: {event}"
    for insert_id, events in copies.items():
        if insert_id not in wanted:
            yield f"unexpected: {events[0]}"
            continue
        if len(events) > 1:
            yield f"doubled: {events}"
        for event in events:
            if not _same(wanted[insert_id], event):
                yield f"changed: {wanted[insert_id]} into {event}"


def update_complaints(
    accepted: Mapping[Target, Sequence[Update]],
    arrived: Mapping[Target, Sequence[Update]],
    *,
    unsure: Container[int],
    once: bool,
) -> Iterator[str]:
    """Yield what is wrong with the logs of what arrived. Of the numbers in `unsure` it may have the update or not.

    Repeats are right where they leave the order as it was: both the first and the last arrivals are in the order of
    acceptance; an unsure one is not sent again, and may be passed by repeats. With `once` what counts twice must not
    arrive twice.
    """
    for target in accepted.keys() | arrived.keys():
        log = arrived.get(target, ())
        wanted = {update.number: update for update in accepted.get(target, ())}
        times = Counter(update.number for update in log)
        for update in wanted.values():
            if not times[update.number] and update.number not in unsure:
                yield f"lost: {update} of {target}"
            if once and update.operation in COUNTING and times[update.number] > 1:
                yield f"doubled: {update} of {target}"
        for update in log:
            if update.number not in wanted:
                yield f"unexpected: {update} of {target}"
            elif update != wanted[update.number]:
                yield f"changed: {wanted[update.number]} of {target} into {update}"
        first = list(dict.fromkeys(update.number for update in log))
        last = list(dict.fromkeys(update.number for update in reversed(log) if update.number not in unsure))[::-1]
        order = list(wanted)
        for numbers in (first, last):
            if numbers != [number for number in order if number in set(numbers)]:
                yield f"out of order: {numbers} of {target}"


def final(updates: Iterable[Update]) -> dict[str, Any] | None:
    """Return what updates leave of a profile that began as nothing; None if nothing of it is left."""
    left: dict[str, Any] | None = None
    for update in updates:
        left = None if update.operation == "$delete" else left or {}
        if left is None:
            continue
        if update.operation == "$unset":
            left = {key: value for key, value in left.items() if key not in update.value}
            continue
        for key, value in update.value.items():
            _change(left, update.operation, key, value)
    return left


def clusters(pairs: Iterable[tuple[str, str]]) -> set[frozenset[str]]:
    """Return who is who, given pairs of ids that are the same user."""
    known: dict[str, set[str]] = {}
    for pair in pairs:
        merged = set(pair).union(*(known.get(one, ()) for one in pair))
        known.update(dict.fromkeys(merged, merged))
    return {frozenset(one) for one in known.values()}


def _same(wanted: Event, found: Event) -> bool:
    times = {wanted.time_ms, found.time_ms} if wanted.time_ms is not None else {found.time_ms}
    return len(times) == 1 and (wanted.name, wanted.distinct_id, wanted.properties) == (
        found.name,
        found.distinct_id,
        found.properties,
    )


def _change(left: dict[str, Any], operation: str, key: str, value: Any) -> None:
    match operation:
        case "$set":
            left[key] = value
        case "$set_once":
            left.setdefault(key, value)
        case "$add":
            left[key] = left.get(key, 0) + value
        case "$append":
            left[key] = [*left.get(key, []), value]
        case "$union":
            left[key] = left.get(key, []) + [one for one in value if one not in left.get(key, [])]
        case "$remove" if value in left.get(key, []):
            at = left[key].index(value)
            left[key] = left[key][:at] + left[key][at + 1 :]
