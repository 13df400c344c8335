"""The gRPC calls over a real socket: what is answered, and what is then in the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from calls import GatedLog, event, records, refusal, unpack
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2 as details

from walbatch.errors import BacklogFull, CommitFailed, Unavailable
from walbatch.event import Kind
from walbatch.ingest import MAX_RECORDS
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.testing.clock import FakeClock

if TYPE_CHECKING:
    from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceAsyncStub as Stub


@pytest.fixture
def log(clock: FakeClock) -> GatedLog:
    """An empty log that can be held back."""
    return GatedLog(clock)


async def test_an_event_is_answered_with_its_id_and_durability(stub: Stub, log: GatedLog) -> None:
    """OK names the id that was given, says what OK stands for, and the event is in the log."""
    reply = await stub.TrackEvent(pb.TrackEventRequest(event=event(event_id="e-1", properties_json='{"n": 1}')))
    assert reply == pb.TrackEventResponse(event_id="e-1", durability=pb.DURABILITY_FSYNCED)
    (payload,) = await log.stored()
    assert '"$insert_id":"e-1"' in payload
    assert '"n":1' in payload


async def test_no_answer_before_the_log_has_it(stub: Stub, log: GatedLog) -> None:
    """The call waits for the append, however long that takes."""
    log.gate.clear()
    call = stub.TrackEvent(pb.TrackEventRequest(event=event()))
    await log.called.wait()
    assert not call.done()
    log.gate.set()
    assert (await call).durability == pb.DURABILITY_FSYNCED


async def test_a_repeated_id_is_a_duplicate(stub: Stub, log: GatedLog) -> None:
    """The second call is OK as well, and says so."""
    request = pb.TrackEventRequest(event=event(event_id="e-1"))
    assert not (await stub.TrackEvent(request)).duplicate
    assert (await stub.TrackEvent(request)).duplicate
    assert len(await log.stored()) == 1


async def test_a_struct_says_the_same_as_json(stub: Stub, log: GatedLog) -> None:
    """Both spellings of the properties give the same record."""
    struct = ParseDict({"a": 1, "b": 1.5, "c": [True, None, {"d": "x"}]}, Struct())
    json = '{"a": 1, "b": 1.5, "c": [true, null, {"d": "x"}]}'
    await stub.Ingest(
        pb.IngestRequest(
            records=records(event("A", event_id="1", properties=struct), event("B", event_id="2", properties_json=json))
        )
    )
    first, second = await log.stored()
    tail = first.partition('"ip"')[2]
    for part in ('"a":1', '"b":1.5', '"c":[true,null,{"d":"x"}]'):
        assert part in tail
        assert part in second


async def test_bad_input_names_the_field_and_the_reason(stub: Stub, log: GatedLog) -> None:
    """INVALID_ARGUMENT carries the field, a stable reason and a sentence, and nothing is stored."""
    error = await refusal(stub.TrackEvent(pb.TrackEventRequest(event=pb.Event(distinct_id="u1"))))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = unpack(error, details.BadRequest).field_violations
    assert (violation.field, violation.reason) == ("event.name", "REQUIRED")
    info = unpack(error, details.ErrorInfo)
    assert (info.domain, info.reason, dict(info.metadata)) == ("walbatch", "REQUIRED", {"field": "event.name"})
    assert log.calls == 0


async def test_identify_stores_the_update_and_the_link_together(stub: Stub, log: GatedLog) -> None:
    """One call, one append: the profile update and the $identify event."""
    request = pb.IdentifyUserRequest(user_id="u1", anonymous_id="a1", traits_json='{"plan": "pro"}', event_id="i-1")
    reply = await stub.IdentifyUser(request)
    assert (reply.event_id, reply.duplicate, reply.durability) == ("i-1", False, pb.DURABILITY_FSYNCED)
    assert log.calls == 1
    (update,) = await log.stored(Kind.PROFILE)
    assert '"$set":{"plan":"pro"}' in update
    (link,) = await log.stored()
    assert '"event":"$identify"' in link
    assert (await stub.IdentifyUser(request)).duplicate


async def test_identify_names_the_fields_of_its_own_request(stub: Stub) -> None:
    """The refusal speaks of user_id, not of the record behind it."""
    error = await refusal(stub.IdentifyUser(pb.IdentifyUserRequest(traits_json="{}")))
    assert unpack(error, details.BadRequest).field_violations[0].field == "user_id"


async def test_only_the_bad_records_of_a_batch_are_refused(stub: Stub, log: GatedLog) -> None:
    """The others are stored, and each refusal has its index, field, reason and sentence."""
    reply = await stub.Ingest(
        pb.IngestRequest(
            records=[
                *records(event("A"), event(""), event("B", properties_json="[]")),
                pb.Record(),
                *records(event("C", event_id="c"), event("C", event_id="c")),
            ]
        )
    )
    assert (reply.accepted_count, reply.duplicate_count, reply.durability) == (2, 1, pb.DURABILITY_FSYNCED)
    assert [(r.index, r.field, r.reason) for r in reply.rejections] == [
        (1, "event.name", "REQUIRED"),
        (2, "event.properties_json", "NOT_AN_OBJECT"),
        (3, "kind", "REQUIRED"),
    ]
    assert all(r.description for r in reply.rejections)
    assert len(await log.stored()) == 2


async def test_every_kind_of_record_goes_to_its_lane(stub: Stub, log: GatedLog) -> None:
    """Events and links, profile updates and group updates travel in one request."""
    plan = pb.Properties(json='{"plan": "pro"}')
    reply = await stub.Ingest(
        pb.IngestRequest(
            records=[
                *records(event("A")),
                pb.Record(identity_link=pb.IdentityLink(merged_ids=["a", "b"])),
                pb.Record(identity_link=pb.IdentityLink(alias="new", distinct_id="orig")),
                pb.Record(profile_update=pb.ProfileUpdate(distinct_id="u1", append=plan)),
                pb.Record(profile_update=pb.ProfileUpdate(distinct_id="u1", delete=pb.ProfileDeletion())),
                pb.Record(group_update=pb.GroupUpdate(group_key="company", group_id="acme", set=plan)),
            ]
        )
    )
    assert (reply.accepted_count, list(reply.rejections)) == (6, [])
    found = {kind: await log.stored(kind) for kind in Kind}
    assert [len(payloads) for payloads in found.values()] == [3, 2, 1]
    assert '"$append":{"plan":"pro"}' in found[Kind.PROFILE][0]
    assert found[Kind.GROUP][0].startswith('{"$group_key":"company","$group_id":"acme"')


async def test_an_update_that_comes_again_is_a_duplicate(stub: Stub, log: GatedLog) -> None:
    """With or without a time of its own, an update with the same id is stored once."""
    for timed in (False, True):
        update = pb.ProfileUpdate(update_id=f"x{timed}", distinct_id="u1", add=pb.Properties(json='{"n": 1}'))
        if timed:
            update.update_time.FromMilliseconds(1_600_000_000_001)
        request = pb.IngestRequest(records=[pb.Record(profile_update=update)])
        assert (await stub.Ingest(request)).accepted_count == 1
        assert (await stub.Ingest(request)).duplicate_count == 1
    assert len(await log.stored(Kind.PROFILE)) == 2


async def test_what_would_change_on_the_way_is_refused(stub: Stub, log: GatedLog) -> None:
    """Each way has a reason of its own, in the answer to the call that carried it."""
    texts = ['{"n": NaN}', '{"n": 18446744073709551616}', '{"n": "\\ud800"}', '{"$ignore": true}']
    sent = [event(properties_json=text) for text in texts]
    reply = await stub.Ingest(pb.IngestRequest(records=records(*sent, event("Good"))))
    reasons = [rejection.reason for rejection in reply.rejections]
    assert reasons == ["NOT_FINITE", "INTEGER_TOO_LARGE", "NOT_UNICODE", "DROPPED"]
    assert [rejection.index for rejection in reply.rejections] == [0, 1, 2, 3]
    assert len(await log.stored()) == 1


async def test_an_empty_batch_is_a_success(stub: Stub) -> None:
    """Nothing to store is no error."""
    assert (await stub.Ingest(pb.IngestRequest())).accepted_count == 0


@pytest.mark.parametrize(
    "make",
    [lambda: records(*[event()] * (MAX_RECORDS + 1)), lambda: records(*[event(ip="x" * 30_000)] * 140)],
    ids=["too many records", "too many bytes"],
)
async def test_a_batch_too_large_says_to_split_it(
    stub: Stub, log: GatedLog, make: Callable[[], list[pb.Record]]
) -> None:
    """Our own limit answers before the transport's, with the limits in the text."""
    error = await refusal(stub.Ingest(pb.IngestRequest(records=make())))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert unpack(error, details.ErrorInfo).reason == "BATCH_TOO_LARGE"
    assert log.calls == 0


@pytest.mark.parametrize(
    ("raised", "code", "retry_s"),
    [
        (CommitFailed("the commit failed"), grpc.StatusCode.UNAVAILABLE, 1),
        (BacklogFull("full"), grpc.StatusCode.RESOURCE_EXHAUSTED, 30),
    ],
    ids=["a failed commit", "a full backlog"],
)
async def test_what_may_be_tried_again_says_when(
    stub: Stub, log: GatedLog, raised: Unavailable, code: grpc.StatusCode, retry_s: int
) -> None:
    """The code and RetryInfo tell a client what to do; only the short wait is left to gRPC's own retry."""
    log.error = raised
    for call in (
        stub.TrackEvent(pb.TrackEventRequest(event=event())),
        stub.Ingest(pb.IngestRequest(records=records(event()))),
        stub.IdentifyUser(pb.IdentifyUserRequest(user_id="u1")),
    ):
        error = await refusal(call)
        assert error.code() is code
        assert unpack(error, details.RetryInfo).retry_delay.seconds == retry_s
        assert unpack(error, details.ErrorInfo).reason == raised.reason
        pushback = dict(error.trailing_metadata()).get("grpc-retry-pushback-ms")
        assert pushback == (None if code is grpc.StatusCode.RESOURCE_EXHAUSTED else "1000")


async def test_late_records_of_an_erased_person_are_refused_alone(stub: Stub, log: GatedLog) -> None:
    """With the reason ERASED: a unary call as a whole, in a batch or a stream just that record, by its index."""
    await log.bury(["gone"])
    late = pb.Event(name="Tick", distinct_id="u1", device_id="gone")
    late.event_time.FromMilliseconds(FakeClock().wall_ms() - 1)
    error = await refusal(stub.TrackEvent(pb.TrackEventRequest(event=late)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert unpack(error, details.ErrorInfo).reason == "ERASED"
    error = await refusal(stub.IdentifyUser(pb.IdentifyUserRequest(user_id="u1", anonymous_id="gone")))
    assert unpack(error, details.ErrorInfo).reason == "ERASED"  # neither of its two records is stored
    batch = records(event("a"), late, event("b"))
    reply = await stub.Ingest(pb.IngestRequest(records=batch))
    assert [(r.index, r.field, r.reason) for r in reply.rejections] == [(1, "event.device_id", "ERASED")]
    stream = stub.IngestStream()
    await stream.write(pb.IngestStreamRequest(sequence=1, records=records(late, event("c"))))
    answer: Any = await stream.read()
    assert [(r.sequence, r.rejection.index, r.rejection.reason) for r in answer.rejections] == [(1, 0, "ERASED")]
    assert (answer.acked_sequence, answer.accepted_count) == (1, 1)
    await stream.done_writing()
    assert [one.split('"')[3] for one in await log.stored()] == ["a", "b", "c"]
    assert (await log.backlog()).accepted == 3
