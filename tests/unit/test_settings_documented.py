"""Settings are described where people look for them: in .env.example and in their fields."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr
from wrong_settings import CANARY

from walbatch.settings import Settings, env_example, load

ROOT = Path(__file__).parents[2]


def test_env_example_is_current() -> None:
    """`.env.example` is what the settings generate."""
    assert (ROOT / ".env.example").read_text() == env_example()


def test_env_example_loads(tmp_path: Path) -> None:
    """With every line taken in and a token filled in, `.env.example` means the defaults."""
    text, lines = re.subn(r"(?m)^#(?=WALBATCH_)", "", env_example())
    env_file = tmp_path / ".env"
    env_file.write_text(text.replace("WALBATCH_MIXPANEL_TOKEN=\n", f"WALBATCH_MIXPANEL_TOKEN={CANARY}\n"))
    settings = load(environ={}, env_file=env_file, need_destination=True)
    assert settings == Settings(mixpanel_token=SecretStr(CANARY))
    assert lines == len(Settings.model_fields) + 2


def test_env_example_changes_nothing_as_it_is(tmp_path: Path) -> None:
    """Copied without a change it sets nothing, and its lines fit a screen."""
    env_file = tmp_path / ".env"
    env_file.write_text(env_example())
    assert load(environ={}, env_file=env_file) == Settings()
    assert max(len(line) for line in env_example().splitlines()) <= 120


@pytest.mark.parametrize("attribute", Settings.model_fields)
def test_every_setting_is_described(attribute: str) -> None:
    """Every setting says in words what it is."""
    description = Settings.model_fields[attribute].description
    assert description
    assert description.endswith(".")
