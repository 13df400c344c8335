"""`walbatch send`, as its own process, against a real gRPC server."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from failing_server import LIMIT_S, Server
from programs import WALBATCH, environment, eventually, site
from sending import STORED, Send, lines, summary

from walbatch.pb.analytics.v1 import service_pb2 as pb

pytestmark = pytest.mark.e2e


def test_one_event_by_options(send: Send, server: Server) -> None:
    """Every option arrives in its field; a property is JSON, or else text."""
    identity = ("--distinct-id", "u1", "--user-id", "u2", "--device-id", "d1", "--ip", "192.0.2.1", "--event-id", "i-1")
    values = (
        "--property",
        "n=1",
        "-p",
        "s=Größe",
        "-p",
        "o=[1.50,null]",
        "-p",
        "e=a=b",
        "--properties",
        '{"n": 0, "m": 2}',
    )
    done = send("--event", "Signed Up", *identity, *values, "--time", "1972-01-01")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"1 {STORED}\n")
    (request,) = server.requests
    assert isinstance(request, pb.TrackEventRequest)
    event = request.event
    assert (event.name, event.event_id, event.ip) == ("Signed Up", "i-1", "192.0.2.1")
    assert (event.distinct_id, event.user_id, event.device_id) == ("u1", "u2", "d1")
    assert json.loads(event.properties_json) == {"n": 1, "m": 2, "s": "Größe", "o": [1.5, None], "e": "a=b"}
    assert event.event_time.ToMilliseconds() == 63_072_000_000


def test_a_file_is_stored_in_its_order(send: Send, server: Server, tmp_path: Path) -> None:
    """Events and profile updates of a file travel in requests of at most 500."""
    path = tmp_path / "events.ndjson"
    path.write_text(lines(1200) + '{"$distinct_id": "u1", "$set": {"a": 1}, "$token": "t"}\n')
    done = send(path)
    assert (done.returncode, summary(done)) == (0, f"1201 {STORED}")
    sizes = [len(request.records) for request in server.requests if isinstance(request, pb.IngestRequest)]
    assert sorted(sizes) == [201, 500, 500]
    assert sorted(server.names()) == sorted([f"E{n}" for n in range(1, 1201)] + ["$set"])


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_lines_come_from_standard_input(send: Send, server: Server, arguments: Sequence[str]) -> None:
    """Without a file, and with a hyphen for it, lines are read from a pipe; the last one needs no line break."""
    done = send(*arguments, text=lines(2).rstrip())
    assert (done.returncode, summary(done)) == (0, f"2 {STORED}")
    assert server.names() == ["E1", "E2"]


def test_no_lines_are_no_failure(send: Send, server: Server) -> None:
    """An empty input is sent without a call."""
    done = send(text="\n\n")
    assert (done.returncode, done.stderr) == (0, "0 accepted, 0 duplicates, 0 refused\n")
    assert not server.requests


def test_refused_lines_are_named_and_the_others_stored(send: Send, server: Server) -> None:
    """What this side and what the server refuse is listed in the order of the lines, without any data; exit code 3."""
    text = (
        lines(1)
        + "secret\n\n"
        + '{"event": " ", "properties": {"s": "secret"}}\n'
        + '{"event": "secret", "properties": {"token": "secret", "\\u001b[2J": {"a": {"b": {"c": {}}}}}}\n'
        + '{"event": 5}\n'
        + lines(1, first=7)
    )
    done = send("-", text=text)
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        "line 2: is not valid JSON from column 1 on (NOT_JSON)",
        "line 4: event.name: must not be empty or blank (REQUIRED)",
        "line 5: event.properties.?[2J: is nested more than 3 levels deep (TOO_DEEP)",
        "line 6: event.name: must be text (NOT_TEXT)",
        "2 accepted, 0 duplicates, 4 refused; in memory only (buffered)",
    ]
    assert server.names() == ["E1", "E7"]


@pytest.mark.parametrize("text", ["no\n", '{"event": ""}\n{"event": " "}\n'])
def test_all_lines_refused(send: Send, text: str) -> None:
    """Exit code 1 says that nothing was stored."""
    done = send(text=text)
    assert done.returncode == 1
    assert summary(done).startswith(f"0 accepted, 0 duplicates, {text.count(chr(10))} refused")


def test_a_refused_event_names_the_field(send: Send) -> None:
    """One event has no line; the server's and this side's refusals look the same."""
    done = send("--event", " ")
    assert (done.returncode, done.stderr.splitlines()) == (
        1,
        ["event.name: must not be empty or blank (REQUIRED)", "0 accepted, 0 duplicates, 1 refused"],
    )
    done = send("--event", "E", "-p", "distinct_id=[1]")
    assert done.returncode == 1
    assert done.stderr.startswith("event.distinct_id: must be text or a whole number (NOT_TEXT)\n")


def test_the_summary_as_json(send: Send) -> None:
    """With --json the numbers are an object on stdout."""
    done = send("--json", text=lines(3) + "no\n")
    assert json.loads(done.stdout) == {
        "accepted": 3,
        "duplicates": 0,
        "refused": 1,
        "durability": "buffered",
        "resume_at_line": None,
    }


def test_the_same_id_again_is_a_duplicate(send: Send) -> None:
    """What is there already is not stored again, and that is a success."""
    arguments = ("--event", "E", "--event-id", "i-1")
    assert send(*arguments).returncode == 0
    done = send(*arguments)
    assert (done.returncode, summary(done)) == (
        0,
        "0 accepted, 1 duplicates, 0 refused; in memory only (buffered)",
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--event", "E", "file.ndjson"),
        ("-p", "a=1"),
        ("--time", "1d"),
        ("--event", "E", "-p", "secret"),
        ("--event", "E", "--properties", "[1]"),
        ("--event", "E", "--properties", "secret"),
        ("--event", "E", "--time", "soon"),
        ("--event", "E", "--retry-for", "long"),
        ("--event", "E", "--to", "nowhere"),
        ("missing.ndjson",),
        (".",),
    ],
)
def test_wrong_use(send: Send, server: Server, arguments: Sequence[str]) -> None:
    """Exit code 2 says that the command was misused; nothing is sent, and there is no summary."""
    done = send(*arguments, text=lines(1))
    assert done.returncode == 2
    assert "Error" in done.stderr
    assert "accepted" not in done.stderr
    assert "secret" not in done.stderr
    assert not server.requests


def start(
    server: Server, *, stdin: int = subprocess.PIPE, stderr: int = subprocess.PIPE, term: str = "dumb"
) -> subprocess.Popen[bytes]:
    """Start the command with an open end."""
    env = environment() | {"TERM": term}
    command = [WALBATCH, "send", "--to", server.address]
    return subprocess.Popen(command, env=env, stdin=stdin, stderr=stderr, start_new_session=True)


def test_lines_are_sent_while_the_input_is_open(server: Server) -> None:
    """A writer that pauses does not hold back what it has written."""
    with start(server) as process:
        assert process.stdin
        assert process.stderr
        for number in (1, 2):
            process.stdin.write(lines(1, first=number).encode())
            process.stdin.flush()
            eventually(partial(_has_stored, server, number), f"line {number} is stored")
        process.stdin.close()
        assert process.stderr.read().decode() == f"2 {STORED}\n"
        assert process.wait(LIMIT_S) == 0


def _has_stored(server: Server, count: int) -> bool:
    return len(server.names()) == count


def test_ctrl_c_ends_it_at_once(server: Server) -> None:
    """A call without an answer does not hold up the end, which says where to resume."""
    server.silent = True
    with start(server) as process:
        assert process.stdin
        assert process.stderr
        process.stdin.write(lines(1).encode())
        process.stdin.flush()
        eventually(lambda: server.requests, "the call is under way")
        begun_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 130
        assert time.monotonic() - begun_s < 3
        assert b"interrupted; 0 lines are acknowledged: resume at line 1" in process.stderr.read()


def test_no_bar_without_a_terminal(send: Send) -> None:
    """What goes into a file or a log holds nothing but the summary, whatever the environment says of colours."""
    assert send(text=lines(600)).stderr == f"600 {STORED}\n"


def test_a_bar_on_a_terminal(server: Server, tmp_path: Path) -> None:
    """On a terminal a bar shows how far it is, and refusals stand above it."""
    path = tmp_path / "events.ndjson"
    path.write_text(lines(600) + "no\n")
    ours, theirs = pty.openpty()
    with path.open("rb") as source:
        process = start(server, stdin=source.fileno(), stderr=theirs, term="xterm")
    os.close(theirs)
    shown = _read_all(ours)
    assert process.wait(LIMIT_S) == 3
    assert "100%" in shown
    assert "600 accepted" in shown
    assert "line 601: is not valid JSON" in shown


def _read_all(descriptor: int) -> str:
    """Return what is written to a terminal until its other side is closed, which Linux tells as an error."""
    found = b""
    with os.fdopen(descriptor, "rb", buffering=0) as terminal:
        try:
            while chunk := terminal.read(65536):
                found += chunk
        except OSError:
            pass
    return found.decode()


def test_memory_does_not_grow_with_the_input(server: Server) -> None:
    """150 MB pass through a process that stays under 150 MB with everything that it has loaded."""
    process = start(server)
    assert process.stdin
    with process.stdin as pipe:
        line = json.dumps({"event": "", "properties": {"text": "x" * 900_000}}).encode() + b"\n"
        for _ in range(170):
            pipe.write(line)
        pipe.flush()
        # Of this process since its exec. What wait4 tells would include the memory of the one that forked it.
        status = Path(f"/proc/{process.pid}/status").read_text()
    peak_kib = int(re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[0])
    assert process.wait(LIMIT_S) == 1
    assert process.stderr
    with process.stderr as stderr:
        assert b"170 refused" in stderr.read()
    assert peak_kib * 1024 < 150e6


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "0.0.0.0:0", "unix:{directory}/grpc.sock"])
def test_the_server_is_found_by_its_data_directory(tmp_path: Path, listen: str) -> None:
    """Without --to the command finds the server that has the directory, wherever that listens; records are on disk."""
    with site(tmp_path, destination="stdout", grpc_listen=listen.format(directory=tmp_path)) as here:
        server = here.serve()
        done = here.run("send", "--event", "Größe", "--event-id", "i-1")
        assert done.stderr == "1 accepted, 0 duplicates, 0 refused; on disk (fsynced)\n"
        eventually(lambda: '"event":"Größe"' in server.output(), "the event is delivered")
