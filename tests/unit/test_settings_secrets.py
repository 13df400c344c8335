"""Where secrets and `.env` files come from, and that no error ever shows what is in them."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from wrong_settings import CANARY, problems, secret_file

from walbatch.errors import ConfigurationError
from walbatch.settings import Settings, load

ROOT = Path(__file__).parents[2]
TOKEN = {"WALBATCH_MIXPANEL_TOKEN": "t"}


def test_secret_from_a_file(tmp_path: Path) -> None:
    """A secret may be in a file of its own, whose last line break is not part of it."""
    path = secret_file(tmp_path / "token", f"{CANARY}\n")
    settings = load(environ={"WALBATCH_MIXPANEL_TOKEN_FILE": path}, env_file=None, need_destination=True)
    assert settings.mixpanel_token == SecretStr(CANARY)


def test_secret_from_a_link(tmp_path: Path) -> None:
    """A mounted secret is a link to the file; the file's mode counts."""
    secret_file(tmp_path / "data", mode=0o400)
    (tmp_path / "token").symlink_to("data")
    environ = {"WALBATCH_MIXPANEL_TOKEN_FILE": str(tmp_path / "token")}
    assert load(environ=environ, env_file=None).mixpanel_token == SecretStr(CANARY)


def test_secret_given_twice(tmp_path: Path) -> None:
    """A secret and its file in one source are a mistake; across sources the stronger one wins."""
    path = secret_file(tmp_path / "token")
    both = {"WALBATCH_MIXPANEL_TOKEN": "t", "WALBATCH_MIXPANEL_TOKEN_FILE": path}
    assert problems(both) == [
        "WALBATCH_MIXPANEL_TOKEN_FILE: WALBATCH_MIXPANEL_TOKEN is set as well; remove one of the two"
    ]
    env_file = tmp_path / ".env"
    env_file.write_text(f"WALBATCH_MIXPANEL_TOKEN_FILE={path}\n")
    assert load(environ=TOKEN, env_file=env_file).mixpanel_token == SecretStr("t")


def test_secret_file_beside_the_file_of_destinations(tmp_path: Path) -> None:
    """It is told by the key that was typed; a file of destinations is itself no secret, and may be read by others."""
    path = secret_file(tmp_path / "token")
    destinations = secret_file(tmp_path / "destinations.toml", "", 0o644)
    given = {"WALBATCH_DESTINATIONS_FILE": destinations}
    assert load(environ=given, env_file=None).destinations_file == Path(destinations)
    (line,) = problems(given | {"WALBATCH_MIXPANEL_TOKEN_FILE": path})
    assert line.startswith(
        "WALBATCH_DESTINATIONS_FILE: lists the destinations, so WALBATCH_MIXPANEL_TOKEN_FILE would have no effect"
    )


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o644, 0o444, 0o777])
def test_secret_that_others_may_read(tmp_path: Path, mode: int) -> None:
    """A file that others may read or write is refused, with its mode and the right one."""
    (line,) = problems({"WALBATCH_MIXPANEL_TOKEN_FILE": secret_file(tmp_path / "token", mode=mode)})
    assert line.startswith(f"WALBATCH_MIXPANEL_TOKEN_FILE: others may read the file (mode {mode:04o})")
    assert "0400" in line


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "the file must hold the secret and nothing else"),
        ("\n", "the file must hold the secret and nothing else"),
        (CANARY * 1000, "the file must hold the secret and nothing else"),
        (f"token: {CANARY}\n", "must be the credential alone"),
        (f"{CANARY}é", "must be the credential alone"),
    ],
)
def test_file_with_something_else(tmp_path: Path, content: str, problem: str) -> None:
    """An empty file, or one with more than the secret, is refused without showing it."""
    (line,) = problems({"WALBATCH_MIXPANEL_TOKEN_FILE": secret_file(tmp_path / "token", content)})
    assert line.startswith(f"WALBATCH_MIXPANEL_TOKEN_FILE: {problem}")


def test_no_file(tmp_path: Path) -> None:
    """A secret under the name of its file, a missing file, a directory and a pipe are refused without a trace of it."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    for value in (CANARY, str(tmp_path / CANARY), f"{CANARY}\0", "x" * 5000):
        (line,) = problems({"WALBATCH_MIXPANEL_TOKEN_FILE": value})
        assert line.startswith("WALBATCH_MIXPANEL_TOKEN_FILE: cannot be opened; the value must be the path of a file")
    for value in (str(tmp_path), str(tmp_path / "pipe")):
        (line,) = problems({"WALBATCH_MIXPANEL_TOKEN_FILE": value})
        assert line.startswith("WALBATCH_MIXPANEL_TOKEN_FILE: is not a regular file")


def test_file_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may not read the secret can look into the log, and is told only where the secret is needed."""

    def refuse(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    environ = {
        "WALBATCH_MIXPANEL_SERVICE_ACCOUNT": "a",
        "WALBATCH_MIXPANEL_SERVICE_SECRET_FILE": "/run/secrets/mixpanel",
        "WALBATCH_MIXPANEL_PROJECT_ID": "1",
    }
    assert load(environ=environ, env_file=None).mixpanel_service_secret is None
    (line,) = problems(environ, need_destination=True)
    assert line.startswith("WALBATCH_MIXPANEL_SERVICE_SECRET_FILE: this user may not read the file")


def test_env_file_syntax(tmp_path: Path) -> None:
    """Comments, quotes and `export` work, and a dollar sign is a dollar sign."""
    env_file = tmp_path / ".env"
    env_file.write_text(
        "\ufeff# a comment\n\nexport WALBATCH_BATCH_SIZE=7 # seven\n"
        "WALBATCH_MIXPANEL_TOKEN='a${HOME}b'\nWALBATCH_LOG_FORMAT=\"json\"\n"
    )
    settings = load(environ={}, env_file=env_file)
    assert (settings.batch_size, settings.log_format) == (7, "json")
    assert settings.mixpanel_token == SecretStr("a${HOME}b")


def test_broken_env_file(tmp_path: Path) -> None:
    """A line that says nothing is told by its number, not by what stands in it."""
    env_file = tmp_path / ".env"
    env_file.write_text(f"\n# comment\n\n{CANARY} and more\n\nWALBATCH_MIXPANEL_TOKEN\nWALBATCH_DATA_DIR='{CANARY}\n")
    with pytest.raises(ConfigurationError) as raised:
        load(environ={}, env_file=env_file)
    lines = str(raised.value).splitlines()
    assert [line.split(" is not KEY=value")[0] for line in lines] == [f"{env_file}: line {n}" for n in (4, 6, 7)]
    assert CANARY not in str(raised.value)


@pytest.mark.parametrize("content", [None, b"WALBATCH_MIXPANEL_TOKEN=\xff\xfe"])
def test_unreadable_env_file(tmp_path: Path, content: bytes | None) -> None:
    """A `.env` that is there and cannot be read is an error; settings are not dropped in silence."""
    env_file = tmp_path / ".env"
    if content is None:
        env_file.mkdir()
    else:
        env_file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="cannot be read; make it a text file in UTF-8"):
        load(environ={}, env_file=env_file)


WRONG: list[dict[str, str]] = [
    {},
    {"WALBATCH_BATCH_SIZE": "x"},
    {"WALBATCH_BATCH_SIZ": "1"},
    {"WALBATCH_BATCH_SIZE": "200", "WALBATCH_BATCH_MAX": "100"},
    {"WALBATCH_DESTINATION": "nowhere"},
    {"WALBATCH_MIXPANEL_SERVICE_ACCOUNT": CANARY},
    {"WALBATCH_MIXPANEL_PROJECT_ID": CANARY},
    {"WALBATCH_MIXPANEL_PROJECT_ID": f"-{CANARY}"},
    {"WALBATCH_MIXPANEL_REGION": CANARY},
    {"WALBATCH_MIXPANEL_TIMEOUT": CANARY},
    {"WALBATCH_MIXPANEL_TOKEN": f"{CANARY} {CANARY}"},
    {"WALBATCH_MIXPANEL_TOKEN": f"{CANARY}\n"},
    {"WALBATCH_MIXPANEL_TOKEN": f"{CANARY}\ud800"},
    {"WALBATCH_MIXPANEL_TOKEN_FILE": CANARY},
    {"WALBATCH_MIXPANEL_SERVICE_SECRET_FILE": f"/{CANARY}"},
    {"WALBATCH_MIXPANEL_TOKN": CANARY},
    {"WALBATCH_MIXPANEL_URL": f"https://user:{CANARY}@host"},
    {"WALBATCH_MIXPANEL_URL": f"https://{CANARY}@host:port"},
    {"WALBATCH_MIXPANEL_URL": f"https://host/?token={CANARY}"},
    {"WALBATCH_MIXPANEL_URL": f"https://[{CANARY}]"},
    {"WALBATCH_MIXPANEL_URL": CANARY},
]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("source", ["environ", ".env", "overrides"])
def test_no_error_shows_a_secret(tmp_path: Path, wrong: dict[str, str], source: str) -> None:
    """Whatever is wrong, neither the error nor anything that hangs on it shows a secret."""
    given = {"WALBATCH_MIXPANEL_SERVICE_SECRET": CANARY, "WALBATCH_RETENTION": "soon"} | wrong
    environ: dict[str, str] = {}
    overrides: dict[str, object] = {}
    env_file = tmp_path / ".env"
    if source == "environ":
        environ = given
    elif source == ".env":
        quoted = {key: value.encode("utf-8", "replace").decode() for key, value in given.items()}
        env_file.write_text("".join(f"{key}='{value}'\n" for key, value in quoted.items()))
    else:
        overrides = {key.removeprefix("WALBATCH_").lower(): value for key, value in given.items()}
    with pytest.raises(ConfigurationError) as raised:
        load(overrides, environ=environ, env_file=env_file, need_destination=True)
    error = raised.value
    assert error.__cause__ is None
    assert error.__context__ is None
    assert CANARY not in "".join(traceback.format_exception(error)) + repr(error)


def test_settings_do_not_show_their_secrets() -> None:
    """Neither the settings nor an error of the class itself shows a secret."""
    settings = load({"mixpanel_token": CANARY}, environ={}, env_file=None)
    assert CANARY not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    with pytest.raises(ValidationError) as raised:
        Settings.model_validate({"mixpanel_token": CANARY, "batch_size": "x", "nonsense": CANARY})
    assert CANARY not in str(raised.value) + repr(raised.value)
