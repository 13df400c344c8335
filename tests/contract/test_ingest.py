"""The gRPC calls over a real socket: what is answered, and what is then in the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2 as details
from grpc_status import rpc_status

from walbatch.batching import BatchPolicy
from walbatch.errors import BacklogFull, CommitFailed, Unavailable
from walbatch.event import Kind, Record
from walbatch.ingest import MAX_RECORDS, TRANSPORT_MAX_BYTES, IngestService
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub, add_AnalyticsServiceServicer_to_server
from walbatch.testing.clock import FakeClock
from walbatch.wal import Appended, Entry, Lane
from walbatch.wal.memory import MemoryLog

if TYPE_CHECKING:
    from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceAsyncStub as Stub


class Log(MemoryLog):
    """A log that can fail, or hold its answers back."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(["there"], clock)
        self.durability = "fsynced"
        self.error: Unavailable | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.calls = 0
        self.called = asyncio.Event()

    async def append(self, records: Sequence[Record]) -> list[Appended]:
        """Append, when the test lets it."""
        self.calls += 1
        self.called.set()
        await self.gate.wait()
        if self.error:
            raise self.error
        return await super().append(records)

    async def stored(self, kind: Kind = Kind.EVENT) -> list[Entry]:
        """Hand out everything of a kind."""
        return list((await self.fetch(Lane("there", kind), BatchPolicy().at_once())).entries)


@pytest.fixture
def log() -> Log:
    """An empty log."""
    return Log(FakeClock())


@pytest.fixture
def service(log: Log) -> IngestService:
    """The service over the log."""
    return IngestService(log, FakeClock())


@pytest.fixture
async def stub(service: IngestService) -> AsyncIterator[Stub]:
    """A client of the service on a real port."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", TRANSPORT_MAX_BYTES)])
    add_AnalyticsServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield AnalyticsServiceStub(channel)
    await server.stop(0)


def event(name: str = "Tick", **fields: Any) -> pb.Event:
    """A small valid event."""
    return pb.Event(name=name, distinct_id="u1", **fields)


def records(*events: pb.Event) -> list[pb.Record]:
    """Events as records."""
    return [pb.Record(event=e) for e in events]


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    """Return the error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def unpack(error: grpc.aio.AioRpcError, kind: type[Any]) -> Any:
    """Return the one detail of a kind that an error carries."""
    status = rpc_status.from_call(error)
    found = []
    for packed in status.details:
        message = kind()
        if packed.Unpack(message):
            found.append(message)
    (detail,) = found
    return detail


async def test_an_event_is_answered_with_its_id_and_durability(stub: Stub, log: Log) -> None:
    """OK names the id that was given, says what OK stands for, and the event is in the log."""
    reply = await stub.TrackEvent(pb.TrackEventRequest(event=event(event_id="e-1", properties_json='{"n": 1}')))
    assert reply == pb.TrackEventResponse(event_id="e-1", durability=pb.DURABILITY_FSYNCED)
    (entry,) = await log.stored()
    assert '"$insert_id":"e-1"' in entry.payload
    assert '"n":1' in entry.payload


async def test_no_answer_before_the_log_has_it(stub: Stub, log: Log) -> None:
    """The call waits for the append, however long that takes."""
    log.gate.clear()
    call = stub.TrackEvent(pb.TrackEventRequest(event=event()))
    await log.called.wait()
    assert not call.done()
    log.gate.set()
    assert (await call).durability == pb.DURABILITY_FSYNCED


async def test_a_repeated_id_is_a_duplicate(stub: Stub, log: Log) -> None:
    """The second call is OK as well, and says so."""
    request = pb.TrackEventRequest(event=event(event_id="e-1"))
    assert not (await stub.TrackEvent(request)).duplicate
    assert (await stub.TrackEvent(request)).duplicate
    assert len(await log.stored()) == 1


async def test_a_struct_says_the_same_as_json(stub: Stub, log: Log) -> None:
    """Both spellings of the properties give the same record."""
    struct = ParseDict({"a": 1, "b": 1.5, "c": [True, None, {"d": "x"}]}, Struct())
    json = '{"a": 1, "b": 1.5, "c": [true, null, {"d": "x"}]}'
    await stub.Ingest(
        pb.IngestRequest(
            records=records(event("A", event_id="1", properties=struct), event("B", event_id="2", properties_json=json))
        )
    )
    first, second = await log.stored()
    tail = first.payload.partition('"ip"')[2]
    for part in ('"a":1', '"b":1.5', '"c":[true,null,{"d":"x"}]'):
        assert part in tail
        assert part in second.payload


async def test_bad_input_names_the_field_and_the_reason(stub: Stub, log: Log) -> None:
    """INVALID_ARGUMENT carries the field, a stable reason and a sentence, and nothing is stored."""
    error = await refusal(stub.TrackEvent(pb.TrackEventRequest(event=pb.Event(distinct_id="u1"))))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = unpack(error, details.BadRequest).field_violations
    assert (violation.field, violation.reason) == ("event.name", "REQUIRED")
    info = unpack(error, details.ErrorInfo)
    assert (info.domain, info.reason, dict(info.metadata)) == ("walbatch", "REQUIRED", {"field": "event.name"})
    assert log.calls == 0


async def test_identify_stores_the_update_and_the_link_together(stub: Stub, log: Log) -> None:
    """One call, one append: the profile update and the $identify event."""
    request = pb.IdentifyUserRequest(user_id="u1", anonymous_id="a1", traits_json='{"plan": "pro"}', event_id="i-1")
    reply = await stub.IdentifyUser(request)
    assert (reply.event_id, reply.duplicate, reply.durability) == ("i-1", False, pb.DURABILITY_FSYNCED)
    assert log.calls == 1
    (update,) = await log.stored(Kind.PROFILE)
    assert '"$set":{"plan":"pro"}' in update.payload
    (link,) = await log.stored()
    assert '"event":"$identify"' in link.payload
    assert (await stub.IdentifyUser(request)).duplicate


async def test_identify_names_the_fields_of_its_own_request(stub: Stub) -> None:
    """The refusal speaks of user_id, not of the record behind it."""
    error = await refusal(stub.IdentifyUser(pb.IdentifyUserRequest(traits_json="{}")))
    assert unpack(error, details.BadRequest).field_violations[0].field == "user_id"


async def test_only_the_bad_records_of_a_batch_are_refused(stub: Stub, log: Log) -> None:
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


async def test_every_kind_of_record_goes_to_its_lane(stub: Stub, log: Log) -> None:
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
    found = {kind: [entry.payload for entry in await log.stored(kind)] for kind in Kind}
    assert [len(payloads) for payloads in found.values()] == [3, 2, 1]
    assert '"$append":{"plan":"pro"}' in found[Kind.PROFILE][0]
    assert found[Kind.GROUP][0].startswith('{"$group_key":"company","$group_id":"acme"')


async def test_an_update_that_comes_again_is_a_duplicate(stub: Stub, log: Log) -> None:
    """With or without a time of its own, an update with the same id is stored once."""
    for timed in (False, True):
        update = pb.ProfileUpdate(update_id=f"x{timed}", distinct_id="u1", add=pb.Properties(json='{"n": 1}'))
        if timed:
            update.update_time.FromMilliseconds(1_600_000_000_001)
        request = pb.IngestRequest(records=[pb.Record(profile_update=update)])
        assert (await stub.Ingest(request)).accepted_count == 1
        assert (await stub.Ingest(request)).duplicate_count == 1
    assert len(await log.stored(Kind.PROFILE)) == 2


async def test_what_would_change_on_the_way_is_refused(stub: Stub, log: Log) -> None:
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
async def test_a_batch_too_large_says_to_split_it(stub: Stub, log: Log, make: Callable[[], list[pb.Record]]) -> None:
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
    stub: Stub, log: Log, raised: Unavailable, code: grpc.StatusCode, retry_s: int
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


async def test_a_stream_acknowledges_cumulatively_with_its_refusals(stub: Stub, log: Log) -> None:
    """Every request is covered in the end, refusals say which request and record, and the counts add up."""

    async def requests() -> AsyncIterator[pb.IngestStreamRequest]:
        for sequence in range(1, 21):
            yield pb.IngestStreamRequest(sequence=sequence, records=records(event(f"E{sequence}"), event("")))

    replies = [reply async for reply in stub.IngestStream(requests())]
    acked = [reply.acked_sequence for reply in replies]
    assert acked == sorted(set(acked))
    assert acked[-1] == 20
    assert sum(reply.accepted_count for reply in replies) == 20
    refused = [(r.sequence, r.rejection.index) for reply in replies for r in reply.rejections]
    assert refused == [(sequence, 1) for sequence in range(1, 21)]
    assert {reply.durability for reply in replies} == {pb.DURABILITY_FSYNCED}
    assert len(await log.stored()) == 20


async def test_requests_that_arrive_during_a_commit_share_the_next(service: IngestService, log: Log) -> None:
    """One append and one answer for all of them."""
    all_read = asyncio.Event()

    async def requests() -> AsyncIterator[pb.IngestStreamRequest]:
        yield pb.IngestStreamRequest(sequence=1, records=records(event()))
        await log.called.wait()
        for sequence in range(2, 11):
            yield pb.IngestStreamRequest(sequence=sequence, records=records(event()))
        all_read.set()

    log.gate.clear()
    stream: Any = service.IngestStream(requests(), None)  # type: ignore[arg-type]  # needed only to refuse
    first = asyncio.ensure_future(anext(stream))
    await all_read.wait()
    log.gate.set()
    assert [(await first).acked_sequence] + [reply.acked_sequence async for reply in stream] == [1, 10]
    assert log.calls == 2


async def test_a_stream_whose_numbers_do_not_rise_is_refused(stub: Stub, log: Log) -> None:
    """What came before the wrong number is acknowledged, what came with it is not stored."""
    call: Any = stub.IngestStream()
    await call.write(pb.IngestStreamRequest(sequence=2, records=records(event("A"))))
    assert (await call.read()).acked_sequence == 2
    await call.write(pb.IngestStreamRequest(sequence=2, records=records(event("B"))))
    error = await refusal(call.read())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert unpack(error, details.ErrorInfo).reason == "OUT_OF_ORDER"
    assert len(await log.stored()) == 1


async def test_a_drain_ends_open_streams_after_what_they_were_acknowledged(
    stub: Stub, log: Log, service: IngestService
) -> None:
    """A client that keeps its stream open is told to go on elsewhere."""
    call: Any = stub.IngestStream()
    await call.write(pb.IngestStreamRequest(sequence=1, records=records(event("A"))))
    assert (await call.read()).acked_sequence == 1
    service.drain()
    error = await refusal(call.read())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert unpack(error, details.ErrorInfo).reason == "SHUTTING_DOWN"
    assert len(await log.stored()) == 1


async def test_a_cancelled_stream_leaves_nothing_running(stub: Stub, log: Log) -> None:
    """The server goes on serving others after a client vanished in the middle of a stream."""
    log.gate.clear()
    call: Any = stub.IngestStream()
    for sequence in range(1, 60):
        await call.write(pb.IngestStreamRequest(sequence=sequence, records=records(event())))
    call.cancel()
    log.gate.set()
    assert (await stub.TrackEvent(pb.TrackEventRequest(event=event()))).event_id


async def test_late_records_of_an_erased_person_are_refused_alone(stub: Stub, log: Log) -> None:
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
    assert [one.payload.split('"')[3] for one in await log.stored()] == ["a", "b", "c"]
    assert (await log.backlog()).accepted == 3


async def test_a_request_of_a_stream_that_is_no_message_ends_it(stub: Stub, log: Log) -> None:
    """What came before it is acknowledged; nobody waits for what cannot be read."""
    call: Any = stub.IngestStream()
    await call.write(pb.IngestStreamRequest(sequence=1, records=records(event("A"))))
    assert (await call.read()).acked_sequence == 1
    call._request_serializer = bytes
    await call.write(b"\xff\xff\xff")
    error = await refusal(call.read())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert unpack(error, details.ErrorInfo).reason == "NOT_A_MESSAGE"


async def test_a_cancelled_stream_leaves_no_task_behind(stub: Stub, service: IngestService) -> None:
    """Neither what read it nor what waited for its next request goes on, and nothing counts as read ahead."""
    before = asyncio.all_tasks()
    call: Any = stub.IngestStream()
    await call.write(pb.IngestStreamRequest(sequence=1, records=records(event("A"))))
    assert (await call.read()).acked_sequence == 1
    ours = {"_read", "Queue.get", "Event.wait"}  # the others are gRPC's own
    made: set[asyncio.Task[Any]] = set()
    while len(made) < 3:  # the answer may be read before the stream waits for its next request
        await asyncio.sleep(0)
        made = {task for task in asyncio.all_tasks() - before if getattr(task.get_coro(), "__qualname__", "") in ours}
    call.cancel()
    _, left = await asyncio.wait(made, timeout=10)
    assert not left
    assert service._ahead._bytes == 0
