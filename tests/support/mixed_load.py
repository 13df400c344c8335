"""Records of every kind as an application might send them, each with what Mixpanel should make of it. Repeatable.

Each client has users, devices and groups of its own, so that the order in which it sends is the order of acceptance.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from accounting import Event, Target, Update

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.testing.updates import update_failure
from walbatch.testing.validator import Failure, Received, event_failure

NAMES = ("Page View", "Signed Up", "Purchase", "Größe 日本 🦆", "Debug Trace", "Debug Dump")
POISON = "poison"
"""A property with which the fakes of these tests refuse a record that walbatch takes."""

CLIENT_SPAN_MS = 1_000_000
"""Time between the first records of two clients: more than a client sends. The time tells an update from all others."""


class Link(NamedTuple):
    """Two ids that are one user, by an event of this name."""

    event: str
    first: str
    second: str


class Change(NamedTuple):
    """An update, and of whom."""

    target: Target
    update: Update


class Sent(NamedTuple):
    """A record, and what it means: nothing if walbatch must refuse it."""

    record: pb.Record
    meaning: Event | Link | Change | None
    poison: bool = False


class Client:
    """One application that sends."""

    def __init__(self, number: int, base_ms: int, users: int) -> None:
        self._name = f"c{number}"
        self._random = Random(number)
        self._now_ms = base_ms + number * CLIENT_SPAN_MS
        self._users = users
        self._made = 0

    def records(self, count: int) -> Iterator[Sent]:
        """Yield so many records."""
        makers = (self._event, self._profile, self._group, self._link, self._invalid)
        for _ in range(count):
            self._made += 1
            self._now_ms += 1
            (make,) = self._random.choices(makers, (76.0, 19.6, 2.6, 1.6, 0.2))
            yield make()

    def _event(self) -> Sent:
        name, number = self._random.choice(NAMES), self._made
        poison = self._random.random() < 0.001
        properties: dict[str, Any] = {"n": number, "price": number / 4, "tags": [f"t{number % 7}", None, True]}
        properties |= {"text": f"Ærøskøbing 🚲 {number}"} if number % 3 else {"inner": {"a": {"b": [2**53 - 1, -1]}}}
        properties |= {POISON: True} if poison else {}
        event = pb.Event(name=name)
        if number % 5:
            event.event_id = insert_id = f"{self._name}-e-{number}"
            made = {}
        else:
            event.event_id = f"order/{self._name}/{number}"
            insert_id = hashlib.sha256(event.event_id.encode()).hexdigest()[:36]
            made = {"walbatch_event_id": event.event_id}
        if number % 11 == 0:
            event.properties.update(properties)
        else:
            event.properties_json = json.dumps(properties)
        timed = number % 20 != 0
        if timed:
            event.event_time.FromMilliseconds(self._now_ms)
        event.ip = "192.0.2.7" if number % 13 == 0 else ""
        who, more = self._identity(event)
        expected = properties | made | {"ip": event.ip or "0"} | more
        meaning = Event(insert_id, name, who, self._now_ms if timed else None, expected)
        return Sent(pb.Record(event=event), meaning, poison)

    def _identity(self, event: pb.Event) -> tuple[str, dict[str, str]]:
        """Say who did it, in one of the ways there are, and return what that makes of the event."""
        user = f"{self._name}-u{self._random.randrange(self._users)}"
        device = f"{user}-d{self._random.randrange(2)}"
        match self._random.randrange(5):
            case 0:
                event.distinct_id = user
                return user, {}
            case 1:
                event.device_id = device
                return f"$device:{device}", {"$device_id": device}
            case 2:
                event.device_id, event.user_id = device, user
                return user, {"$device_id": device, "$user_id": user}
            case 3:
                event.user_id = user
                return user, {"$user_id": user}
            case _:
                return "", {}

    def _profile(self) -> Sent:
        """Update one of the users: a third of them are deleted now and then, the others have counters."""
        user = self._random.randrange(self._users)
        who = f"{self._name}-p{user}"
        plain = ("$set", "$set_once", "$union", "$unset", "$delete")
        operation = self._random.choice(plain if user % 3 == 0 else (*plain[:-1], "$add", "$append", "$remove"))
        value, poison = self._value(operation, 0.0003)
        update = pb.ProfileUpdate(update_id=f"{self._name}-u-{self._made}", distinct_id=who)
        self._fill(update, operation, value)
        return Sent(
            pb.Record(profile_update=update), Change(who, Update(self._now_ms, operation, value)), poison=poison
        )

    def _group(self) -> Sent:
        """Update one of the groups: half of them are deleted now and then, the others removed from."""
        number = self._random.randrange(40)
        who = ("company", f"{self._name}-g{number}")
        last = "$delete" if number % 2 else "$remove"
        operation = self._random.choice(("$set", "$set_once", "$union", "$unset", last))
        value, poison = self._value(operation, 0.003)
        update = pb.GroupUpdate(update_id=f"{self._name}-g-{self._made}", group_key=who[0], group_id=who[1])
        self._fill(update, operation, value)
        return Sent(pb.Record(group_update=update), Change(who, Update(self._now_ms, operation, value)), poison=poison)

    def _value(self, operation: str, poison_rate: float) -> tuple[Any, bool]:
        """Return what an operation is done with. Names that are counted are changed in no other way."""
        which, number = self._random.randrange(3), self._made
        values: dict[str, Any] = {
            "$set": {f"p{which}": f"Größe {number}", "n": number},
            "$set_once": {f"p{which}": number},
            "$add": {f"counted{which}": self._random.choice((1, -3, 10**6))},
            "$append": {f"counted_list{which}": number % 3},
            "$remove": {f"counted_list{which}": number % 3},
            "$union": {f"list{which}": [number % 5, f"x{number % 4}"]},
            "$unset": [f"p{which}", f"list{which}"],
            "$delete": "",
        }
        poison = operation == "$set" and self._random.random() < 5 * poison_rate
        return values[operation] | {POISON: True} if poison else values[operation], poison

    def _fill(self, update: pb.ProfileUpdate | pb.GroupUpdate, operation: str, value: Any) -> None:
        update.update_time.FromMilliseconds(self._now_ms)
        match getattr(update, operation[1:]):
            case pb.Properties() as properties:
                properties.json = json.dumps(value)
            case pb.PropertyNames(names=names):
                names.extend(value)
            case deletion:
                deletion.SetInParent()

    def _link(self) -> Sent:
        """Link ids, so that no cluster comes near the limit of 500."""
        pair = (f"{self._name}-a{self._made}", f"{self._name}-b{self._random.randrange(400)}")
        match self._random.randrange(3):
            case 0:
                link, name = pb.IdentityLink(identified_id=pair[1], anonymous_id=pair[0]), "$identify"
                pair = pair[::-1]
            case 1:
                link, name = pb.IdentityLink(merged_ids=pair), "$merge"
            case _:
                link, name = pb.IdentityLink(distinct_id=pair[0], alias=pair[1]), "$create_alias"
        return Sent(pb.Record(identity_link=link), Link(name, *pair))

    def _invalid(self) -> Sent:
        wrong = (
            pb.Record(),
            pb.Record(event=pb.Event(name=" ")),
            pb.Record(event=pb.Event(name="E", distinct_id="undefined")),
            pb.Record(event=pb.Event(name="E", properties_json='{"a": NaN}')),
            pb.Record(profile_update=pb.ProfileUpdate(distinct_id="u")),
            pb.Record(group_update=pb.GroupUpdate(group_key="k", unset=pb.PropertyNames(names=["a"]))),
            pb.Record(identity_link=pb.IdentityLink(merged_ids=["one"])),
        )
        return Sent(self._random.choice(wrong), None)


def strict_event(record: Received, now_ms: int, *, strict: bool = True) -> Failure | None:
    """Judge an event as the fake does, and refuse poison."""
    if POISON in record.properties():
        return Failure.of(f"properties.{POISON}", "must not be there")
    return event_failure(record, now_ms, strict=strict)


def strict_update(record: Received, *, group: bool) -> Failure | None:
    """Judge an update as the fake does, and refuse poison."""
    if POISON in record.value.get("$set", ()):
        return Failure("$set", f"$set, must not have {POISON}")
    return update_failure(record, group=group)
