"""Arbitrary bytes as messages of every call, on a real server."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from programs import WALBATCH, Program, site
from watching import MIB, memory, numbers

from walbatch.pb.analytics.v1 import service_pb2 as pb

pytestmark = pytest.mark.crash

BROKEN = (sys.executable, str(Path(__file__).parent.parent / "support" / "broken_server.py"))
UNARY = ("TrackEvent", "IdentifyUser", "Ingest")
DOCUMENTED = {"OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}
"""Of a server that is not stopping; see docs/grpc.md."""
MOST_MEMORY = 48 * MIB

texts = st.text(max_size=30) | st.sampled_from(["", "{}", '{"a":1}', '{"a":NaN}', "[]", "null", "undefined", "\ud7ff"])
events = st.builds(
    pb.Event,
    event_id=texts,
    name=texts,
    distinct_id=texts,
    device_id=texts,
    user_id=texts,
    ip=texts,
    properties_json=texts,
)
updates = st.builds(
    pb.ProfileUpdate, update_id=texts, distinct_id=texts, set=st.builds(pb.Properties, json=texts), ip=texts
)
records = st.builds(pb.Record, event=events) | st.builds(pb.Record, profile_update=updates) | st.just(pb.Record())
requests = st.one_of(
    st.builds(pb.TrackEventRequest, event=events),
    st.builds(pb.IdentifyUserRequest, user_id=texts, anonymous_id=texts, event_id=texts, traits_json=texts),
    st.builds(pb.IngestRequest, records=st.lists(records, max_size=5)),
    st.builds(pb.IngestStreamRequest, sequence=st.integers(0, 2**64 - 1), records=st.lists(records, max_size=5)),
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Draw noise, or a message of any call with some of its bytes replaced, removed or doubled."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=200))
    message = bytearray(draw(requests).SerializeToString())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(message)))
        message[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(message)


def code_of(channel: grpc.Channel, call: str, message: bytes) -> str:
    """Send bytes, and return the name of the code."""
    path = f"/analytics.v1.AnalyticsService/{call}"
    try:
        if call in UNARY:
            one: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
            one(message, timeout=10)
        else:
            several: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
            list(several(iter([message, message]), timeout=10))
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def undocumented(address: str, examples: int) -> Counter[str]:
    """Return the codes that nobody has documented, and how often they came."""
    found: Counter[str] = Counter()
    with grpc.insecure_channel(address) as channel:

        @seed(20261123)
        @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(call=st.sampled_from([*UNARY, "IngestStream"]), message=messages())
        def send(call: str, message: bytes) -> None:
            code = code_of(channel, call, message)
            if code not in DOCUMENTED:
                found[f"{call}: {code}"] += 1

        send()
    return found


def up(server: Program) -> bool:
    """Say whether it still runs, and has told of no error of its own."""
    return server.process.poll() is None and "Traceback" not in server.output()


@pytest.mark.timeout(120)
def test_arbitrary_bytes(tmp_path: Path, matrix: Callable[..., None], rounds: Callable[[int, int], int]) -> None:
    """Every answer has a documented code, the server stays up, and its memory stays small."""
    examples = rounds(300, 2000)
    with site(tmp_path, mixpanel_url="http://127.0.0.1:9") as here:
        server = here.serve(entry=(WALBATCH, "serve"))
        before = memory(server)
        assert not undocumented(f"127.0.0.1:{here.grpc_port}", examples)
        assert memory(server, "VmHWM") - before < MOST_MEMORY
        assert numbers(here)["accepted"]
        assert up(server), server.output()
        assert server.stop() == 0
    control = tmp_path / "control"
    control.mkdir()
    with site(control, mixpanel_url="http://127.0.0.1:9") as here:
        here.serve(entry=(*BROKEN, "forget_to_refuse"))
        escaped = undocumented(f"127.0.0.1:{here.grpc_port}", 100)
        assert escaped
    matrix(
        fault="arbitrary bytes as messages",
        rounds=examples,
        acked=0,
        lost=0,
        control=f"errors escape: {escaped.total()} of 100 answers with other codes",
    )
