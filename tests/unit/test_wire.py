"""From messages to records."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from walbatch import rules, wire
from walbatch.errors import InvalidRecord
from walbatch.event import Kind
from walbatch.pb.analytics.v1 import service_pb2 as pb

NOW_MS = 1_700_000_000_000

numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | st.text(max_size=20)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def event(**fields: Any) -> pb.Event:
    """An event message that is fine but for the given fields."""
    return pb.Event(**{"name": "Signed Up", "distinct_id": "u1", "event_id": "e-1"} | fields)


def profile(**fields: Any) -> pb.ProfileUpdate:
    """A profile update that is fine but for the given fields."""
    known: dict[str, Any] = {"distinct_id": "u1", "set": pb.Properties()}
    return pb.ProfileUpdate(**known | fields)


def group(**fields: Any) -> pb.GroupUpdate:
    """A group update that is fine but for the given fields."""
    known: dict[str, Any] = {"group_key": "company", "group_id": "acme", "set": pb.Properties()}
    return pb.GroupUpdate(**known | fields)


def struct(value: dict[str, Any]) -> Struct:
    """The same object as a Struct."""
    return ParseDict(value, Struct())


def properties_of(message: pb.Event) -> dict[str, Any]:
    """The properties that would be sent for a message."""
    found: dict[str, Any] = orjson.loads(wire.event(message, NOW_MS).payload)["properties"]
    return found


def refusal(message: pb.Record | pb.IdentifyUserRequest) -> InvalidRecord:
    """The refusal of a message that must be refused."""
    decode: Callable[[Any, int], object] = wire.record if isinstance(message, pb.Record) else wire.identify
    with pytest.raises(InvalidRecord) as caught:
        decode(message, NOW_MS)
    return caught.value


def test_every_field_of_an_event_arrives() -> None:
    """The message's fields become the record's, and the time keeps its milliseconds."""
    when = Timestamp()
    when.FromDatetime(datetime(2023, 11, 14, 12, 0, 0, 123_999, tzinfo=UTC))
    message = event(device_id="d1", user_id="u9", event_time=when, ip="192.0.2.1", properties_json='{"plan":"pro"}')
    record = wire.record(pb.Record(event=message), NOW_MS)
    assert orjson.loads(record.payload) == {
        "event": "Signed Up",
        "properties": {
            "time": 1_699_963_200_123,
            "distinct_id": "u1",
            "$insert_id": "e-1",
            "ip": "192.0.2.1",
            "plan": "pro",
            "$device_id": "d1",
            "$user_id": "u9",
        },
    }
    assert record.time_given


def test_an_unset_time_is_that_of_acceptance() -> None:
    """Unset and 1970 are told apart."""
    assert not wire.event(event(), NOW_MS).time_given
    assert refusal(pb.Record(event=event(event_time=Timestamp()))).reason == "TOO_EARLY"


@pytest.mark.parametrize(
    ("when", "reason"),
    [
        (Timestamp(seconds=-62_135_596_800), "TOO_EARLY"),
        (Timestamp(seconds=253_402_300_799, nanos=999_999_999), "IN_THE_FUTURE"),
        (Timestamp(seconds=2**63 - 1), "IN_THE_FUTURE"),
        (Timestamp(seconds=-(2**63)), "TOO_EARLY"),
        (Timestamp(seconds=-(2**63), nanos=-(2**31)), "NOT_A_TIME"),
        (Timestamp(seconds=1_600_000_000, nanos=-1), "NOT_A_TIME"),
        (Timestamp(seconds=1_600_000_000, nanos=1_000_000_000), "NOT_A_TIME"),
    ],
)
def test_the_ends_of_time_are_refused(when: Timestamp, reason: str) -> None:
    """Whatever a Timestamp can hold is answered with a reason."""
    for message, kind in (
        (pb.Record(event=event(event_time=when)), "event.event_time"),
        (pb.Record(profile_update=profile(update_time=when)), "profile_update.update_time"),
        (pb.Record(group_update=group(update_time=when)), "group_update.update_time"),
    ):
        refused = refusal(message)
        assert (refused.field, refused.reason) == (kind, reason)


def test_no_properties_at_all_are_fine() -> None:
    """Unset, empty text and empty Struct are an event without properties."""
    for message in (event(), event(properties_json=""), event(properties_json="{}"), event(properties=Struct())):
        assert properties_of(message).keys() == {"time", "distinct_id", "$insert_id", "ip"}


@given(
    st.dictionaries(st.text(min_size=1, max_size=9).filter(lambda name: name not in rules.SPECIAL), values, max_size=5)
)
def test_both_spellings_say_the_same(properties: dict[str, Any]) -> None:
    """JSON text and Struct make equal events; only integers beyond 2^53 need the text."""
    as_text = event(properties_json=orjson.dumps(properties).decode())
    as_struct = event(properties=struct(properties))
    answers = []
    for message in (as_text, as_struct):
        try:
            answers.append(properties_of(message))
        except InvalidRecord as error:
            answers.append({"refused": error.reason})
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("number", "text"),
    [(3.0, "3"), (-0.5, "-0.5"), (1e15, "1000000000000000"), (2.0**53, "9007199254740992"), (1e300, "1e+300")],
)
def test_whole_numbers_of_a_struct_are_written_whole(number: float, text: str) -> None:
    """A Struct has doubles only; a whole one is written as an integer where a double can tell."""
    payload = wire.event(event(properties=struct({"n": number})), NOW_MS).payload
    assert f'"n":{text}}}' in payload


def test_text_keeps_integers_of_64_bits() -> None:
    """An id beyond 2^53 arrives to the last digit."""
    assert properties_of(event(properties_json='{"id":9223372036854775807}'))["id"] == 2**63 - 1


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("wrap", ["bare", "list", "object"])
def test_a_struct_with_a_number_that_json_lacks_is_refused(number: float, wrap: str) -> None:
    """NaN and Infinity never become null."""
    value = Value(number_value=number)
    wrapped = {
        "bare": value,
        "list": Value(list_value=ListValue(values=[value])),
        "object": Value(struct_value=Struct(fields={"x": value})),
    }[wrap]
    refused = refusal(pb.Record(event=event(properties=Struct(fields={"p": wrapped}))))
    assert (refused.field, refused.reason) == ("event.properties", "NOT_FINITE")


def test_a_struct_value_without_a_kind_is_null() -> None:
    """An unset Value is JSON's null."""
    assert properties_of(event(properties=Struct(fields={"p": Value()})))["p"] is None


@pytest.mark.parametrize("levels", [4, 5, 30])
def test_a_struct_that_is_too_deep_is_refused(levels: int) -> None:
    """Depth is refused alike in both spellings."""
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"in": value}
    assert refusal(pb.Record(event=event(properties=struct(value)))).reason == "TOO_DEEP"
    assert refusal(pb.Record(event=event(properties_json=orjson.dumps(value).decode()))).reason == "TOO_DEEP"


SECRET = "hunter2@example.com"
BAD_TEXTS = {
    "cut off": (f'{{"email":"{SECRET}"', "NOT_JSON"),
    "not quoted": (f"{{email:{SECRET}}}", "NOT_JSON"),
    "bare word": (SECRET, "NOT_JSON"),
    "NaN": (f'{{"email":"{SECRET}","n":NaN}}', "NOT_FINITE"),
    "Infinity": (f'{{"email":"{SECRET}","n":-Infinity}}', "NOT_FINITE"),
    "too large for a double": (f'{{"email":"{SECRET}","n":1e999}}', "NOT_FINITE"),
    "half a pair": (f'{{"email":"{SECRET}","n":"\\ud800"}}', "NOT_UNICODE"),
    "trailing": (f'{{"email":"{SECRET}"}}}}', "NOT_JSON"),
    "bottomless": (f'{{"email":"{SECRET}","n":' + "[" * 5000 + "]" * 5000 + "}", "TOO_DEEP"),
}


@pytest.mark.parametrize(("text", "reason"), BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_a_json_error_says_where_and_quotes_nothing(text: str, reason: str) -> None:
    """What is wrong with a document is told by its place, never with its content."""
    refused = refusal(pb.Record(event=event(properties_json=text)))
    assert (refused.field, refused.reason) == ("event.properties_json", reason)
    assert "from column" in refused.description
    shown = repr(refused) + str(refused) + repr(refused.__cause__)
    assert "hunter2" not in shown


def test_the_place_of_an_error_has_its_line_if_there_are_several() -> None:
    """A document of one line is told by columns only, since what carried it may have counted lines itself."""
    assert "from line 2 column" in refusal(pb.Record(event=event(properties_json='{\n"n":x}'))).description


@pytest.mark.parametrize("number", ["18446744073709551616", "-9223372036854775809", "1" * 30, "1" * 400])
@pytest.mark.parametrize("wrap", ['{"n":%s}', '{"big":1e30,"p":[{"n":[%s]}]}'])
def test_an_integer_that_would_be_rounded_is_refused(number: str, wrap: str) -> None:
    """Beyond 64 bits an integer becomes a float, which is another number; it is refused wherever it stands."""
    text = wrap % number
    refused = refusal(pb.Record(event=event(properties_json=text)))
    assert (refused.field, refused.reason) == ("event.properties_json", "INTEGER_TOO_LARGE")
    for where, message in (
        ("profile_update", pb.Record(profile_update=profile(add=pb.Properties(json=text)))),
        ("group_update", pb.Record(group_update=group(union=pb.Properties(json=text)))),
    ):
        refused = refusal(message)
        assert refused.field in {f"{where}.add.json", f"{where}.union.json"}
        assert refused.reason == "INTEGER_TOO_LARGE"


@pytest.mark.parametrize(
    "number", ["18446744073709551615", "-9223372036854775808", "1e30", "-1e300", "0.1234567890123456789012", "1.5e19"]
)
def test_other_large_numbers_are_taken(number: str) -> None:
    """The largest integers arrive to the last digit, and a float is what its sender knows to be rounded."""
    sent = properties_of(event(properties_json=f'{{"n":{number},"id":"12345678901234567890123"}}'))
    assert sent["n"] == orjson.loads(number)


@pytest.mark.parametrize("text", ["[]", "null", "1", '"x"'])
def test_properties_are_one_object(text: str) -> None:
    """Other JSON is refused with an example of what is wanted."""
    refused = refusal(pb.Record(event=event(properties_json=text)))
    assert (refused.field, refused.reason) == ("event.properties_json", "NOT_AN_OBJECT")


def test_a_record_of_no_kind_is_refused() -> None:
    """The refusal names the kinds."""
    refused = refusal(pb.Record())
    assert (refused.field, refused.reason) == ("kind", "REQUIRED")
    assert refused.description == "set one of event, profile_update, identity_link, group_update"


def test_identify_user_is_an_update_and_a_link() -> None:
    """The id is the update's; the link has its own. Without another id than the user's there is no link."""
    request = pb.IdentifyUserRequest(user_id="u1", anonymous_id="a1", traits_json='{"plan":"pro"}', event_id="x1")
    update, link = wire.identify(request, NOW_MS)
    assert orjson.loads(update.payload)["$set"] == {"plan": "pro"}
    assert (update.event_id, update.kind, link.kind, link.name) == ("x1", Kind.PROFILE, Kind.EVENT, "$identify")
    assert link.event_id != "x1"
    (alone,) = wire.identify(pb.IdentifyUserRequest(user_id="u1", traits=struct({"n": 1})), NOW_MS)
    assert orjson.loads(alone.payload)["$set"] == {"n": 1}
    (bare,) = wire.identify(pb.IdentifyUserRequest(user_id="u1"), NOW_MS)
    assert orjson.loads(bare.payload)["$set"] == {}
    assert len(wire.identify(pb.IdentifyUserRequest(user_id="u1", anonymous_id="u1"), NOW_MS)) == 1


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"user_id": ""}, "user_id", "REQUIRED"),
        ({"user_id": "null"}, "user_id", "BAD_ID"),
        ({"anonymous_id": "null"}, "anonymous_id", "BAD_ID"),
        ({"anonymous_id": "a" * 256}, "anonymous_id", "TOO_LONG"),
        ({"anonymous_id": "$device:null"}, "anonymous_id", "BAD_ID"),
        ({"event_id": " "}, "event_id", "REQUIRED"),
        ({"traits_json": "{"}, "traits_json", "NOT_JSON"),
        ({"traits_json": "[]"}, "traits_json", "NOT_AN_OBJECT"),
        ({"traits_json": '{"token":1}'}, "traits.token", "RESERVED"),
        ({"traits": struct({"$distinct_id": 1})}, "traits.$distinct_id", "RESERVED"),
        ({"traits": struct({"p": float("nan")})}, "traits", "NOT_FINITE"),
    ],
)
def test_a_refused_identify_names_its_own_fields(fields: dict[str, Any], field: str, reason: str) -> None:
    """The caller never sees a field that its request does not have."""
    refused = refusal(pb.IdentifyUserRequest(**{"user_id": "u1"} | fields))
    assert (refused.field, refused.reason) == (field, reason)
    assert str(refused).startswith(f"{field}: ")
