"""The clients in examples/: those in Python are run, of the others each name is looked for in the proto."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import clients
import grpc
import pytest
from clients import EXAMPLES
from failing_server import Server
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from programs import site

from walbatch.pb.analytics.v1 import service_pb2 as pb

pytestmark = pytest.mark.e2e

TRACK = (sys.executable, str(EXAMPLES / "python" / "track.py"))
TRACK_ASYNC = (sys.executable, str(EXAMPLES / "python" / "track_async.py"))
SERVICE = pb.DESCRIPTOR.services_by_name["AnalyticsService"]


def test_the_client_in_python(tmp_path: Path) -> None:
    """What it sends arrives; the same event is stored once; a bad one is named."""
    clients.check_delivers(TRACK, tmp_path, tmp_path)


def test_it_waits_for_the_server(tmp_path: Path) -> None:
    """The service config says so."""
    clients.check_waits(TRACK, tmp_path)


def test_it_repeats_the_same_event(tmp_path: Path, server: Server) -> None:
    """The service config says so."""
    clients.check_repeats(TRACK, tmp_path, server)


def test_it_says_what_to_do_with_what_was_refused(tmp_path: Path, server: Server) -> None:
    """A full server is not hammered."""
    clients.check_gives_back(TRACK, tmp_path, server)


def test_the_client_in_asyncio(tmp_path: Path) -> None:
    """A thousand events in a few calls; a bad one is told to who sent it, and to nobody else."""
    with site(tmp_path) as here:
        here.sink()
        here.serve()
        done = clients.run(TRACK_ASYNC, f"127.0.0.1:{here.grpc_port}", tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == ["refused: event.name: must not be empty or blank", "1000 stored"]
        assert here.drained()["sent"] == 1000
        assert len({record["properties"]["$insert_id"] for record in here.delivered()}) == 1000


def test_it_sends_a_batch_until_it_is_answered(tmp_path: Path, server: Server) -> None:
    """Answers that get lost lead to the same events once more, which are stored once."""
    server.lost_answers = 2
    done = clients.run(TRACK_ASYNC, server.address, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(server.names()) == 1000


def go_name(name: str) -> str:
    """Return what Go calls a field."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def go_fields(message: str) -> set[str]:
    """Return the fields of a message's struct in Go: of a oneof there is one field, and one more struct each."""
    if message not in pb.DESCRIPTOR.message_types_by_name:
        owner, _, member = message.partition("_")
        fields = pb.DESCRIPTOR.message_types_by_name[owner].fields
        return {name for field in fields if field.containing_oneof and (name := go_name(field.name)) == member}
    descriptor = pb.DESCRIPTOR.message_types_by_name[message]
    plain = {go_name(field.name) for field in descriptor.fields if not field.containing_oneof}
    return plain | {go_name(oneof.name) for oneof in descriptor.oneofs}


def test_the_client_in_go_names_what_the_proto_has() -> None:
    """Each message, field and call that it names is there."""
    text = re.sub("//.*", "", (EXAMPLES / "go" / "track.go").read_text())
    structs = re.findall(r"&pb\.(\w+)\{", text)
    assert len(structs) > 5
    assert set(re.findall(r"\bpb\.(\w+)", text)) <= {*structs, "Event", f"New{SERVICE.name}Client"}
    known = {field for struct in structs for field in go_fields(struct)}
    named = set(re.findall(r"^\s+([A-Z]\w+): ", text, re.MULTILINE)) | set(re.findall(r"[{ ]([A-Z]\w+): ", text))
    assert named <= known, named - known
    for variable, message in {
        "reply": "TrackEventResponse",
        "answer": "IngestResponse",
        "rejection": "Rejection",
        "request": "IngestRequest",
        "event": "Event",
    }.items():
        used = set(re.findall(rf"\b{variable}\.(\w+)", text))
        assert used
        assert used <= go_fields(message), used - go_fields(message)
    assert set(re.findall(r"\banalytics\.(\w+)\(", text)) == {"TrackEvent", "IdentifyUser", "Ingest"}


def grpcurl_calls() -> list[tuple[str, str]]:
    """Return each call in the script: the method, and the message as JSON."""
    text = (EXAMPLES / "grpcurl" / "track.sh").read_text().replace("'\"$id\"'", "11111111-2222-4333-8444-555555555555")
    return [(method, data) for data, method in re.findall(r"-d '(.*?)'[ \\\n]+\"\$address\" (\S+)", text, re.DOTALL)]


def test_the_messages_for_grpcurl_are_taken(tmp_path: Path) -> None:
    """They are JSON of the calls that they are for, and the server stores what they say."""
    calls = grpcurl_calls()
    assert len(calls) == (EXAMPLES / "grpcurl" / "track.sh").read_text().count("\ngrpcurl ")
    with site(tmp_path) as here:
        here.sink()
        here.serve()
        with grpc.insecure_channel(f"127.0.0.1:{here.grpc_port}") as channel:
            answers = [_called(channel, method, data) for method, data in calls]
        assert [getattr(answer, "accepted_count", None) for answer in answers] == [None, None, 4, None]
        assert answers[-1] == health_pb2.HealthCheckResponse(status="SERVING")
        assert here.drained()["sent"] == 7


def _called(channel: grpc.Channel, path: str, data: str) -> Message:
    service, _, name = path.partition("/")
    found: Any = Default().FindServiceByName(service).methods_by_name[name]
    request, answer = map(message_factory.GetMessageClass, (found.input_type, found.output_type))
    call = channel.unary_unary(
        f"/{path}", request_serializer=request.SerializeToString, response_deserializer=answer.FromString
    )
    reply: Message = call(json_format.Parse(data, request()), timeout=10)
    return reply


def test_the_shell_can_read_the_script() -> None:
    """It is no more than calls of grpcurl, as `sh` reads them."""
    done = clients.run(("sh", "-n", str(EXAMPLES / "grpcurl" / "track.sh")), "", EXAMPLES)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_service_config_names_the_service() -> None:
    """A policy for a service of another name would do nothing, without a word."""
    config = json.loads((EXAMPLES / "service-config.json").read_text())
    assert [name["service"] for method in config["methodConfig"] for name in method["name"]] == [SERVICE.full_name]
