"""Logs: one format for everybody's, nothing secret in them, and no line that is not one."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO
from typing import Any, Literal

import pytest
import structlog
from pydantic import SecretStr

from walbatch.logs import configure, get_logger

CANARY = "canary-7f3a"
HOSTILE = "a\nb\r\x1b[31m\x00\x7f\x9b\u2028\u202e\ud800"


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Undo what a test configures, and what a server of an earlier test in this process has left."""
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger(name).propagate = True
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: StringIO) -> list[dict[str, Any]]:
    """Read what was written as JSON, one object a line."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail(text: str, token: str = CANARY) -> None:
    """Raise, with a secret among the local variables."""
    raise RuntimeError(text + "." * len(token))


def test_json_line() -> None:
    """A record is one JSON object with time, level and event first, then the fields."""
    stream = StringIO()
    configure("json", "info", stream)
    get_logger("walbatch.flusher").info("flusher.batch_delivered", events=50, duration_s=0.12)
    (line,) = lines(stream)
    assert list(line) == ["ts", "level", "event", "events", "duration_s"]
    assert (line["level"], line["event"], line["events"]) == ("info", "flusher.batch_delivered", 50)


def test_time_is_utc_in_milliseconds() -> None:
    """The time is ISO 8601 in UTC with exactly three decimals."""
    stream = StringIO()
    configure("json", "info", stream)
    get_logger("walbatch").info("service.ready")
    ts = lines(stream)[0]["ts"]
    assert len(ts) == len("2026-11-23T08:26:10.858Z")
    assert (ts[10], ts[-5], ts[-1]) == ("T", ".", "Z")


@pytest.mark.parametrize(
    "name", ["grpc._cython.cygrpc", "uvicorn.error", "uvicorn.access", "asyncio", "httpx", "py.warnings"]
)
def test_other_libraries_get_the_same_format(name: str) -> None:
    """A library's record has its logger as the event and its formatted text as a field."""
    stream = StringIO()
    configure("json", "info", stream)
    logging.getLogger(name).warning("listening on %s", "port 1")
    (line,) = lines(stream)
    del line["ts"]
    assert line == {"level": "warning", "event": name, "message": "listening on port 1"}


@pytest.mark.parametrize("name", ["httpx", "httpcore.http11", "aiosqlite", "hpack.hpack"])
@pytest.mark.parametrize("level", ["debug", "info"])
def test_talkative_libraries_are_held_back(name: str, level: str) -> None:
    """URLs, headers and statements with their parameters stay out of the log at every level."""
    stream = StringIO()
    configure("json", level, stream)
    logging.getLogger(name).info("executing %s", CANARY)
    logging.getLogger(name).debug("executing %s", CANARY)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level(level: str, written: list[str]) -> None:
    """What is less serious than the level is not written, whoever logs it."""
    stream = StringIO()
    configure("json", level, stream)
    log = get_logger("walbatch")
    for method in (log.debug, log.info, log.warning, log.error):
        method("some.event")
    other = logging.getLogger("httpx")
    other.warning("a warning")
    expected = written + (["warning"] if "warning" in written else [])
    assert [line["level"] for line in lines(stream)] == expected


def test_exception_is_one_field() -> None:
    """An exception's whole traceback is one field of one line, without local variables."""
    stream = StringIO()
    configure("json", "info", stream)
    try:
        fail("broken")
    except RuntimeError:
        get_logger("walbatch").exception("service.failed")
        logging.getLogger("asyncio").exception("a task died")
    ours, other = lines(stream)
    assert ours["event"] == "service.failed"
    assert other["message"] == "a task died"
    for line in (ours, other):
        assert line["exception"].startswith("Traceback (most recent call last):\n")
        assert "RuntimeError: broken" in line["exception"]
        assert CANARY not in str(line)


def test_text_line() -> None:
    """Text has time, level, event and fields on one line, and no colour where there is no terminal."""
    stream = StringIO()
    configure("text", "info", stream)
    get_logger("walbatch").info("flusher.batch_delivered", state="ok", events=50)
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("flusher.batch_delivered state='ok' events=50")
    assert "[info" in line
    assert "\x1b" not in line


@pytest.mark.parametrize(("stream", "is_text"), [(Terminal(), True), (StringIO(), False)])
def test_auto_format(stream: StringIO, *, is_text: bool) -> None:
    """Auto means text for a person at a terminal and JSON for a program."""
    configure("auto", "info", stream)
    get_logger("walbatch").info("service.ready")
    assert stream.getvalue().startswith("{") is not is_text


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_terminal_without_colour(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """A terminal gets colours unless its user said no."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    coloured, plain = Terminal(), Terminal()
    configure("text", "info", coloured)
    get_logger("walbatch").info("service.ready")
    monkeypatch.setenv(variable, value)
    configure("text", "info", plain)
    get_logger("walbatch").info("service.ready")
    assert "\x1b[" in coloured.getvalue()
    assert "\x1b[" not in plain.getvalue()


@pytest.mark.parametrize("format_", ["json", "text"])
def test_no_line_can_be_forged(format_: Literal["json", "text"]) -> None:
    """Control characters in an event, a field, a nested value or a library's text are escaped."""
    stream = StringIO()
    logging.getLogger().handlers.clear()  # pytest's would put the text into a report, which parallel runs cannot send
    configure(format_, "info", stream)
    get_logger("walbatch").info(HOSTILE, field=HOSTILE, nested={"key": [HOSTILE]})
    logging.getLogger("uvicorn.error").info("%s", HOSTILE)
    text = stream.getvalue()
    assert text.count("\n") == 2
    assert text.replace("\n", "").isprintable()


def test_exception_cannot_forge_a_line() -> None:
    """In text an exception's own line breaks stay, indented; everything else in it is escaped."""
    stream = StringIO()
    logging.getLogger().handlers.clear()  # as above
    configure("text", "info", stream)
    try:
        fail(HOSTILE + "\n2026-11-23T00:00:00.000Z [info] service.ready")
    except RuntimeError:
        get_logger("walbatch").exception("service.failed")
    first, *rest = stream.getvalue().splitlines()
    assert "service.failed" in first
    assert rest
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


@pytest.mark.parametrize("format_", ["json", "text"])
@pytest.mark.parametrize(
    "key", ["token", "secret", "password", "authorization", "Authorization", "mixpanel_token", "X-Secret", "token_file"]
)
def test_secrets_are_masked(key: str, format_: Literal["json", "text"]) -> None:
    """What is named like a secret is masked, at the top and at any depth, from us and from anybody."""
    stream = StringIO()
    configure(format_, "info", stream)
    deep = {"headers": [{key: CANARY}], "pair": ({key: {"a": CANARY}},)}
    get_logger("walbatch").info("sink.request", **{key: CANARY}, deep=deep, typed=SecretStr(CANARY))
    assert CANARY not in stream.getvalue()
    assert "********" in stream.getvalue()


def test_only_whole_words_are_masked() -> None:
    """A count of tokens is no token."""
    stream = StringIO()
    configure("json", "info", stream)
    get_logger("walbatch").info("limits.refilled", tokens=3, secretary="x")
    line = lines(stream)[0]
    assert (line["tokens"], line["secretary"]) == (3, "x")


def test_configured_twice_logs_once() -> None:
    """A second configuration replaces the first, also for loggers made and used before it."""
    first, second = StringIO(), StringIO()
    log = get_logger("walbatch")
    configure("json", "info", first)
    log.info("one.event")
    configure("json", "debug", second)
    log.debug("another.event")
    assert [line["event"] for line in lines(first)] == ["one.event"]
    assert [line["event"] for line in lines(second)] == ["another.event"]


def test_standard_output_stays_free(capsys: pytest.CaptureFixture[str]) -> None:
    """Logs go to standard error, and before they are configured nothing goes to standard output either."""
    get_logger("walbatch").warning("too.early")
    configure("json", "info")
    get_logger("walbatch").info("service.ready")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err.splitlines()[-1])["event"] == "service.ready"


def test_unknown_level_is_refused() -> None:
    """A level that does not exist is an error and not silence."""
    with pytest.raises(KeyError):
        configure("json", "loud", StringIO())


def test_a_client_that_cancels_while_it_is_answered_is_no_error() -> None:
    """What grpc writes about it would fill the log at a client's will; its other messages are kept."""
    stream = StringIO()
    configure("json", "info", stream)
    logger = logging.getLogger("grpc._cython.cygrpc")
    logger.error("ExecuteBatchError raised in core by servicer method [/a/B]")
    logger.error("Unexpected [ValueError] raised by servicer method [/a/B]")
    assert "ExecuteBatchError" not in stream.getvalue()
    assert "ValueError" in stream.getvalue()
