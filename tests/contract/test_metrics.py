"""`GET /metrics` on a real port: it can be read, each number is right, and it tells nothing of an event."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from calls import event, records, refusal
from metered import LIMIT_BYTES, Metered, metered, samples
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from scripted_delivery import TOKEN, Act, says

from walbatch.ingest import MAX_RECORDS
from walbatch.metrics.families import CONFIGURED, families
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.testing.clock import FakeClock
from walbatch.wal import driver
from walbatch.wal.admission import Limits
from walbatch.wal.transaction import Transaction

CANARY = "canary-91be04"
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
NO_LIMITS = Limits()


@pytest.fixture
async def rig(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Metered]:
    """A server that counts, with nothing counted yet."""
    async with metered(tmp_path / "data", clock) as made:
        yield made


def refuses(position: int, insert_id: str, count: int) -> Act:
    """Refuse one of several events, and take the others."""
    return says(
        400,
        {
            "code": 400,
            "error": "some data points in the request failed validation",
            "failed_records": [
                {"index": position, "insert_id": insert_id, "field": "event", "message": f"no {CANARY} wanted"}
            ],
            "num_records_imported": count - 1,
            "status": "Bad Request",
        },
    )


async def load(rig: Metered) -> None:
    """Send through every call what is valid, what was sent before, what is invalid, and what is too much."""
    track = rig.stub.TrackEvent
    await track(pb.TrackEventRequest(event=event(event_id="a")))
    await track(pb.TrackEventRequest(event=event(event_id="a")))
    await refusal(track(pb.TrackEventRequest(event=event(""))))
    mixed = [*(event(event_id=given) for given in "abac"), event(properties_json="[]")]
    await rig.stub.Ingest(pb.IngestRequest(records=records(*mixed)))
    await refusal(rig.stub.Ingest(pb.IngestRequest(records=records(*[event()] * (MAX_RECORDS + 1)))))
    await rig.stub.IdentifyUser(pb.IdentifyUserRequest(user_id="u1", anonymous_id="a1"))
    await refusal(rig.stub.IdentifyUser(pb.IdentifyUserRequest(user_id="", anonymous_id="a1")))
    stream: Any = rig.stub.IngestStream()
    await stream.write(pb.IngestStreamRequest(sequence=1, records=records(event(event_id="d"), event(""))))
    await stream.read()
    await stream.done_writing()
    assert await stream.code() is grpc.StatusCode.OK


async def test_what_comes_in_is_counted(rig: Metered) -> None:
    """Each record once, by its call and by what became of it; and the sums hold."""
    await load(rig)
    assert await rig.counted("walbatch_events_received_total") == {
        ("TrackEvent",): 3,
        ("IdentifyUser",): 4,
        ("Ingest",): 5 + MAX_RECORDS + 1,
        ("IngestStream",): 2,
    }
    assert await rig.counted("walbatch_events_accepted_total") == {(): 6}
    assert await rig.counted("walbatch_events_duplicate_total") == {(): 3}
    assert await rig.counted("walbatch_events_rejected_total") == {
        ("REQUIRED",): 4,
        ("NOT_AN_OBJECT",): 1,
        ("BATCH_TOO_LARGE",): MAX_RECORDS + 1,
    }
    found = await rig.samples()
    names = ("accepted", "duplicate", "rejected", "refused")
    parts = sum(sum(found[f"walbatch_events_{name}_total"].values()) for name in names)
    assert sum(found["walbatch_events_received_total"].values()) == parts
    stats = (await rig.client.get("/stats")).json()
    assert found["walbatch_events_accepted_total"][()] == stats["accepted"]


async def test_every_answer_to_a_call_is_counted(rig: Metered) -> None:
    """By its status; also of bytes that are no message. How long it took is counted of those that were stored."""
    await load(rig)
    garbage: Any = rig.channel.unary_unary("/analytics.v1.AnalyticsService/TrackEvent")
    await refusal(garbage(b"\xff\xff\xff"))
    ours = "analytics.v1.AnalyticsService"
    assert await rig.counted("grpc_server_handled_total") == {
        ("unary", ours, "TrackEvent", "OK"): 2,
        ("unary", ours, "TrackEvent", "INVALID_ARGUMENT"): 2,
        ("unary", ours, "Ingest", "OK"): 1,
        ("unary", ours, "Ingest", "INVALID_ARGUMENT"): 1,
        ("unary", ours, "IdentifyUser", "OK"): 1,
        ("unary", ours, "IdentifyUser", "INVALID_ARGUMENT"): 1,
        ("bidi_stream", ours, "IngestStream", "OK"): 1,
    }
    assert await rig.counted("walbatch_ingest_ack_duration_seconds_count") == {
        ("TrackEvent",): 2,
        ("IdentifyUser",): 1,
        ("Ingest",): 1,
        ("IngestStream",): 1,
    }


async def test_what_the_log_does_is_counted(rig: Metered) -> None:
    """The groups, their sizes, and the checkpoints between them."""
    await rig.stub.Ingest(pb.IngestRequest(records=records(event(), event(), event())))
    rig.log._disk.checkpoint_bytes = 1
    await rig.stub.TrackEvent(pb.TrackEventRequest(event=event()))
    found = await rig.samples()
    assert found["walbatch_commit_duration_seconds_count"] == {(): 2}
    assert (found["walbatch_commit_events_sum"], found["walbatch_commit_events_count"]) == ({(): 4}, {(): 2})
    buckets = found["walbatch_commit_events_bucket"]
    assert [buckets[bound,] for bound in ("1.0", "2.0", "5.0", "+Inf")] == [1, 1, 2, 2]
    assert found["walbatch_checkpoint_duration_seconds_count"] == {(): 1}


async def test_a_refusal_for_the_moment_is_counted_apart(rig: Metered) -> None:
    """It is no fault of the record, and it is told as a state as well."""
    await rig.stub.TrackEvent(pb.TrackEventRequest(event=event()))
    rig.log._admission.limits = Limits(max_backlog_bytes=1)
    await refusal(rig.stub.TrackEvent(pb.TrackEventRequest(event=event())))
    await refusal(rig.stub.Ingest(pb.IngestRequest(records=records(event(), event(), event("")))))
    assert await rig.counted("walbatch_events_refused_total") == {("BACKLOG_FULL",): 3}
    assert await rig.counted("walbatch_events_rejected_total") == {("REQUIRED",): 1}
    assert (await rig.samples())["walbatch_accepting"] == {(): 0}
    rig.log._admission.limits = NO_LIMITS
    assert (await rig.samples())["walbatch_accepting"] == {(): 1}


async def test_a_commit_that_fails_is_counted_as_refused(rig: Metered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as accepted, nor as a commit; sent again it is."""
    run, errors = Transaction.run, [driver.Error("pretended")]

    def fail_once(transaction: Transaction, *args: Any) -> None:
        if errors:
            raise errors.pop()
        run(transaction, *args)

    monkeypatch.setattr(Transaction, "run", fail_once)
    request = pb.TrackEventRequest(event=event(event_id="a"))
    await refusal(rig.stub.TrackEvent(request))
    found = await rig.samples()
    assert found["walbatch_events_accepted_total"] == {(): 0} == found["walbatch_commit_duration_seconds_count"]
    assert await rig.counted("walbatch_events_refused_total") == {("COMMIT_FAILED",): 1}
    await rig.stub.TrackEvent(request)
    found = await rig.samples()
    assert found["walbatch_events_accepted_total"] == {(): 1} == found["walbatch_commit_duration_seconds_count"]


async def test_what_goes_out_is_counted(rig: Metered) -> None:
    """A destination that is down, then refuses one of three events, then takes everything: each attempt and record."""
    await rig.stub.Ingest(pb.IngestRequest(records=records(*[event(event_id=given) for given in "abc"])))
    async with rig.deliver([says(503), refuses(1, "b", 3)]):
        await rig.attempts(1)
        found = await rig.samples()
        assert found["walbatch_destination_up"] == {("there",): 0}
        assert found["walbatch_backoff_until_timestamp_seconds"] == {("there",): rig.clock.wall_ms() / 1000 + 1}
        assert found["walbatch_events_pending"]["there", "events"] == 3
        await rig.clock.advance(1)
        await rig.attempts(2)
        await rig.stub.TrackEvent(pb.TrackEventRequest(event=event(event_id="d")))
        await rig.attempts(3)
    attempts = {("there", "events", outcome): 1 for outcome in ("failed", "partial", "delivered")}
    assert await rig.counted("walbatch_delivery_attempts_total") == attempts
    assert await rig.counted("walbatch_events_sent_total") == {("there", "events"): 3}
    assert await rig.counted("walbatch_events_dead_total") == {("there", "events", "400"): 1}
    found = await rig.samples()
    assert found["walbatch_delivery_duration_seconds_count"] == {("there",): 3}
    assert found["walbatch_batch_events_sum"] == {("there",): 3 + 3 + 1}
    assert found["walbatch_batch_bytes_count"] == {("there",): 3}
    assert found["walbatch_delivery_lag_seconds_sum"] == {("there",): 1 + 0}
    assert found["walbatch_delivery_lag_seconds_count"] == {("there",): 2}


async def test_what_goes_out_agrees_with_stats(rig: Metered) -> None:
    """Gauges are the numbers of the log, and the counters have grown to the same."""
    await load(rig)
    async with rig.deliver([refuses(0, "a", 5)]):
        await rig.attempts(1)
    found, stats = await rig.samples(), (await rig.client.get("/stats")).json()
    (destination,) = stats["destinations"]
    for lane in destination["lanes"]:
        row = ("there", lane["name"])
        assert found["walbatch_events_sent_total"][row] == lane["sent"]
        assert found["walbatch_events_pending"][row] == lane["pending"]
        assert found["walbatch_events_in_flight"][row] == lane["in_flight"]
        assert found["walbatch_dead_letters"][row] == lane["dead"]
        assert found["walbatch_dead_letters_held"][row] == lane["held"]
    assert (stats["sent"], stats["dead"], stats["pending"]) == (4, 1, 1)
    assert found["walbatch_destination_up"] == {("there",): 1}
    states = {("there", "ok"): 1, ("there", "retrying"): 0, ("there", "open"): 0, ("there", "paused"): 0}
    assert found["walbatch_destination_state"] == states
    assert found["walbatch_backoff_until_timestamp_seconds"] == {("there",): 0}
    assert found["walbatch_backlog_bytes"] == {(): stats["pending_bytes"]}
    assert found["walbatch_backlog_limit_bytes"] == {(): LIMIT_BYTES}
    assert found["walbatch_database_bytes"] == {(): stats["database_bytes"]}
    assert found["walbatch_wal_file_bytes"] == {(): stats["wal_bytes"]}
    ((build,),) = (found["walbatch_build_info"],)
    assert build[2] == driver.SQLITE_VERSION


async def test_a_pause_is_told_apart_from_a_destination_that_is_down(rig: Metered) -> None:
    """A person has paused delivery to one that is well, and lets it go on."""
    for at_ms, paused in ((rig.clock.wall_ms(), 1), (None, 0)):
        await rig.log.pause("there", at_ms)
        found = await rig.samples()
        assert found["walbatch_destination_paused"] == {("there",): paused}
        assert found["walbatch_destination_up"] == {("there",): 1}
        assert found["walbatch_destination_state"]["there", "paused"] == 0


async def test_the_oldest_tells_its_age(rig: Metered) -> None:
    """In seconds, while it waits."""
    await rig.stub.TrackEvent(pb.TrackEventRequest(event=event()))
    await rig.clock.advance(7)
    assert (await rig.samples())["walbatch_oldest_pending_age_seconds"] == {("there",): 7}


async def test_every_family_is_there_from_the_start(rig: Metered) -> None:
    """With its type, its help, and all rows of its labels, so that the first error is an increase of a counter."""
    parsed = list(parse(await rig.text()))
    found = samples(parsed)
    process = {metric.name for metric in parsed if metric.name.startswith("process_")}
    shown = {metric.name for metric in parsed} - process
    assert shown == {name.removesuffix("_total") for name in families()}
    assert "process_resident_memory_bytes" in process
    for metric in parsed:
        assert metric.documentation
    for name, family in families().items():
        if family.type == "counter" and name != "grpc_server_handled_total":
            count = 1
            for values in family.labels.values():
                count *= len(values) or 1
            assert len(found[name]) == count, name


async def test_labels_have_values_from_fixed_sets_alone(rig: Metered) -> None:
    """Whatever is sent, and whatever a destination answers."""
    await load(rig)
    async with rig.deliver([refuses(0, "a", 5)]):
        await rig.attempts(1)
    known = families()
    for name, rows in (await rig.samples()).items():
        family = known.get(name) or known.get(re.sub("_(bucket|count|sum)$", "", name))
        if family is None:
            assert name.startswith("process_")
            continue
        for row in rows:
            for (label, values), value in zip(family.labels.items(), row, strict=False):
                allowed = ("there",) if label == "destination" else values
                assert value in allowed or (family.type == "info" and values is CONFIGURED), (name, label, value)


async def test_openmetrics_is_answered_to_who_asks_for_it(rig: Metered) -> None:
    """It says the same as the text, and names the units."""
    await load(rig)
    answer = await rig.client.get("/metrics", headers=OPENMETRICS)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    parsed = list(parse_openmetrics(answer.text))  # type: ignore[no-untyped-call]
    plain = await rig.client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    ours, theirs = samples(parsed), await rig.samples()
    assert {name: ours[name] for name in ours if not name.startswith("process_")} == {
        name: theirs[name] for name in theirs if not name.startswith("process_")
    }
    units = {metric.name: metric.unit for metric in parsed}
    assert (units["walbatch_commit_duration_seconds"], units["walbatch_batch_bytes"]) == ("seconds", "bytes")


async def test_nothing_of_an_event_is_told(rig: Metered) -> None:
    """No name, id or property, nothing that a destination says of them, and no token: in no label and no help."""
    told = pb.Event(
        name=f"{CANARY}-name",
        event_id=f"{CANARY}-id",
        distinct_id=f"{CANARY}-user",
        properties_json=f'{{"{CANARY}-key": "{CANARY}-value"}}',
    )
    await rig.stub.TrackEvent(pb.TrackEventRequest(event=told))
    bad = event(f"{CANARY}-name", properties_json=f'{{"{CANARY}": ')
    await refusal(rig.stub.TrackEvent(pb.TrackEventRequest(event=bad)))
    await rig.stub.IdentifyUser(pb.IdentifyUserRequest(user_id=f"{CANARY}-user", anonymous_id=f"{CANARY}-anon"))
    unknown: Any = rig.channel.unary_unary(f"/analytics.v1.AnalyticsService/{CANARY}")
    await refusal(unknown(b""))
    async with rig.deliver([refuses(0, f"{CANARY}-id", 2)]):
        await rig.attempts(1)
    assert await rig.counted("walbatch_events_dead_total")
    for headers in ({}, OPENMETRICS):
        text = (await rig.client.get("/metrics", headers=headers)).text
        assert CANARY not in text
        assert TOKEN not in text
