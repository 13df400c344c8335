"""Requests that break a rule, each with canaries in all of its texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from canary import NAME, PERSON, PROPERTIES, VALUE
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from walbatch.pb.analytics.v1 import service_pb2 as pb

LONG = 20
"""So many canaries in a row are longer than any text may be."""

WRONG_JSON = {
    "cut off": PROPERTIES[:-2],
    "no object": json.dumps([VALUE]),
    "no number": f'{{"{NAME}": NaN, "b": "{VALUE}"}}',
    "too large a number": f'{{"{NAME}": 123456789012345678901234567890, "b": "{VALUE}"}}',
    "too deep": json.dumps({NAME: {NAME: {NAME: {NAME: {NAME: VALUE}}}}}),
    "too many elements": json.dumps({NAME: [VALUE] * 300}),
    "too long a name": json.dumps({NAME * LONG: VALUE}),
    "too large": json.dumps({NAME: VALUE * 60_000}),
    "half a surrogate": f'{{"{NAME}": "{VALUE}\\ud800"}}',
    "reserved": json.dumps({"token": VALUE, "$token": VALUE, "time": VALUE}),
    "another person": json.dumps({"distinct_id": VALUE, "$user_id": VALUE, "$device_id": VALUE}),
    "ignored": json.dumps({"$ignore": VALUE, NAME: VALUE}),
}
FOR_UPDATES = [
    text for key, text in WRONG_JSON.items() if key not in {"too many elements", "another person", "ignored"}
]
"""Those that are wrong in a profile, too."""


def events() -> Iterator[pb.Event]:
    """Yield events that are refused."""
    good: dict[str, Any] = {"name": "E", "distinct_id": PERSON, "properties_json": PROPERTIES}
    for text in WRONG_JSON.values():
        yield pb.Event(**good | {"properties_json": text, "user_id": PERSON, "device_id": PERSON})
    for field in ("name", "event_id", "distinct_id", "device_id", "user_id", "ip"):
        yield pb.Event(**good | {field: (PERSON if field != "name" else VALUE) * LONG})
    yield pb.Event(**good, event_time=Timestamp(seconds=99_999_999_999))
    yield pb.Event(**good, event_time=Timestamp(nanos=-1))
    wide: Any = Struct()
    wide.update({NAME: [{NAME: [{NAME: [{NAME: VALUE}]}]}]})
    yield pb.Event(name="E", distinct_id=PERSON, properties=wide)
    for name in ("$identify", "$create_alias", "$merge"):
        yield pb.Event(
            name=name, properties_json=json.dumps({NAME: VALUE, "alias": [VALUE], "$distinct_ids": [PERSON]})
        )


def records() -> Iterator[pb.Record]:
    """Yield records of every kind that are refused."""
    yield pb.Record()
    for event in events():
        yield pb.Record(event=event)
    wrong = [pb.Properties(json=text) for text in FOR_UPDATES]
    text = pb.Properties(json=PROPERTIES)
    who: dict[str, Any] = {"distinct_id": PERSON}
    of_group: dict[str, Any] = {"group_key": NAME, "group_id": VALUE}
    for properties in wrong:
        yield pb.Record(profile_update=pb.ProfileUpdate(**who, set=properties))
        yield pb.Record(group_update=pb.GroupUpdate(**of_group, set_once=properties))
    yield pb.Record(profile_update=pb.ProfileUpdate(**who, add=text))
    yield pb.Record(profile_update=pb.ProfileUpdate(**who, union=text))
    yield pb.Record(profile_update=pb.ProfileUpdate(**who, unset=pb.PropertyNames(names=[NAME * LONG])))
    yield pb.Record(profile_update=pb.ProfileUpdate(**who))
    yield pb.Record(group_update=pb.GroupUpdate(group_key=NAME * LONG, group_id=VALUE * LONG, set=text))
    yield pb.Record(group_update=pb.GroupUpdate(**of_group))
    yield pb.Record(identity_link=pb.IdentityLink(identified_id=PERSON, anonymous_id=PERSON, alias=PERSON))
    yield pb.Record(identity_link=pb.IdentityLink(identified_id=PERSON, anonymous_id=PERSON))
    yield pb.Record(identity_link=pb.IdentityLink(merged_ids=[PERSON] * 3))
    yield pb.Record(identity_link=pb.IdentityLink(alias=PERSON, distinct_id=PERSON))


def identifications() -> Iterator[pb.IdentifyUserRequest]:
    """Yield sign-ins that are refused."""
    for text in FOR_UPDATES:
        yield pb.IdentifyUserRequest(user_id=PERSON, anonymous_id=VALUE, traits_json=text)
    yield pb.IdentifyUserRequest(user_id=PERSON * LONG, anonymous_id=VALUE * LONG, traits_json=PROPERTIES)
    yield pb.IdentifyUserRequest(anonymous_id=PERSON, traits_json=PROPERTIES)
