"""Records in every corner of what can be sent: for property-based tests. Some are to be refused."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

from walbatch.pb.analytics.v1 import service_pb2 as pb

NOW_MS = 1_763_899_200_123

_EDGES_MS = (31_536_000_000, 100_000_000_000, NOW_MS, NOW_MS + 3_600_000, NOW_MS - 5 * 86_400_000)
_BAD_IDS = ("null", "NULL", "0", "-1", "[]", "n/a", "00000000-0000-0000-0000-000000000000", " ", "\t")
_NAMES = (
    "time",
    "distinct_id",
    "$insert_id",
    "token",
    "$token",
    "$ignore",
    "$user_id",
    "$device_id",
    "ip",
    "$group_id",
)

characters = st.characters(exclude_categories=["Cs"])
"""All of Unicode: control characters, and those beyond the first plane."""

short = st.text(characters, max_size=8)
long = st.builds(
    lambda one, count: one * count, st.sampled_from(["x", "é", "🦆", "\n"]), st.sampled_from([254, 255, 256])
)
texts = short | short | long
names = st.text(characters, min_size=1, max_size=8)
ids = (
    st.just("")
    | names
    | st.from_regex(r"[A-Za-z0-9-]{1,37}", fullmatch=True)
    | long
    | st.sampled_from(_BAD_IDS)
    | st.builds("$device:{}".format, short)
)
known_ids = st.sampled_from(["u1", "u2", "größe", "7", "🦆", "a" * 247])
"""Ids that come again, and are fine."""

integers = st.integers() | st.sampled_from([2**53 + 1, -(2**63), 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**30])
floats = st.floats() | st.sampled_from([5e-324, 1.7976931348623157e308, -0.0, 1.0, 2.0**64, 1e16, 0.1])
sane_floats = st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | sane_floats | texts
odd_leaves = leaves | integers | floats
doubles = st.none() | st.booleans() | sane_floats | texts


def nested(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values that hold others."""
    return st.recursive(
        leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short | long, inner, max_size=3), max_leaves=6
    )


wide = st.builds(lambda count: {f"k{n}": n for n in range(count)}, st.sampled_from([246, 247, 248, 254, 255]))
arrays = st.builds(lambda count: {"array": [0] * count}, st.sampled_from([253, 254, 255]))
inner_objects = st.builds(lambda one: {"inner": one}, wide)
deep = st.builds(lambda one: {"d1": [{"d3": one}]}, nested(leaves))
plain = st.dictionaries(names, nested(leaves), max_size=6)
odd = st.dictionaries(short | long | st.sampled_from(_NAMES), nested(odd_leaves), max_size=4)
objects = plain | plain | plain | odd | wide | arrays | inner_objects | deep
sizes = st.builds(lambda count: {"big": "x" * count}, st.sampled_from([999_000, 1_000_000]))

spelt = st.builds(
    lambda value, ascii_only: json.dumps(value, ensure_ascii=ascii_only),
    objects | objects | objects | objects | sizes,
    st.booleans(),
)
broken = st.sampled_from(["[]", "{", '{"a": 1}}', '{"a": "\\ud800"}', '{"a": 1e400}', "null", '{"a": 1, "a": 2}', ""])
json_texts = spelt | spelt | spelt | spelt | broken


@st.composite
def structs(draw: st.DrawFn) -> Struct:
    """A Struct, which knows no integers."""
    value = draw(st.dictionaries(names, nested(doubles) | floats, max_size=4))
    struct = Struct()
    struct.update(value)
    return struct


@st.composite
def timestamps(draw: st.DrawFn) -> Timestamp | None:
    """A time, more often at an edge than not; rarely one that there is not."""
    if draw(st.booleans()):
        return None
    ms = draw(st.integers(31_536_000_000, NOW_MS) | st.sampled_from(_EDGES_MS)) + draw(st.integers(-1, 1))
    nanos = ms % 1000 * 1_000_000 + draw(st.sampled_from([0, 1, 999_999]))
    return Timestamp(seconds=ms // 1000, nanos=draw(st.sampled_from([nanos] * 9 + [-1, 10**9])))


@st.composite
def events(draw: st.DrawFn) -> pb.Record:
    """An event, its ids given in any combination."""
    name = draw(names | names | texts | st.sampled_from(["$identify", "$merge", "$create_alias", " "]))
    event = pb.Event(name=name, event_id=draw(ids), distinct_id=draw(known_ids | ids), event_time=draw(timestamps()))
    if draw(st.booleans()):
        event.device_id, event.user_id = draw(known_ids | ids), draw(known_ids | ids)
    event.ip = draw(st.sampled_from(["", "192.0.2.1", "x" * 45, "x" * 46]))
    if draw(st.integers(0, 4)):
        event.properties_json = draw(json_texts)
    else:
        event.properties.CopyFrom(draw(structs()))
    return pb.Record(event=event)


@st.composite
def _properties(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> pb.Properties:
    if draw(st.integers(0, 4)):
        return pb.Properties(json=draw(st.builds(json.dumps, st.dictionaries(names, values, max_size=4)) | json_texts))
    return pb.Properties(struct=draw(structs()))


_UNSET = st.builds(pb.PropertyNames, names=st.lists(names | texts, max_size=4))
_VALUES = {
    "set": _properties(nested(leaves)),
    "set_once": _properties(nested(leaves)),
    "add": _properties(integers | floats | texts),
    "append": _properties(nested(leaves)),
    "union": _properties(st.lists(leaves, max_size=4) | leaves),
    "remove": _properties(nested(leaves)),
    "unset": _UNSET,
}


@st.composite
def profile_updates(draw: st.DrawFn) -> pb.Record:
    """An update of a profile by any operation."""
    update = pb.ProfileUpdate(
        distinct_id=draw(known_ids | ids),
        update_id=draw(ids),
        update_time=draw(timestamps()),
        ip=draw(st.sampled_from(["", "192.0.2.1"])),
        ignore_time=draw(st.booleans()),
    )
    operation = draw(st.sampled_from([*_VALUES, "delete"]))
    if operation == "delete":
        update.delete.ignore_alias = draw(st.booleans())
    else:
        getattr(update, operation).CopyFrom(draw(_VALUES[operation]))
    return pb.Record(profile_update=update)


@st.composite
def group_updates(draw: st.DrawFn) -> pb.Record:
    """An update of a group by any operation."""
    update = pb.GroupUpdate(
        group_key=draw(st.just("company") | ids),
        group_id=draw(known_ids | ids),
        update_id=draw(ids),
        update_time=draw(timestamps()),
    )
    operation = draw(st.sampled_from(["set", "set_once", "union", "remove", "unset", "delete"]))
    if operation == "delete":
        update.delete.SetInParent()
    else:
        getattr(update, operation).CopyFrom(draw(_VALUES[operation]))
    return pb.Record(group_update=update)


@st.composite
def links(draw: st.DrawFn) -> pb.Record:
    """A link of ids; now and then of two sorts at once, or of none."""
    link = pb.IdentityLink(link_id=draw(ids))
    one, other = draw(known_ids | ids), draw(known_ids | ids)
    sort = draw(st.integers(0, 7))
    if sort in (0, 1, 7):
        link.identified_id, link.anonymous_id = one, other
    if sort in (2, 3, 7):
        link.merged_ids.extend([one, other])
    if sort in (4, 5):
        link.alias, link.distinct_id = one, other
    return pb.Record(identity_link=link)


records = events() | events() | profile_updates() | group_updates() | links() | st.just(pb.Record())
