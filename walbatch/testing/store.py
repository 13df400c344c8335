"""What a fake project holds, and the views that tests compare: events, profiles, groups, links of ids.

An event is kept as it came, beside the four parts of its identity as Mixpanel stores them. The rest of the stored form
is computed when it is asked for, so that 200,000 events fit into memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from random import Random
from string import ascii_letters
from typing import Any

from walbatch.testing.identity import MAX_CLUSTER, Identities
from walbatch.testing.projects import Project
from walbatch.testing.updates import apply, overflows
from walbatch.testing.validator import IDENTITY_PAIRS, Received, seconds, with_derived_id

MAX_TEXT = 255
"""Characters that are stored of a text, a property's name and an event's name. The rest is cut without a word."""

MADE_ID_LETTERS = 36

GroupId = tuple[str, str]
"""A group's key, such as Company, and its id."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a request came: its endpoint, when, and from where."""

    endpoint: str
    at_ms: int
    sender: str


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as Mixpanel holds it. `sent` is the JSON value that came; do not change it."""

    event: str
    time_ms: int
    distinct_id: str
    insert_id: str
    arrival: Arrival
    sent: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, int, str, str]:
        """What makes two events the same at query time."""
        return self.event, self.time_ms, self.distinct_id, self.insert_id

    @property
    def day(self) -> date:
        """The UTC day of the event."""
        return datetime.fromtimestamp(self.time_ms // 1000, UTC).date()

    def properties(self) -> dict[str, Any]:
        """Return the properties as they are stored: cut, with `time` in milliseconds, and with made-up ids."""
        own = {"time": self.time_ms, "distinct_id": self.distinct_id, "$insert_id": self.insert_id}
        return {key[:MAX_TEXT]: _cut(value) for key, value in self.sent["properties"].items()} | own


@dataclass(frozen=True, slots=True)
class Update:
    """A profile or group update that was applied. `sent` is the JSON value that came."""

    at_ms: int
    sent: Mapping[str, Any]


@dataclass(slots=True)
class Profile:
    """A user's or a group's present state. `last_seen_ms` is None until an update came without `$ignore_time`."""

    properties: dict[str, Any] = field(default_factory=dict)
    last_seen_ms: int | None = None


class ProjectData:
    """Everything that one project accepted."""

    def __init__(self, project: Project, random: Random) -> None:
        self.project = project
        self.profiles: dict[str, Profile] = {}
        """Final state by distinct_id; a deleted profile is not in it. Ids are not resolved through `identities`."""
        self.groups: dict[GroupId, Profile] = {}
        """Final state by group key and group id."""
        self.identities = Identities(None if project.simplified else MAX_CLUSTER)
        self._events: list[StoredEvent] = []
        self._updates: dict[str | GroupId, list[Update]] = {}
        self._random = random

    def events(self) -> list[StoredEvent]:
        """Return every event in order of arrival, copies included. Those that link ids are in `identities` instead."""
        return list(self._events)

    def deduplicated(self) -> list[StoredEvent]:
        """Return the events as queries see them: of those with the same `key`, the latest to arrive."""
        return list({event.key: event for event in self._events}.values())

    def compacted(self) -> list[StoredEvent]:
        """Return the events as they are left some weeks later: the time may then differ within a UTC day."""
        return list({(one.event, one.distinct_id, one.insert_id, one.day): one for one in self._events}.values())

    def updates(self, one: str | GroupId) -> list[Update]:
        """Return the updates of a profile (its distinct_id) or a group (its key and id), in the order of arrival."""
        return list(self._updates.get(one, ()))

    def add(self, record: Received, arrival: Arrival) -> None:
        """Take a valid record of the arrival's endpoint."""
        if arrival.endpoint in ("/engage", "/groups"):
            self._update(record, arrival)
        elif (ids := _linked_ids(record)) and None not in ids:
            self.identities.link(record.name(), str(ids[0]), str(ids[1]), effective=not self.project.simplified)
        else:  # in a Simplified project also an $identify that names no pair
            self._add_event(record, arrival)

    def is_full_for(self, record: Received) -> bool:
        """Say whether an update would give a profile more than 2000 properties."""
        one = _target(record.value)
        profile = self.groups.get(one) if isinstance(one, tuple) else self.profiles.get(one)
        return overflows(profile.properties if profile else {}, record.value)

    def _add_event(self, record: Received, arrival: Arrival) -> None:
        derived = with_derived_id(record) if self.project.simplified else record
        self._events.append(self._stored(derived, record, arrival))
        properties = record.properties()
        user, device = properties.get("$user_id"), properties.get("$device_id")
        if self.project.simplified and user and device and len(self.identities.cluster(f"$device:{device}")) == 1:
            self.identities.link(record.name(), str(user), f"$device:{device}")

    def _update(self, record: Received, arrival: Arrival) -> None:
        update = record.value
        one = _target(update)
        self._updates.setdefault(one, []).append(Update(arrival.at_ms, update))
        profiles: dict[Any, Profile] = self.groups if isinstance(one, tuple) else self.profiles
        profile = profiles.get(one, Profile())
        properties = apply(profile.properties, update)
        if properties is None:
            profiles.pop(one, None)
            return
        seen_ms = profile.last_seen_ms if update.get("$ignore_time") else _time_ms(update.get("$time"), arrival.at_ms)
        profiles[one] = Profile(properties, seen_ms)

    def _stored(self, record: Received, as_sent: Received, arrival: Arrival) -> StoredEvent:
        properties = record.properties()
        time_ms = _time_ms(properties.get("time"), arrival.at_ms)
        return StoredEvent(
            str(record.name())[:MAX_TEXT],
            min(time_ms, arrival.at_ms),  # what is slightly in the future happened now
            str(properties.get("distinct_id", _hashed(arrival.sender)))[:MAX_TEXT],
            str(properties.get("$insert_id") or self._made_id()),
            arrival,
            as_sent.value,
        )

    def _made_id(self) -> str:
        """Return an id as the server makes it: new for each copy, so that the copies stay."""
        return "".join(self._random.choices(ascii_letters, k=MADE_ID_LETTERS))


def _linked_ids(record: Received) -> Sequence[object]:
    """Return the two ids that an event links, None for one that is missing; nothing for any other event."""
    if not record.is_identity():
        return ()
    name, properties = record.name(), record.properties()
    pair: Sequence[object] = properties["$distinct_ids"] if name == "$merge" else ()
    return pair or [properties.get(key) for key in IDENTITY_PAIRS[name]]


def _target(update: Mapping[str, Any]) -> str | GroupId:
    if "$group_key" in update:
        return str(update["$group_key"]), str(update["$group_id"])
    return str(update["$distinct_id"])


def _time_ms(time: object, otherwise_ms: int) -> int:
    return round(seconds(time) * 1000) if isinstance(time, int | float) else otherwise_ms


def _hashed(sender: str) -> str:
    """Return the distinct_id of an event without one: all events of a sender become one user."""
    return hashlib.sha256(sender.encode()).hexdigest()[:32]


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if isinstance(value, dict):
        return {key[:MAX_TEXT]: _cut(one) for key, one in value.items()}
    return [_cut(one) for one in value] if isinstance(value, list) else value
