"""How a record looks in a tap: as text for people, as JSON, as logfmt."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from .dead_view import printable

if TYPE_CHECKING:
    from walbatch.tap import Shown

_PLAIN = re.compile(r"[!#-<>-~]+")
"""What logfmt needs no quotes for."""

_NO_KEY = re.compile(r"[^!#-<>-~]+")


def as_json(shown: Shown) -> str:
    """Return a record as a line of JSON."""
    return _json(shown._asdict())


def as_logfmt(shown: Shown) -> str:
    """Return a record as key=value pairs; what there is not is left out."""
    facts = {name: value for name, value in shown._asdict().items() if name != "properties"}
    pairs = [(name, value) for name, value in facts.items() if value is not None and value != ""]
    pairs += [(f"properties.{_NO_KEY.sub('_', name)}", value) for name, value in shown.properties.items()]
    return " ".join(f"{name}={_logfmt(value)}" for name, value in pairs)


def as_text(shown: Shown) -> str:
    """Return a record as a line for people."""
    who = f" of {shown.distinct_id}" if shown.distinct_id else ""
    again = f", repeats {shown.replay_of}" if shown.replay_of is not None else ""
    properties = ", ".join(f"{name}: {_plain(value)}" for name, value in shown.properties.items())
    return printable(f"{shown.received_at}  {shown.seq}  {shown.kind} {shown.name}{who}{again}  {properties}".rstrip())


def _logfmt(value: Any) -> str:
    text = value if isinstance(value, str) else _json(value)
    return text if _PLAIN.fullmatch(text) else _json(text)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _json(value: Any) -> str:
    """Return JSON in ASCII, so that no terminal is commanded: json leaves this one control character alone."""
    return json.dumps(value).replace("\x7f", "\\u007f")
