"""Settings that are wrong on purpose, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from walbatch.errors import ConfigurationError
from walbatch.settings import load

CANARY = "canary-7f3a9c"
"""What no output may ever show."""


def problems(
    environ: Mapping[str, str], overrides: Mapping[str, object] | None = None, *, need_destination: bool = False
) -> list[str]:
    """Return the lines of the error that these settings raise."""
    with pytest.raises(ConfigurationError) as raised:
        load(overrides or {}, environ=environ, env_file=None, need_destination=need_destination)
    return str(raised.value).splitlines()


def secret_file(path: Path, content: str = CANARY, mode: int = 0o600) -> str:
    """Write a file that holds a secret, and return its path."""
    path.write_text(content)
    path.chmod(mode)
    return str(path)
