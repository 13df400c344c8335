"""What Mixpanel would refuse, or would change without a word, is refused here: the checks, without the records.

Sources: https://docs.mixpanel.com/reference/import-events for events and ids,
https://docs.mixpanel.com/reference/user-profile-limits for profiles, and for `$ignore`
https://docs.mixpanel.com/docs/tracking-best-practices/bot-traffic. Every check raises `InvalidRecord`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from typing import Any

from walbatch.errors import InvalidRecord
from walbatch.json_text import HIGH, LOW, check_unicode, refuse_if_known

MAX_NAME = 255
"""Characters of an id, an event's name or a property's name. Mixpanel cuts longer ones without a word."""

MAX_IP = 45
"""Characters of an address: the longest is an IPv6 one that ends in the IPv4 notation."""

MAX_PROPERTIES = 247
"""Mixpanel takes 254 an event; the difference is room for the seven that walbatch may write itself."""

MAX_PROFILE_PROPERTIES = 2000
"""What one profile can hold."""

MAX_ELEMENTS = 254
"""Elements of an event's array, keys of a nested object."""

MAX_DEPTH = 3
"""Levels of nesting of a property's value."""

MAX_RECORD_BYTES = 1_000_000
"""A record's JSON is smaller than this: Mixpanel's 1 MB, read as the smaller of its two meanings."""

MAX_UPDATE_BYTES = MAX_RECORD_BYTES - 1000
"""The same for an update, before the token is put in front of it: Mixpanel counts that as well."""

EARLIEST_MS = 31_536_000_000
"""1971-01-01: Mixpanel refuses earlier times."""

SECONDS_BELOW = 100_000_000_000
"""An event's time below this counts seconds: in milliseconds it would be before 1973-03-03, in seconds it is in the
year 5138. So an earlier time is sent in whole seconds."""

MAX_AHEAD_MS = 3_600_000
"""Mixpanel refuses times more than an hour ahead, and overwrites those within it with the time of arrival. Two
attempts would get two times and no longer deduplicate, so a time ahead becomes the time of acceptance."""

RESERVED = frozenset({"time", "distinct_id", "$insert_id", "token", "$token"})
"""Properties of an event that are written by the server, from fields of the request and from its own settings."""

OWN_FIELDS = frozenset({"$user_id", "$device_id", "ip"})
"""Properties that an event has fields for, and that may stand among the properties all the same."""

SPECIAL = RESERVED | OWN_FIELDS | {"$ignore"}
"""Properties of an event that have to be looked at one by one."""

PROFILE_RESERVED = frozenset({"token", "$token", "$distinct_id", "$group_key", "$group_id"})
"""Names that no property of a profile can have: they say whose profile it is, and in which project."""

BAD_IDS = frozenset(
    "00000000-0000-0000-0000-000000000000 anon anonymous nil none null n/a na undefined unknown <nil> 0 -1 true false"
    " [] {}".split()
)
"""Ids that Mixpanel refuses, in lower case."""

IDENTITY_EVENTS = frozenset({"$identify", "$create_alias", "$merge"})
"""Events that tell Mixpanel who is who."""


def check_text(value: str, field: str, *, required: bool = False, limit: int = MAX_NAME) -> None:
    """Refuse a text that is blank though required, too long, or no Unicode."""
    if required and not value.strip():
        raise InvalidRecord(field, "REQUIRED", "must not be empty or blank")
    if len(value) > limit:
        raise InvalidRecord(field, "TOO_LONG", f"has {len(value)} characters; at most {limit} are kept")
    if not value.isascii():
        check_unicode(value, field)


def check_id(value: str, field: str, *, required: bool = False) -> None:
    """Refuse an id that Mixpanel refuses. The empty string stands for "nobody" where it is not required."""
    check_text(value, field, required=required)
    if value.lower() in BAD_IDS or value.isspace():
        raise InvalidRecord(
            field, "BAD_ID", f"{value!r} stands for no one in particular; send a real id, or leave it empty"
        )


def check_time(time_ms: int | None, now_ms: int, field: str) -> int:
    """Return the time to freeze, in milliseconds: never ahead of `now_ms`."""
    if time_ms is None:
        return now_ms
    if time_ms < EARLIEST_MS:
        raise InvalidRecord(field, "TOO_EARLY", "is before 1971-01-01; check its unit")
    if time_ms > now_ms + MAX_AHEAD_MS:
        raise InvalidRecord(field, "IN_THE_FUTURE", "is more than an hour ahead; check the sender's clock")
    return min(time_ms, now_ms)


def check_properties(
    properties: Mapping[str, Any], field: str, limit: int, *, max_elements: int | None = MAX_ELEMENTS, source: str = ""
) -> None:
    """Refuse properties that are too many, too deep, too long or no numbers.

    `max_elements` is that of an array. `source` is the text that the properties of an event were read from: only it
    can tell an integer that became a float from a float.
    """
    if len(properties) > limit:
        raise InvalidRecord(field, "TOO_MANY", f"has {len(properties)} properties; at most {limit} fit")
    if "" in properties or max(map(len, properties), default=0) > MAX_NAME:
        raise InvalidRecord(
            field, "BAD_NAME", f"has a property name that is empty or longer than {MAX_NAME} characters"
        )
    for key, value in properties.items():
        kind = type(value)
        if kind is float:
            if not LOW < value < HIGH:
                _check_large(value, f"{field}.{key}", source)
        elif kind is dict or kind is list:
            _check_nested(value, f"{field}.{key}", MAX_DEPTH, max_elements, source)


def _check_nested(
    value: dict[str, Any] | list[Any], field: str, levels: int, max_elements: int | None, source: str
) -> None:
    if levels == 0:
        raise InvalidRecord(field, "TOO_DEEP", f"is nested more than {MAX_DEPTH} levels deep")
    is_object = type(value) is dict
    limit = MAX_ELEMENTS if is_object else max_elements
    if limit is not None and len(value) > limit:
        raise InvalidRecord(field, "TOO_MANY", f"has {len(value)} elements; at most {limit} fit")
    for inner in value.values() if isinstance(value, dict) else value:
        kind = type(inner)
        if kind is float:
            if not LOW < inner < HIGH:
                _check_large(inner, field, source)
        elif kind is dict or kind is list:
            _check_nested(inner, field, levels - 1, max_elements, source)


def _check_large(value: float, field: str, source: str) -> None:
    if not isfinite(value):
        raise InvalidRecord(field, "NOT_FINITE", "is NaN or an infinity, which JSON has no word for")
    if source:
        refuse_if_known(source, "event.properties_json")


def check_special(properties: Mapping[str, Any]) -> None:
    """Refuse the properties of an event that are not its sender's to set, or that would make Mixpanel drop it."""
    if not RESERVED.isdisjoint(properties):
        key = min(RESERVED.intersection(properties))
        raise InvalidRecord(f"event.properties.{key}", "RESERVED", "is set by walbatch; use the record's own fields")
    if properties.get("$ignore"):
        raise InvalidRecord(
            "event.properties.$ignore", "DROPPED", "makes Mixpanel drop the event and answer success; do not send it"
        )


def own_field(properties: Mapping[str, Any], key: str, given: str) -> str:
    """Return what an event says in a field of its own, or else in the property of that name; a number counts as text.

    A property that is null or empty says nothing. One that says something else than the field is refused.
    """
    field = f"event.properties.{key}"
    found = properties.get(key)
    if found is None or found == "":
        return given
    if type(found) is int:
        found = str(found)
    if given and found != given:
        raise InvalidRecord(field, "CONFLICT", "differs from the event's own field; give it once")
    if not isinstance(found, str):
        raise InvalidRecord(field, "NOT_TEXT", "must be text")
    return found


def check_identity(name: str, distinct_id: str, properties: Mapping[str, Any]) -> None:
    """Refuse an event that is to tell Mixpanel who is who, and would not."""
    if name == "$merge":
        merged = properties.get("$distinct_ids")
        check_merged(merged if isinstance(merged, list) else [], "event.properties.$distinct_ids")
    if name == "$create_alias":
        check_alias(properties.get("alias", ""), distinct_id, "event.properties.alias", "event.distinct_id")
    if name == "$identify":
        pair = [key for key in ("$identified_id", "$anon_id") if key in properties]
        for key in pair:
            check_any_id(properties[key], f"event.properties.{key}")
        if len(pair) == 2:  # noqa: PLR2004  a pair
            check_different(properties["$identified_id"], properties["$anon_id"], "event.properties.$anon_id")
        else:  # a project with Simplified ID Merge wants a distinct_id instead
            check_id(distinct_id, "event.distinct_id", required=True)


def check_merged(ids: Sequence[Any], field: str) -> None:
    """Refuse anything but two different ids."""
    if len(ids) != 2:  # noqa: PLR2004  a pair
        raise InvalidRecord(field, "REQUIRED", f"has {len(ids)} ids; a merge has exactly two")
    for one in ids:
        check_any_id(one, field)
    if ids[0] == ids[1]:
        raise InvalidRecord(field, "CONFLICT", "names the same id twice; a merge has two different ones")


def check_different(identified_id: str, anonymous_id: str, field: str) -> None:
    """Refuse to link an id to itself."""
    if anonymous_id == identified_id:
        raise InvalidRecord(field, "CONFLICT", "is the user's own id; there is nothing to link")


def check_alias(alias: Any, distinct_id: str, alias_field: str, field: str) -> None:
    """Refuse anything but another name for an id."""
    check_any_id(alias, alias_field)
    check_id(distinct_id, field, required=True)
    if alias == distinct_id:
        raise InvalidRecord(alias_field, "CONFLICT", "is the distinct_id itself; an alias is another id")


def check_any_id(value: Any, field: str) -> None:
    """Refuse what is no text, or no id."""
    if not isinstance(value, str):
        raise InvalidRecord(field, "NOT_TEXT", "must be text")
    check_id(value, field, required=True)


def check_reserved(names: Collection[str], field: str) -> None:
    """Refuse names that no property of a profile can have."""
    if not PROFILE_RESERVED.isdisjoint(names):
        key = min(PROFILE_RESERVED.intersection(names))
        raise InvalidRecord(f"{field}.{key}", "RESERVED", "is no property of a profile; use the record's own fields")


def check_numbers(properties: Mapping[str, Any], field: str) -> None:
    """Refuse what cannot be added."""
    for key, value in properties.items():
        if type(value) not in (int, float):
            raise InvalidRecord(f"{field}.{key}", "NOT_A_NUMBER", "must be a number, since it is to be added")


def check_arrays(properties: Mapping[str, Any], field: str) -> None:
    """Refuse what cannot be united with a list."""
    for key, value in properties.items():
        if not isinstance(value, list):
            raise InvalidRecord(f"{field}.{key}", "NOT_AN_ARRAY", 'must be an array, such as ["a", "b"]')


def check_names(names: Sequence[Any], field: str) -> None:
    """Refuse anything but names of properties, at least one."""
    if not names:
        raise InvalidRecord(field, "REQUIRED", "must name at least one property")
    if len(names) > MAX_PROFILE_PROPERTIES:
        raise InvalidRecord(field, "TOO_MANY", f"has {len(names)} names; at most {MAX_PROFILE_PROPERTIES} fit")
    for name in names:
        if not isinstance(name, str):
            raise InvalidRecord(field, "NOT_TEXT", "must be names of properties, as text")
        if not 0 < len(name) <= MAX_NAME:
            raise InvalidRecord(field, "BAD_NAME", f"has a name that is empty or longer than {MAX_NAME} characters")
