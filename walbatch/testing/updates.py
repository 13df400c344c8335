"""Profile and group updates: Mixpanel's rules for them, and what each operation does. Pure.

Sources: https://docs.mixpanel.com/reference/profile-set and the pages beside it, and limits on the page
https://docs.mixpanel.com/reference/user-profile-limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from walbatch.testing.validator import MAX_RECORD_BYTES, Failure, Received, spelling_problem

MAX_PROPERTIES = 2000
"""Properties of one profile; an update that would add more is refused."""

Properties = dict[str, Any]


def update_failure(record: Received, *, group: bool) -> Failure | None:
    """Judge an update of a profile, or of a group."""
    update = record.value
    if not isinstance(update, dict):
        return Failure("data", "data, missing or empty")
    for key in ("$token", "$group_key", "$group_id") if group else ("$token", "$distinct_id"):
        if update.get(key) in (None, ""):
            return Failure(key, f"{key}, missing or empty")
    if group and "$distinct_id" in update:
        return Failure("$distinct_id", "$distinct_id, not allowed in a group update")
    if not any(operation in update for operation in OPERATIONS):
        return Failure("operation", "operation, missing or unknown")
    if record.size() >= MAX_RECORD_BYTES:
        return Failure("update", f"update, must be smaller than {MAX_RECORD_BYTES} bytes")
    wrong = next((name for name, (fits, _) in OPERATIONS.items() if name in update and not fits(update[name])), None)
    if wrong:
        return Failure(wrong, f"{wrong}, {_EXPECTED[OPERATIONS[wrong][0]]}")
    problem = spelling_problem(record)
    return Failure("update", f"update, {problem}") if problem else None


def overflows(properties: Mapping[str, Any], update: Mapping[str, Any]) -> bool:
    """Say whether an update would leave a profile with more than 2000 properties."""
    added = {name for key in ("$set", "$set_once", "$add", "$append", "$union") for name in update.get(key, ())}
    return bool(added) and len(added | properties.keys()) > MAX_PROPERTIES


def apply(properties: Properties, update: Mapping[str, Any]) -> Properties | None:
    """Return what an update leaves of a profile, or None if it deletes it. The operations run in the order they stand.

    An operation that does not suit the value that is there (`$add` to a text, `$append` to a number) does nothing.
    """
    if "$delete" in update:
        return None
    changed = dict(properties)
    for name, value in update.items():
        if name in OPERATIONS:
            OPERATIONS[name][1](changed, value)
    return changed


def _set(properties: Properties, value: Properties) -> None:
    properties.update(value)


def _set_once(properties: Properties, value: Properties) -> None:
    properties.update({key: one for key, one in value.items() if key not in properties})


def _add(properties: Properties, value: Mapping[str, float]) -> None:
    for key, amount in value.items():
        if _is_number(properties.get(key, 0)):
            properties[key] = properties.get(key, 0) + amount


def _append(properties: Properties, value: Properties) -> None:
    for key, one in value.items():
        if isinstance(properties.get(key, []), list):
            properties[key] = [*properties.get(key, []), one]


def _union(properties: Properties, value: Mapping[str, list[Any]]) -> None:
    for key, more in value.items():
        there = properties.get(key, [])
        if isinstance(there, list):
            properties[key] = there + [one for at, one in enumerate(more) if one not in there and one not in more[:at]]


def _remove(properties: Properties, value: Properties) -> None:
    for key, one in value.items():
        there = properties.get(key)
        if isinstance(there, list) and one in there:
            at = there.index(one)
            properties[key] = there[:at] + there[at + 1 :]


def _unset(properties: Properties, names: list[str]) -> None:
    for name in names:
        properties.pop(name, None)


def _delete(properties: Properties, _: object) -> None:
    properties.clear()


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(_is_number(one) for one in value.values())


def _is_arrays(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(one, list) for one in value.values())


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_anything(_: object) -> bool:
    return True


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


Operation = tuple[Callable[[Any], bool], Callable[[Properties, Any], None]]

OPERATIONS: dict[str, Operation] = {
    "$set": (_is_object, _set),
    "$set_once": (_is_object, _set_once),
    "$add": (_is_numbers, _add),
    "$append": (_is_object, _append),
    "$union": (_is_arrays, _union),
    "$remove": (_is_object, _remove),
    "$unset": (_is_names, _unset),
    "$delete": (_is_anything, _delete),
}
"""Each operation: what its value must be, and what it does. Groups know them all here, though Mixpanel's pages on
groups leave out `$add` and `$append`."""

_EXPECTED: dict[Callable[[Any], bool], str] = {
    _is_object: "must be an object",
    _is_numbers: "must be an object of numbers",
    _is_arrays: "must be an object of arrays",
    _is_names: "must be an array of names",
}
