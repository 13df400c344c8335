"""Files of destinations: written, read, and what is told of a wrong one."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from wrong_settings import CANARY

from walbatch.destinations import Destination, read
from walbatch.errors import ConfigurationError

MIXPANEL = f'[destinations.a]\ntype = "mixpanel"\ntoken = "{CANARY}"\n'
ARCHIVE = '[destinations.a]\ntype = "ndjson"\ndirectory = "archive"\n'
STDOUT = '[destinations.a]\ntype = "stdout"\n'


def written(directory: Path, text: str | bytes, mode: int = 0o600) -> Path:
    """Write a file of destinations, and return its path."""
    path = directory / "destinations.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def problems(directory: Path, text: str | bytes, mode: int = 0o600) -> list[str]:
    """Return the lines of the error that a file raises, without its path; no secret hangs on the error."""
    path = written(directory, text, mode)
    with pytest.raises(ConfigurationError) as raised:
        read(path)
    error = raised.value
    assert error.__cause__ is None
    assert error.__context__ is None
    assert CANARY not in "".join(traceback.format_exception(error)) + repr(error)
    lines = str(error).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ").removeprefix("[destinations.a] ") for line in lines]


def one(directory: Path, text: str) -> Destination:
    """Return the only destination of a file."""
    ((name, destination),) = read(written(directory, text)).items()
    assert name == "a"
    return destination
