"""Each setting with its value and where that comes from, and never a secret, also in the wrong place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest
from destinations_file import ARCHIVE, written
from wrong_settings import CANARY, secret_file

from walbatch.settings import Examined, Settings, examine
from walbatch.settings_view import Shown, destinations_of, settings


def seen(
    environ: Mapping[str, str], overrides: Mapping[str, object] | None = None, env_file: Path | None = None
) -> dict[str, Shown]:
    """What is shown of these settings, by name without the prefix; nothing of it holds a secret."""
    found = examine(overrides or {}, environ=environ, env_file=env_file)
    shown = {one.name.removeprefix("WALBATCH_"): one for one in settings(found)}
    assert CANARY not in json.dumps([asdict(one) for one in shown.values()]) + json.dumps(destinations_of(found))
    return shown


def test_defaults() -> None:
    """Every setting is there, as one would type it."""
    shown = seen({})
    assert [*shown] == [attribute.upper() for attribute in Settings.model_fields]
    assert {one.source for one in shown.values()} == {"default"}
    assert {one.key for one in shown.values()} == {None}
    assert all(one.usable for one in shown.values())
    values = {name: one.value for name, one in shown.items()}
    assert (values["RETENTION"], values["MAX_BACKLOG_BYTES"], values["GRPC_REFLECTION"]) == ("7d", "20GiB", "true")
    assert (values["MIXPANEL_TOKEN"], values["MIXPANEL_URL"], values["DATA_DIR"]) == (None, None, "./walbatch-data")


def test_where_each_value_comes_from(tmp_path: Path) -> None:
    """The strongest source is named, with the key as it was typed there."""
    env_file = tmp_path / ".env"
    env_file.write_text("WALBATCH_BATCH_SIZE=1\nWALBATCH_BATCH_MAX=2\nWALBATCH_RETRY_MAX=3s\n")
    environ = {"WALBATCH_BATCH_MAX": "20", "WALBATCH_RETRY_MAX": "30s", "WALBATCH_LOG_LEVEL": ""}
    shown = seen(environ, {"retry_max": "300s"}, env_file)
    told = {name: (one.value, one.source, one.key) for name, one in shown.items() if one.source != "default"}
    assert told == {
        "BATCH_SIZE": ("1", str(env_file), f"WALBATCH_BATCH_SIZE in {env_file}"),
        "BATCH_MAX": ("20", "environment", "WALBATCH_BATCH_MAX"),
        "RETRY_MAX": ("5m", "flag", "--retry-max"),
    }


def test_secrets_are_masked(tmp_path: Path) -> None:
    """Whether it stands in a variable or in a file; neither the file's name nor its text is shown."""
    path = secret_file(tmp_path / f"{CANARY}-file", CANARY)
    account = {
        "WALBATCH_MIXPANEL_SERVICE_ACCOUNT": "bot.0a1b2c.mp-service-account",
        "WALBATCH_MIXPANEL_SERVICE_SECRET": CANARY,
        "WALBATCH_MIXPANEL_PROJECT_ID": "7",
    }
    shown = seen({"WALBATCH_MIXPANEL_TOKEN_FILE": path} | account)
    token, secret = shown["MIXPANEL_TOKEN"], shown["MIXPANEL_SERVICE_SECRET"]
    assert (token.value, token.in_file, token.key) == ("********", True, "WALBATCH_MIXPANEL_TOKEN_FILE")
    assert (secret.value, secret.in_file, secret.source) == ("********", False, "environment")
    assert shown["MIXPANEL_SERVICE_ACCOUNT"].value == "bot.0a1b2c.mp-service-account"
    assert shown["MIXPANEL_PROJECT_ID"].value == "7"


@pytest.mark.parametrize("attribute", [name for name in Settings.model_fields if name.startswith("mixpanel_")])
def test_a_secret_in_the_wrong_key(attribute: str) -> None:
    """Refused or not, it is not shown."""
    shown = seen({f"WALBATCH_{attribute.upper()}": CANARY})[attribute.upper()]
    assert shown.value in (None, "********")
    assert shown.source == "environment"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://api-eu.mixpanel.com", "https://api-eu.mixpanel.com"),
        ("http://127.0.0.1:8089/", "http://127.0.0.1:8089"),
        (f"https://proxy.test/{CANARY}", "https://proxy.test/..."),
    ],
)
def test_an_address_is_shown_without_its_path(url: str, shown: str) -> None:
    """A proxy's path may be as good as a password."""
    assert seen({"WALBATCH_MIXPANEL_URL": url})["MIXPANEL_URL"].value == shown


def test_what_cannot_be_used(tmp_path: Path) -> None:
    """It is there without a value, and the problem tells the rest; everything else is shown."""
    secret = secret_file(tmp_path / "token", mode=0o644)
    environ = {"WALBATCH_BATCH_SIZE": "many", "WALBATCH_MIXPANEL_TOKEN_FILE": secret}
    found: Examined = examine(environ=environ, env_file=None)
    shown = seen(environ)
    assert [name for name, one in shown.items() if not one.usable] == ["MIXPANEL_TOKEN", "BATCH_SIZE"]
    assert shown["BATCH_SIZE"].value is None
    assert shown["BATCH_MAX"].value == "2000"
    assert [problem.split(":")[0] for problem in found.problems] == [
        "WALBATCH_MIXPANEL_TOKEN_FILE",
        "WALBATCH_BATCH_SIZE",
    ]


def test_the_file_of_destinations(tmp_path: Path) -> None:
    """The keys of each, without those that are not set; secrets are masked there as well."""
    text = f"""
[destinations.shop]
type = "mixpanel"
token = "{CANARY}"
service_account = "{CANARY}"
service_secret = "{CANARY}"
project_id = 7
url = "https://proxy.test/{CANARY}"
only = ["Order *", "Signup"]

{ARCHIVE.replace("destinations.a", "destinations.files")}
"""
    environ = {"WALBATCH_DESTINATIONS_FILE": str(written(tmp_path, text))}
    seen(environ)
    shown, problems = destinations_of(examine(environ=environ, env_file=None))
    assert problems == []
    assert shown["shop"] == {
        "type": "mixpanel",
        "only": "Order *, Signup",
        "kinds": "events, profiles, groups",
        "token": "********",
        "service_account": "********",
        "service_secret": "********",
        "project_id": "7",
        "region": "us",
        "url": "https://proxy.test/...",
        "timeout": "30s",
        "unknown_outcomes": "retry",
    }
    assert shown["files"]["directory"] == str(tmp_path / "archive")
    assert shown["files"]["rotate_size"] == "256MiB"


def test_a_file_of_destinations_that_is_wrong(tmp_path: Path) -> None:
    """Its problems are told, and nothing of it is shown."""
    path = written(tmp_path, '[destinations.a]\ntype = "mixpanel"\n')
    found = examine(environ={"WALBATCH_DESTINATIONS_FILE": str(path)}, env_file=None)
    shown, problems = destinations_of(found)
    assert shown == {}
    assert problems == [
        f"{path}: [destinations.a] token: is missing; set token_file to a file with the project's token"
    ]
