"""Logs: one format for ours and for those of grpc, httpx, uvicorn and asyncio, which all come through `logging`.

A line is an event, a dotted name that never changes, and fields: `log.info("flusher.batch_delivered", events=50)`.
Nobody puts a record's properties or ids into one. What could forge a line or steer a terminal is escaped.

uvicorn replaces this unless it is started with `log_config=None`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import structlog

# httpx and httpcore write every URL and header below WARNING, aiosqlite every statement with its parameters, which
# are the events themselves, hpack every header field.
_TALKATIVE = ("aiosqlite", "hpack", "httpcore", "httpx")
_HANDLER = "walbatch"
_MASK = "********"
_SECRET = re.compile(r"(?:^|[^a-z0-9])(?:token|secret|authorization|password)(?:$|[^a-z0-9])")

_Fields = MutableMapping[str, Any]


def configure(
    format: Literal["auto", "text", "json"],  # noqa: A002 (the setting's name)
    level: str,
    stream: TextIO | None = None,
) -> None:
    """Send every log of the process to `stream` (standard error), as text or as one JSON object a line.

    `auto` is text on a terminal and JSON elsewhere. A second call replaces the first.
    """
    stream = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    text = stream.isatty() if format == "auto" else format == "text"
    _route_to_stdlib()
    handler = logging.StreamHandler(stream)
    handler.set_name(_HANDLER)
    handler.setFormatter(_formatter(_text(stream) if text else _json()))
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == _HANDLER]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_farewell)


def _is_no_farewell(record: logging.LogRecord) -> bool:
    """Leave out what grpc writes, with a traceback, whenever a client cancels while it is being answered."""
    return not record.getMessage().startswith("ExecuteBatchError raised in core")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module. Before `configure` only warnings are written, by `logging`'s own last resort."""
    if not structlog.is_configured():
        _route_to_stdlib()
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def _route_to_stdlib() -> None:
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            _add_time,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def _formatter(renderers: Sequence[structlog.typing.Processor]) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_log_level, _add_time, _name_foreign],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _mask_secrets,
            *renderers,
        ],
    )


def _json() -> list[structlog.typing.Processor]:
    return [_order, structlog.processors.JSONRenderer(serializer=_dumps)]


def _dumps(value: object, **options: Any) -> str:
    # json escapes all control characters and all that is not ASCII, except this one.
    return json.dumps(value, **options).replace("\x7f", "\\u007f")


def _text(stream: TextIO) -> list[structlog.typing.Processor]:
    colors = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors,
        # The pretty ones show local variables, and those hold tokens.
        exception_formatter=structlog.dev.plain_traceback,
        # repr escapes what is in a field; only the event and the exception are written as they are.
        repr_native_str=True,
        sort_keys=False,
        timestamp_key="ts",
        pad_event_to=0,
    )
    return [_escape, renderer]


def _add_time(_logger: object, _method: str, fields: _Fields) -> _Fields:
    fields["ts"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return fields


def _name_foreign(_logger: object, _method: str, fields: _Fields) -> _Fields:
    """Give a record of another library the shape of ours: its logger is the event, its text a field."""
    fields["message"] = fields["event"]
    fields["event"] = fields["_record"].name
    return fields


def _mask_secrets(_logger: object, _method: str, fields: _Fields) -> _Fields:
    """Mask what is named like a secret, at any depth: a second line of defence, since nobody should pass one."""
    return {key: _masked(key, value) for key, value in fields.items()}


def _masked(key: object, value: object) -> object:
    if _SECRET.search(str(key).lower().replace("_", "-")):
        return _MASK
    if isinstance(value, Mapping):
        return {inner: _masked(inner, content) for inner, content in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_masked("", content) for content in value]
    return value


def _escape(_logger: object, _method: str, fields: _Fields) -> _Fields:
    """Escape the event, and the exception line by line, each indented so that it cannot pass for a new record."""
    fields["event"] = _escaped(str(fields["event"]))
    if "exception" in fields:
        fields["exception"] = "\n".join(f"    {_escaped(line)}" for line in str(fields["exception"]).split("\n"))
    return fields


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _order(_logger: object, _method: str, fields: _Fields) -> _Fields:
    first = {key: fields[key] for key in ("ts", "level", "event")}
    return first | dict(fields)
