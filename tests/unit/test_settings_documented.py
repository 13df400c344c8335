"""Settings are described where people look for them: in .env.example, docs/configuration.md and their fields."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr
from wrong_settings import CANARY

from walbatch.destinations import MODELS
from walbatch.setting_texts import configuration_page, env_example, option_help
from walbatch.settings import WITHOUT_FLAG, Settings, load

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


def test_the_page_of_settings_is_current() -> None:
    """docs/configuration.md is what settings and destinations generate; `make docs` writes it."""
    assert (ROOT / "docs" / "configuration.md").read_text() == configuration_page()


def test_the_page_of_settings_has_everything() -> None:
    """A row for each setting and each file of a secret, and its flag if it has one."""
    rows = re.findall(r"(?m)^\| `(WALBATCH_\w+)` \| (?:`--([a-z-]+)`)? ?\|", configuration_page())
    names = [name for name, _ in rows if not name.endswith("_TOKEN_FILE") and not name.endswith("_SECRET_FILE")]
    assert names == [f"WALBATCH_{attribute.upper()}" for attribute in Settings.model_fields]
    flags = [flag.replace("-", "_") for _, flag in rows if flag]
    assert flags == [attribute for attribute in Settings.model_fields if attribute not in WITHOUT_FLAG]
    assert len(rows) == len(Settings.model_fields) + 2


@pytest.mark.parametrize(
    ("attribute", "takes", "ends"),
    [
        ("batch_size", "NUMBER", "makes a batch due. (1 to 2000; default 50)"),
        ("retry_base", "DURATION", "after the first failure. (10ms to 1h; default 1s)"),
        ("max_wal_bytes", "SIZE", "cannot be trimmed. (at least 32MiB; default 1GiB)"),
        ("mixpanel_region", "us|eu|in", "when it was created. (default us)"),
        ("mixpanel_url", "URL", "http on this machine."),
        ("grpc_listen", "ADDRESS", "any free one. (default 127.0.0.1:50051)"),
        ("admin_listen", "HOST:PORT", "HOST:PORT. (default 127.0.0.1:9095)"),
        ("data_dir", "PATH", "at a time. (default ./walbatch-data)"),
        ("mixpanel_token", "SECRET", "in any case."),
        ("grpc_reflection", "TRUE OR FALSE", "true or false. (default true)"),
        ("mixpanel_project_id", "NUMBER", "service account. (at least 1)"),
    ],
)
def test_what_an_option_says_of_its_setting(attribute: str, takes: str, ends: str) -> None:
    """What it takes, what it means, its limits, and its default."""
    assert option_help(attribute)[0] == takes
    assert option_help(attribute)[1].endswith(ends)


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name, model in MODELS.items() for key in model.model_fields if key != "type"]
)
def test_every_key_of_a_destination_is_described(name: str, key: str) -> None:
    """Every key of the file of destinations says in words what it is, and the page has it."""
    description = MODELS[name].model_fields[key].description
    assert description
    assert description.endswith(".")
    assert re.search(rf"(?m)^\| `{key}` \| .* \| {re.escape(description)} \|$", configuration_page())


@pytest.mark.parametrize("attribute", Settings.model_fields)
def test_every_setting_is_described(attribute: str) -> None:
    """Every setting says in words what it is."""
    description = Settings.model_fields[attribute].description
    assert description
    assert description.endswith(".")
