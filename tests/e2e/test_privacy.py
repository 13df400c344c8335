"""What the programs write about themselves never holds what they carry.

The shared helpers of the tests put canaries into every token, id and property (`canary.py`), and each test fails whose
programs wrote one (`outputs.py`). Here is that this is so, and the ways on which one could get out.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import canary
import crashing_server
import grpc
import pytest
import wrong_requests
from programs import Site, environment, eventually, site

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

pytestmark = pytest.mark.e2e

SUPPORT = Path(canary.__file__).parent
LINE = json.dumps({"event": "E", "properties": {"distinct_id": canary.PERSON, canary.NAME: canary.VALUE}}) + "\n"
UPDATE = json.dumps({"$distinct_id": canary.PERSON, "$set": {canary.NAME: canary.VALUE}}) + "\n"
LOUD = {"log_level": "debug", "retry_base": "50ms", "retry_max": "200ms"}
PATHS = ("/livez", "/readyz", "/stats", "/metrics", "/", "/favicon.ico", f"/{canary.VALUE}?{canary.VALUE}")
LIMIT_S = 10.0


TELLING = """\
import sys
import pytest
from programs import Program, environment

@pytest.mark.parametrize("told", {told!r})
def test_it(tmp_path, told):
    command = [sys.executable, "-c", "import sys; sys.stderr.write(sys.argv[1])", told]
    program = Program(command, tmp_path / "log", environment(), tmp_path)
    assert program.wait() == 0
"""


class TestTheAlarm:
    """The check of all outputs, checked."""

    def test_a_program_that_tells_fails_its_test(self, tmp_path: Path) -> None:
        """A test that finds nothing wrong fails all the same by what its program wrote, and without that it passes."""
        canaries = [canary.SECRET, canary.PERSON, canary.VALUE, canary.NAME]
        coded = [f"Basic {b64encode(f'{before}{canary.SECRET}:'.encode()).decode()}" for before in ("", "b:", "bo:")]
        (tmp_path / "conftest.py").write_text("from outputs import no_program_tells_what_it_carries\n")
        (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {SUPPORT}\n")
        told = [*(f"user={one}" for one in canaries), *coded, "user=somebody", "Basic c29tZWJvZHk6"]
        (tmp_path / "test_it.py").write_text(TELLING.format(told=told))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment(), check=False)
        assert "9 passed, 7 errors" in done.stdout, done.stdout + done.stderr

    def test_a_delivered_record_is_data(self) -> None:
        """The lines of a destination that is standard output are no leak, and the line after them is."""
        record = f'{canary.RECORD}"/import","record":{LINE.strip()}}}\n'
        assert not canary.leaks(record)
        assert canary.leaks(f"{record}sent it to {canary.PERSON}") == [canary.PERSON]

    def test_a_name_may_be_told_to_who_sent_it(self) -> None:
        """A refusal names the property at fault, and neither its value nor a person."""
        assert not canary.leaks(f"event.properties.{canary.NAME}: is wrong", names=True)
        assert canary.leaks(f"{canary.NAME}={canary.VALUE}", names=True) == [canary.VALUE]


@pytest.mark.parametrize("status", [400, 401, 503])
def test_no_credential_and_nothing_of_an_event_reaches_the_log(tmp_path: Path, status: int) -> None:
    """Delivered, refused or held: the log tells of the batch, and has been searched like everything else."""
    with site(tmp_path, **LOUD) as here:
        failing = here.sink("--fail-rate", "1", "--status", str(status))
        server = here.serve()
        here.run("send", "-", text=LINE + UPDATE)
        broken = LINE.replace('"E"', '""') + f'{{"event": "{canary.VALUE}'
        assert here.run("send", "-", text=broken, check=False).returncode == 1
        eventually(lambda: here.stats()["destinations"][0]["failures"] or here.stats()["dead"], "an answer")
        _ask_everything(here)
        for command in (["stats", "--check"], ["tap", "--since", "1h", "--limit", "2"], ["inspect", "1"], ["pause"]):
            here.run(*command, check=False)
        here.run("resume")
        failing.stop()
        here.sink()
        here.drained()
        assert server.stop() == 0
        assert "flusher.batch_answered" in server.output()


@pytest.mark.parametrize("status", [200, 400, 401, 413, 503])
def test_a_destination_that_quotes_what_it_was_sent(tmp_path: Path, status: int) -> None:
    """Its sentence is told without the quotation, in the log, by `stats` and by `doctor`."""
    quotes = f"cannot take {canary.VALUE} of {canary.PERSON} from '{canary.SECRET}'"
    body = {"status": 0, "code": status, "error": quotes}
    script = tmp_path / "faults.json"
    script.write_text(json.dumps([{"fault": "status", "status": status, "body": body, "times": 1000}]))
    with site(tmp_path, **LOUD) as here:
        here.sink("--script", str(script))
        server = here.serve()
        here.run("send", "-", text=LINE + UPDATE)
        hidden = json.dumps("cannot take … of … from '[secret]'")[1:-1]
        eventually(lambda: hidden in server.output(), "the answer is told")
        _ask_everything(here)
        assert not canary.leaks(server.output())


def test_requests_that_are_refused(tmp_path: Path) -> None:
    """Canaries in every field of every kind of record: the answer names the field, and the log has nothing of it."""
    with site(tmp_path, **LOUD) as here:
        server = here.serve()
        with grpc.insecure_channel(f"127.0.0.1:{here.grpc_port}") as channel:
            answers = list(_answers(channel))
        assert len(answers) > 70
        for answer in answers:
            canary.check(answer, "an answer", names=True)
        _ask_everything(here)
        assert here.stats()["accepted"] == 0
        assert server.stop() == 0


def _answers(channel: grpc.Channel) -> Iterator[str]:
    """Yield what the server says to each wrong request: status, text and details, or the rejections."""
    stub = AnalyticsServiceStub(channel)
    for event in wrong_requests.events():
        yield _refused(stub.TrackEvent, pb.TrackEventRequest(event=event))
    for sign_in in wrong_requests.identifications():
        yield _refused(stub.IdentifyUser, sign_in)
    for record in wrong_requests.records():
        reply = stub.Ingest(pb.IngestRequest(records=[record]), timeout=LIMIT_S)
        assert len(reply.rejections) == 1, record
        yield str(reply)
    good = pb.Record(event=pb.Event(name="E", distinct_id=canary.PERSON, properties_json=canary.PROPERTIES))
    yield _refused(stub.Ingest, pb.IngestRequest(records=[good] * 2001))
    yield _refused(lambda *a, **k: list(stub.IngestStream(*a, **k)), iter([pb.IngestStreamRequest(records=[good])]))
    for method in ("analytics.v1.AnalyticsService/TrackEvent", f"analytics.v1.{canary.VALUE}/{canary.PERSON}"):
        call: Any = channel.unary_unary(f"/{method}", request_serializer=bytes)
        yield _refused(call, b"\xff" + canary.VALUE.encode(), metadata=[("authorization", f"Bearer {canary.SECRET}")])


def _refused(call: Any, request: object, **options: Any) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=LIMIT_S, **options)
    error: Any = caught.value
    return f"{error.code()} {error.details()} {error.trailing_metadata()}"


def _ask_everything(here: Site) -> None:
    """Look at each thing that the server and the commands say of themselves; `run` looks for canaries.

    Offline, since the doctor's own question has no record that a destination could quote.
    """
    for command in (["stats"], ["stats", "--json"], ["doctor", "--offline"]):
        here.run(*command, check=False)
    for path in PATHS:
        canary.check(here.admin_get(path)[1], path)


@pytest.mark.parametrize("token", ["right", "wrong"])
def test_orders_that_are_refused(tmp_path: Path, token: str) -> None:
    """Whoever may not, or asks the admin port for nonsense, is told so without a repetition."""
    bodies = [
        canary.VALUE,
        json.dumps([canary.PERSON]),
        json.dumps({"destination": "mixpanel", "selection": {"distinct_id": [canary.PERSON]}, "dry_run": True}),
        json.dumps({"destination": "mixpanel", "selection": {canary.NAME: canary.PERSON}, "dry_run": True}),
        json.dumps({"destination": "mixpanel", "choice": canary.VALUE, "patch": canary.VALUE, "dry_run": True}),
        json.dumps({"people": canary.PERSON, "ids": [canary.PERSON, 5], "dry_run": canary.VALUE}),
    ]
    with site(tmp_path, **LOUD) as here:
        here.serve()
        known = (here.data / "admin.token").read_text() if token == "right" else canary.SECRET
        for path in ("/replay", "/dead/replay", "/dead/discard", "/erase", "/unknown"):
            for body in bodies:
                with closing(HTTPConnection(here.lock()["admin"], timeout=LIMIT_S)) as connection:
                    connection.request("POST", path, body, {"Authorization": f"Bearer {known}"})
                    reply = connection.getresponse()
                    canary.check(reply.read().decode(), f"{path}: {body}", names=True)
                assert reply.status == (404 if path == "/unknown" else 400 if token == "right" else 401)


@pytest.mark.parametrize("place", crashing_server.PLACES)
def test_an_error_in_our_own_code(tmp_path: Path, place: str) -> None:
    """A traceback shows where it happened, and none of the values that were at hand."""
    with site(tmp_path, **LOUD) as here:
        here.sink()
        server = here.serve(entry=(sys.executable, crashing_server.__file__, place))
        event = pb.Event(name="E", distinct_id=canary.PERSON, properties_json=canary.PROPERTIES)
        with grpc.insecure_channel(f"127.0.0.1:{here.grpc_port}") as channel:
            stub: Any = AnalyticsServiceStub(channel)
            calls = (
                (stub.TrackEvent, pb.TrackEventRequest(event=event)),
                (stub.Ingest, pb.IngestRequest(records=[pb.Record(event=event)])),
            )
            for call, request in calls:
                try:
                    call(request, timeout=LIMIT_S)
                except grpc.RpcError as error:
                    canary.check(str(error), "the answer")
        eventually(lambda: "planned" in server.output(), f"the error is told: {server.output()}")


def test_a_signal_that_asks_for_a_dump(tmp_path: Path) -> None:
    """SIGQUIT ends it as it ends any program: no stack, no values."""
    with site(tmp_path, **LOUD) as here:
        server = here.serve()
        here.run("send", "-", text=LINE)
        resource.prlimit(server.process.pid, resource.RLIMIT_CORE, (0, 0))
        before = server.output()
        server.signal(signal.SIGQUIT)
        assert server.wait() == -signal.SIGQUIT
        assert server.output() == before


def test_wrong_options_of_send(tmp_path: Path) -> None:
    """A wrong option is named, and what was given with it is not repeated."""
    wrong = [
        ["--property", canary.VALUE],
        ["--properties", canary.VALUE],
        ["--properties", canary.PROPERTIES[:-2]],
        ["--property", f"{canary.NAME}={canary.VALUE}", "--user-id", canary.PERSON * 20],
        ["--property", f"token={canary.VALUE}", "--ip", canary.VALUE * 20],
        ["--distinct-id", canary.PERSON * 20, "--device-id", canary.PERSON],
    ]
    with site(tmp_path, **LOUD) as here:
        here.serve()
        for options in wrong:
            done = here.run("send", "--event", "E", "--distinct-id", canary.PERSON, *options, check=False)
            assert done.returncode in {1, 2}, options


def test_a_client_that_finds_no_server(tmp_path: Path) -> None:
    """What could not be sent is named by line and id, not by what it says."""
    with site(tmp_path) as here:
        for arguments in (("-",), ("--event", "E", "--distinct-id", canary.PERSON, "-p", f"a={canary.VALUE}")):
            done = here.run("send", *arguments, "--retry-for", "0s", text=LINE, check=False)
            assert done.returncode == 4
