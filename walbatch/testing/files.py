"""Reading the fake's own files: JSON with clear errors."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from walbatch.errors import ConfigurationError

T = TypeVar("T")


def parsed(path: Path, adapter: TypeAdapter[T]) -> T:
    """Read a JSON file into a type.

    Raises: ConfigurationError naming the file and every wrong place in it, such as `steps[2].delay`. Values are not
    repeated: they may be secrets.
    """
    try:
        return adapter.validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        problems = "; ".join(f"{_place(one['loc'])}{_said(one['msg'])}" for one in error.errors(include_input=False))
        raise ConfigurationError(f"{path}: {problems}") from None


def _place(location: tuple[int | str, ...]) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    return f"{place}: " if place else ""


def _said(message: str) -> str:
    return message.removeprefix("Value error, ")
