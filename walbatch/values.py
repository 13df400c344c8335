"""The kinds of values that settings have, how each is written, and what is wrong with one in a user's words."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr, Strict
from pydantic_core import ErrorDetails

from walbatch.units import format_bytes, format_duration, parse_bytes, parse_duration_s

HOUR, DAY = 3600.0, 86_400.0
MIB, GIB = 2**20, 2**30

_HOST_PORT = re.compile(r"(?P<host>[A-Za-z0-9][A-Za-z0-9._-]*|\[[^\[\]]+\]):(?P<port>[0-9]{1,5})")
_VISIBLE = re.compile(r"[!-~]+")
_MAX_PORT = 65_535


def _duration(value: object) -> object:
    return parse_duration_s(value) if isinstance(value, str) else value


def _size(value: object) -> object:
    return parse_bytes(value) if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def host_port(text: str) -> str:
    """Check HOST:PORT. Raises: ValueError, which says what is wrong."""
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise ValueError("is not HOST:PORT; write 127.0.0.1:50051, 0.0.0.0:50051 or [::1]:50051")
    if match["host"].startswith("[") and not _is_address(match["host"][1:-1]):
        raise ValueError("has no IPv6 address between its brackets; write [::1]:50051")
    if int(match["port"]) > _MAX_PORT:
        raise ValueError(f"has a port above {_MAX_PORT}")
    return text


def listen_address(text: str) -> str:
    """Check HOST:PORT or unix:/path, and return it in one spelling. Raises: ValueError."""
    if not text.startswith("unix:"):
        return host_port(text)
    path = text.removeprefix("unix:").removeprefix("//")
    if not path.startswith("/"):
        raise ValueError("has no absolute path after unix:; write unix:/run/walbatch/grpc.sock")
    return f"unix:{path}"


def _base_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:  # its text repeats the URL, with whatever credential is in it
        host = None
    if not host or not _VISIBLE.fullmatch(text):
        raise ValueError("is not a URL; write https://api.mixpanel.com")
    if "@" in parts.netloc:
        raise ValueError("must hold no user or password; the token has a setting of its own")
    if "?" in text or "#" in text:
        raise ValueError("must end with the path, without ? and #")
    if parts.scheme != "https" and not (
        parts.scheme == "http" and (host == "localhost" or _is_address(host, own=True))
    ):
        raise ValueError("must begin with https://; http:// is only for this machine (localhost, 127.0.0.1, [::1])")
    return text.rstrip("/")


def origin(url: str) -> str:
    """Return where an address leads, without its path: somebody may have put a secret there."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" + ("/..." if parts.path.strip("/") else "")


def _is_address(host: str, *, own: bool = False) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback if own else address.version == 6  # noqa: PLR2004 (IPv6)


def _path(path: Path) -> Path:
    if path == Path() or "\0" in str(path):
        raise ValueError("is no path; name a directory")
    return path


def _credential(secret: SecretStr) -> SecretStr:
    if not _VISIBLE.fullmatch(secret.get_secret_value()):
        raise ValueError("must be the credential alone: it holds a blank, a line break or a letter outside ASCII")
    return secret


# Strict: true is no number, and half a byte no size.
Duration = Annotated[float, Strict(), BeforeValidator(_duration)]
Size = Annotated[int, Strict(), BeforeValidator(_size)]
Secret = Annotated[SecretStr, AfterValidator(_credential)]
Url = Annotated[str, AfterValidator(_base_url)]
Directory = Annotated[Path, AfterValidator(_path)]
HostPort = Annotated[str, AfterValidator(host_port)]
Listen = Annotated[str, AfterValidator(listen_address)]
DestinationType = Annotated[Literal["mixpanel", "stdout"], BeforeValidator(_lower)]
UnknownOutcomes = Annotated[Literal["retry", "hold"], BeforeValidator(_lower)]
Region = Annotated[Literal["us", "eu", "in"], BeforeValidator(_lower)]
LogFormat = Annotated[Literal["auto", "text", "json"], BeforeValidator(_lower)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]


_PLAIN = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "float_type": 'must be a duration, such as "30s"',
    "string_type": "must be a text in quotes",
    "path_type": "must be a text in quotes",
    "tuple_type": 'must be a list of texts, such as ["a", "b"]',
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "extra_forbidden": "is not known here",
    "missing": "is missing",
}


def complaint(detail: ErrorDetails, metadata: list[Any]) -> str:
    """Say what is wrong with a value, by pydantic's own detail and the setting's annotations. Never repeats it."""
    context: Mapping[str, Any] = detail.get("ctx", {})
    match detail["type"]:
        case "value_error":
            return str(context["error"])
        case "greater_than_equal":
            return f"must be at least {show(context['ge'], metadata)}"
        case "less_than_equal":
            return f"must be at most {show(context['le'], metadata)}"
        case "literal_error":
            return f"must be {context['expected']}"
        case kind if kind in _PLAIN:
            return _PLAIN[kind]
        case _:
            return f"is refused: {detail['msg']}"


def show(value: Any, metadata: list[Any]) -> str:
    """Write a value as a user would, by the annotations of its setting."""
    parsers = [getattr(item, "func", None) for item in metadata]
    if _duration in parsers:
        return format_duration(value)
    if _size in parsers:
        return format_bytes(value)
    return str(value).lower()


_WORDS = {
    _duration: "duration",
    _size: "size",
    _base_url: "url",
    _path: "path",
    _credential: "secret",
    host_port: "host:port",
    listen_address: "address",
}
_TYPES = {bool: "true or false", int: "number", Path: "path", SecretStr: "secret", str: "text"}


def kind(annotation: Any, metadata: list[Any]) -> str:
    """Return in a word what a setting takes, by its type and its annotations: `duration`, `us|eu|in`."""
    if get_origin(annotation) is tuple:
        return "list"
    functions = (getattr(item, "func", None) for item in constraints(annotation, metadata))
    words = [_WORDS[one] for one in functions if one in _WORDS]
    choices = "|".join(one for one in get_args(annotation) if isinstance(one, str))
    types = {annotation, *get_args(annotation), *(inner for one in get_args(annotation) for inner in get_args(one))}
    named = [choices] if choices else [word for one, word in _TYPES.items() if one in types]
    return (words or named)[0]


def constraints(annotation: Any, metadata: list[Any]) -> list[Any]:
    """Return the annotations of a setting, with those of the type that it has if it is set."""
    inner = [item for one in get_args(annotation) for item in getattr(one, "__metadata__", ())]
    return [*metadata, *inner, *(item for one in inner for item in getattr(one, "metadata", ()))]
