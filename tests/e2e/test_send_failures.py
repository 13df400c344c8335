"""`walbatch send` when calls fail, are refused whole or find nobody: what is repeated, and where to resume."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest
from failing_server import Fault, Request, Server
from programs import site
from sending import STORED, Send, lines, summary

from walbatch.errors import BacklogFull, CommitFailed, InvalidRecord, Unavailable
from walbatch.pb.analytics.v1 import service_pb2 as pb

pytestmark = pytest.mark.e2e


def fails(server: Server, *errors: Fault) -> None:
    """Let the next requests fail, one for each error."""
    waiting = list(errors)
    server.fault = lambda _: waiting.pop(0) if waiting else None


@pytest.mark.parametrize("error", [CommitFailed("not now"), BacklogFull("full for a moment")])
def test_a_failed_call_is_repeated_with_the_same_ids(send: Send, server: Server, error: Unavailable) -> None:
    """Ids are made once, and whatever the server asks to repeat is repeated unchanged."""
    error.retry_after_s = 0.3
    fails(server, error, error)
    begun_s = time.monotonic()
    done = send(text=lines(2))
    assert (done.returncode, summary(done)) == (0, f"2 {STORED}")
    assert time.monotonic() - begun_s > 2 * 0.3
    first, second, third = server.requests
    assert first == second == third
    assert isinstance(first, pb.IngestRequest)
    assert all(len(record.event.event_id) == 36 for record in first.records)


def test_one_event_is_repeated_as_well(send: Send, server: Server) -> None:
    """The options' way has the same patience."""
    error = CommitFailed("not now")
    error.retry_after_s = 0.1
    fails(server, error)
    assert send("--event", "E").returncode == 0
    assert server.requests[0] == server.requests[1]


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_an_answer_that_got_lost_stores_nothing_twice(send: Send, server: Server, code: grpc.StatusCode) -> None:
    """A request that was stored though its answer never came is recognised when it comes again."""
    server.lost_answers = 1
    server.lost_with = code
    done = send(text=lines(2))
    assert (done.returncode, summary(done)) == (
        0,
        "0 accepted, 2 duplicates, 0 refused; in memory only (buffered)",
    )
    assert server.names() == ["E1", "E2"]


def test_giving_up_says_where_to_resume(send: Send, server: Server) -> None:
    """When the time is over the exit code is 1, and the text tells what is acknowledged."""

    def fault(request: Request) -> Fault | None:
        assert isinstance(request, pb.IngestRequest)
        return None if request.records[0].event.name == "E1" else CommitFailed("not now")

    server.fault = fault
    done = send("--retry-for", "0", "--json", text=lines(1200))
    assert done.returncode == 1
    assert "does not take them: UNAVAILABLE: not now; 500 lines are acknowledged: resume at line 501" in done.stderr
    assert json.loads(done.stdout)["resume_at_line"] == 501
    assert json.loads(done.stdout)["accepted"] == 500


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_what_no_repetition_can_mend_is_not_repeated(send: Send, server: Server, status: grpc.StatusCode) -> None:
    """Such a status ends the command at once; RESOURCE_EXHAUSTED is one unless it says when to come again."""
    server.status = status
    done = send(text=lines(1))
    assert done.returncode == 1
    assert f"{status.name}: not for you; 0 lines are acknowledged: resume at line 1" in done.stderr
    assert len(server.requests) == 1


def test_a_request_that_is_refused_whole(send: Send, server: Server) -> None:
    """A server with smaller limits than these ends the command, which says so."""
    fails(server, InvalidRecord("records", "BATCH_TOO_LARGE", "is too much; split it"))
    done = send(text=lines(1))
    assert done.returncode == 1
    assert "refuses the request: records: is too much; split it; 0 lines are acknowledged" in done.stderr


def test_more_time_asked_than_there_is(send: Send, server: Server) -> None:
    """A server that is full for longer than the limit is not waited for."""
    fails(server, BacklogFull("too much is waiting"))
    done = send("--event", "E", "--event-id", "i-1", "--retry-for", "5s")
    assert done.returncode == 1
    assert "RESOURCE_EXHAUSTED: too much is waiting; send it again with --event-id i-1" in done.stderr


@pytest.mark.parametrize("arguments", [("--event", "E"), ("-",)])
def test_nobody_there(send: Send, arguments: Sequence[str]) -> None:
    """Exit code 4 says that no call ever reached a server, soon after the time for retries is over."""
    begun_s = time.monotonic()
    done = send(*arguments, "--to", "127.0.0.1:1", "--retry-for", "1s", text=lines(1))
    assert done.returncode == 4
    assert "the server at 127.0.0.1:1 does not answer (tried for 1s)" in done.stderr
    assert time.monotonic() - begun_s < 10


def test_no_server_in_the_data_directory(tmp_path: Path) -> None:
    """With any free port in the settings and nobody there, the exit code is that of an unreachable server."""
    with site(tmp_path, grpc_listen="127.0.0.1:0") as here:
        done = here.run("send", "--event", "E", check=False)
        assert done.returncode == 4
        assert "no server has" in done.stderr
