"""From messages to records: updates, links, and whatever a message can hold."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from walbatch import wire
from walbatch.errors import InvalidRecord
from walbatch.event import GROUP_OPERATIONS, PROFILE_OPERATIONS, Kind, described
from walbatch.pb.analytics.v1 import service_pb2 as pb

NOW_MS = 1_700_000_000_000
OBJECTS: dict[str, dict[str, Any]] = {"add": {"n": 1}, "union": {"n": [1]}}
"""What the operations take that do not take everything."""


def operation(name: str, spelling: str = "json") -> Any:
    """A value for an operation of this name, and what is sent for it."""
    if name == "unset":
        return pb.PropertyNames(names=["plan", "n"]), ["plan", "n"]
    if name == "delete":
        return {}, ""
    value = OBJECTS.get(name, {"n": "x"})
    if spelling == "json":
        return pb.Properties(json=orjson.dumps(value).decode()), value
    return pb.Properties(struct=ParseDict(value, Struct())), value


def refusal(message: pb.Record) -> InvalidRecord:
    """The refusal of a message that must be refused."""
    with pytest.raises(InvalidRecord) as caught:
        wire.record(message, NOW_MS)
    return caught.value


@pytest.mark.parametrize("name", [operation[1:] for operation in PROFILE_OPERATIONS])
@pytest.mark.parametrize("spelling", ["json", "struct"])
def test_a_profile_update_arrives(name: str, spelling: str) -> None:
    """Each operation that Mixpanel knows has a field, and each object two spellings."""
    given_value, sent = operation(name, spelling)
    update = pb.ProfileUpdate(update_id="x1", distinct_id="u1", ip="192.0.2.1", **{name: given_value})
    update.update_time.FromMilliseconds(NOW_MS - 1)
    record = wire.record(pb.Record(profile_update=update), NOW_MS)
    assert (record.kind, record.event_id, record.name, record.time_given) == (Kind.PROFILE, "x1", f"${name}", True)
    assert orjson.loads(record.payload) == {
        "$distinct_id": "u1",
        "$ip": "192.0.2.1",
        "$time": 1_699_999_999.999,
        f"${name}": sent,
    }


@pytest.mark.parametrize("name", [operation[1:] for operation in GROUP_OPERATIONS])
def test_a_group_update_arrives(name: str) -> None:
    """Each operation that is safe to offer has a field."""
    given_value, sent = operation(name)
    update = pb.GroupUpdate(update_id="x1", group_key="company", group_id="acme", **{name: given_value})
    record = wire.record(pb.Record(group_update=update), NOW_MS)
    assert (record.kind, record.event_id, record.name, record.time_given) == (Kind.GROUP, "x1", f"${name}", False)
    assert orjson.loads(record.payload) == {
        "$group_key": "company",
        "$group_id": "acme",
        "$time": NOW_MS / 1000,
        f"${name}": sent,
    }


def test_the_switches_of_a_profile_update_arrive() -> None:
    """Each of them is there only where it was asked for."""
    update = pb.ProfileUpdate(distinct_id="u1", ignore_time=True, delete=pb.ProfileDeletion(ignore_alias=True))
    sent = orjson.loads(wire.record(pb.Record(profile_update=update), NOW_MS).payload)
    assert (sent["$ignore_time"], sent["$ignore_alias"], sent["$delete"]) == (True, True, "")


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.Record(profile_update=pb.ProfileUpdate(distinct_id="u1")), "profile_update.operation"),
        (pb.Record(group_update=pb.GroupUpdate(group_key="k", group_id="g")), "group_update.operation"),
    ],
)
def test_an_update_without_an_operation_is_refused(message: pb.Record, field: str) -> None:
    """An update that changes nothing is a mistake; the refusal names what there is."""
    refused = refusal(message)
    assert (refused.field, refused.reason) == (field, "REQUIRED")
    assert "set, set_once" in refused.description


@pytest.mark.parametrize(
    ("properties", "field"),
    [
        (pb.Properties(json="{"), "profile_update.set.json"),
        (pb.Properties(json='{"token":1}'), "profile_update.set.token"),
        (pb.Properties(struct=ParseDict({"$distinct_id": 1}, Struct())), "profile_update.set.$distinct_id"),
    ],
)
def test_a_refused_update_names_its_operation(properties: pb.Properties, field: str) -> None:
    """The path leads to what is wrong."""
    assert refusal(pb.Record(profile_update=pb.ProfileUpdate(distinct_id="u1", set=properties))).field == field


def test_an_identity_link_arrives() -> None:
    """A link of a batch is the same record as that of IdentifyUser."""
    link = pb.IdentityLink(identified_id="u1", anonymous_id="a1")
    request = pb.IdentifyUserRequest(user_id="u1", anonymous_id="a1")
    assert wire.record(pb.Record(identity_link=link), NOW_MS) == wire.identify(request, NOW_MS)[1]


@pytest.mark.parametrize(
    ("link", "name", "who"),
    [
        (pb.IdentityLink(link_id="l1", identified_id="u1", anonymous_id="a1"), "$identify", "u1"),
        (pb.IdentityLink(link_id="l1", merged_ids=["a", "b"]), "$merge", "a"),
        (pb.IdentityLink(link_id="l1", alias="new", distinct_id="orig"), "$create_alias", "orig"),
    ],
)
def test_a_link_has_three_forms(link: pb.IdentityLink, name: str, who: str) -> None:
    """Each becomes the event that Mixpanel knows for it."""
    record = wire.record(pb.Record(identity_link=link), NOW_MS)
    assert (record.kind, record.event_id, record.name, record.distinct_id) == (Kind.EVENT, "l1", name, who)


@pytest.mark.parametrize(
    ("link", "field", "reason"),
    [
        (pb.IdentityLink(), "identity_link", "REQUIRED"),
        (pb.IdentityLink(identified_id="u1", merged_ids=["a", "b"]), "identity_link", "CONFLICT"),
        (pb.IdentityLink(anonymous_id="a1", alias="a"), "identity_link", "CONFLICT"),
        (pb.IdentityLink(merged_ids=["a", "b"], distinct_id="d"), "identity_link", "CONFLICT"),
        (pb.IdentityLink(identified_id="u1"), "identity_link.anonymous_id", "REQUIRED"),
        (pb.IdentityLink(anonymous_id="a1"), "identity_link.identified_id", "REQUIRED"),
        (pb.IdentityLink(alias="a"), "identity_link.distinct_id", "REQUIRED"),
        (pb.IdentityLink(distinct_id="a"), "identity_link.alias", "REQUIRED"),
        (pb.IdentityLink(merged_ids=["a"]), "identity_link.merged_ids", "REQUIRED"),
    ],
)
def test_a_link_has_exactly_one_form(link: pb.IdentityLink, field: str, reason: str) -> None:
    """None, two, or half of one is refused, and the refusal says what there is."""
    refused = refusal(pb.Record(identity_link=link))
    assert (refused.field, refused.reason) == (field, reason)


numbers = st.floats() | st.integers(-(2**70), 2**70).map(float)
spellings = st.recursive(
    st.builds(Value, number_value=numbers)
    | st.builds(Value, string_value=st.text(max_size=5))
    | st.builds(Value, bool_value=st.booleans())
    | st.just(Value()),
    lambda inner: (
        st.builds(lambda values: Value(list_value=ListValue(values=values)), st.lists(inner, max_size=3))
        | st.builds(
            lambda fields: Value(struct_value=Struct(fields=fields)),
            st.dictionaries(st.text(max_size=5), inner, max_size=3),
        )
    ),
    max_leaves=6,
)
structs = st.builds(Struct, fields=st.dictionaries(st.text(max_size=5), spellings, max_size=4))
tokens = st.sampled_from(
    '{ } [ ] : , " \\ null true NaN -Infinity 1e400 -1 0 18446744073709551616 0.5 "a" "\\ud800" "\\u0000"'
    ' "$ignore" "ip" "token" "$distinct_ids"'.split()
)
texts = (
    st.sampled_from(["", "{}", "[]", '{"n":' + "[" * 3000 + "]" * 3000 + "}", "{" * 300, '{"a":NaN}', '{"ip":5}'])
    | st.lists(tokens, max_size=8).map(" ".join)
    | st.lists(st.tuples(tokens, tokens), max_size=4).map(
        lambda pairs: "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"
    )
    | st.text(max_size=20)
)
ids = st.sampled_from(["", " ", "u1", "null", "é", "x" * 300]) | st.text(max_size=5)
times = st.none() | st.builds(
    Timestamp, seconds=st.integers(-(2**63), 2**63 - 1) | st.just(1_600_000_000), nanos=st.integers(-(2**31), 2**31 - 1)
)
properties = st.builds(pb.Properties, json=texts) | st.builds(pb.Properties, struct=structs)
names = st.builds(pb.PropertyNames, names=st.lists(ids, max_size=3))
events = st.fixed_dictionaries(
    {"name": st.sampled_from(["E", "$identify", "$merge", "$create_alias"]) | ids, "event_time": times},
    optional=dict.fromkeys(("event_id", "distinct_id", "device_id", "user_id", "ip"), ids),
)
profiles = st.fixed_dictionaries(
    {"distinct_id": ids, "update_id": ids, "ip": ids, "ignore_time": st.booleans(), "update_time": times}
)
groups = st.fixed_dictionaries({"group_key": ids, "group_id": ids, "update_id": ids, "update_time": times})
messages = (
    st.just(pb.Record())
    | st.builds(
        lambda fields, payload: pb.Record(event=pb.Event(**fields, **payload)),
        events,
        st.fixed_dictionaries({"properties_json": texts})
        | st.fixed_dictionaries({"properties": structs})
        | st.fixed_dictionaries({}),
    )
    | st.builds(
        lambda fields, name, value: pb.Record(profile_update=pb.ProfileUpdate(**fields, **{name: value})),
        profiles,
        st.sampled_from(["set", "set_once", "add", "append", "union", "remove"]),
        properties,
    )
    | st.builds(
        lambda fields, unset: pb.Record(profile_update=pb.ProfileUpdate(**fields, unset=unset)), profiles, names
    )
    | st.builds(
        lambda fields, name, value: pb.Record(group_update=pb.GroupUpdate(**fields, **{name: value})),
        groups,
        st.sampled_from(["set", "set_once", "union", "remove"]),
        properties,
    )
    | st.builds(lambda fields, unset: pb.Record(group_update=pb.GroupUpdate(**fields, unset=unset)), groups, names)
    | st.builds(
        lambda fields, merged: pb.Record(identity_link=pb.IdentityLink(**fields, merged_ids=merged)),
        st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("link_id", "identified_id", "anonymous_id", "alias", "distinct_id"), ids)
        ),
        st.lists(ids, max_size=3),
    )
)


@given(messages)
def test_a_message_is_refused_with_a_reason_or_can_be_sent(message: pb.Record) -> None:
    """Whatever a message holds: nothing but a refusal is raised, and what is stored is JSON that tells what it is."""
    try:
        record = wire.record(message, NOW_MS)
    except InvalidRecord as refused:
        assert (refused.reason.isupper(), bool(refused.field)) == (True, True)  # noqa: PT017  either is right
        return
    assert record.payload.startswith('{"')
    assert "$token" not in record.payload
    sent = orjson.loads(record.payload)
    assert described(record.kind, sent) == (record.name, record.distinct_id, record.time_ms)


@given(st.binary(max_size=60))
def test_a_message_from_anywhere_is_refused_with_a_reason_or_can_be_sent(wired: bytes) -> None:
    """The same for whatever bytes happen to be a message."""
    message = pb.Record()
    with suppress(DecodeError):
        message.ParseFromString(wired)
    with suppress(InvalidRecord):
        assert orjson.loads(wire.record(message, NOW_MS).payload)
