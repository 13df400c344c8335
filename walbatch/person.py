"""Which persons a stored record is about. Pure.

A person is an id: an event has it as `distinct_id`, `$user_id` or `$device_id`, or names it in a link of two ids; a
profile update has it as `$distinct_id`. A group is no person. `$device:x` and `x` are the same person: the first is how
Simplified ID Merge spells the distinct_id of the device x.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from walbatch.event import Kind

_DEVICE = "$device:"

_FIELDS = {"distinct_id": "event.distinct_id", "$user_id": "event.user_id", "$device_id": "event.device_id"}

_LINKED = {"$identify": ("$identified_id", "$anon_id"), "$create_alias": ("alias",), "$merge": ("$distinct_ids",)}
"""Properties in which an event of this name has the ids that it links, besides its own."""


def bare(person: str) -> str:
    """Return an id in the one spelling by which persons are compared."""
    return person.removeprefix(_DEVICE)


def named(kind: Kind, payload: Mapping[str, Any]) -> dict[str, str]:
    """Return the ids in a record's decoded payload, each in its `bare` spelling, with the field that names it."""
    return {bare(one): field for one, field in _named(kind, payload) if isinstance(one, str) and bare(one)}


def _named(kind: Kind, payload: Mapping[str, Any]) -> Iterator[tuple[object, str]]:
    if kind is Kind.PROFILE:
        yield payload["$distinct_id"], "profile_update.distinct_id"
    if kind is not Kind.EVENT:
        return
    properties = payload["properties"]
    for key in _LINKED.get(payload["event"], ()):
        value = properties.get(key)
        for one in value if isinstance(value, list) else [value]:
            yield one, f"event.properties.{key}"
    for key, field in _FIELDS.items():
        yield properties.get(key), field
