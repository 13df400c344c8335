"""Credentials in the file of destinations: where secrets may stand, what goes together; no error shows one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from destinations_file import MIXPANEL, one, problems, written
from pydantic import SecretStr
from wrong_settings import CANARY, secret_file

from walbatch.destinations import SECRETS, MixpanelDestination, read


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640])
def test_a_secret_may_stand_in_a_private_file(tmp_path: Path, mode: int) -> None:
    """The owner, and a group that may only read, are the same as for a file with a secret of its own."""
    found = read(written(tmp_path, MIXPANEL, mode))["a"]
    assert isinstance(found, MixpanelDestination)
    assert found.token == SecretStr(CANARY)


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o620, 0o660])
def test_a_secret_in_a_file_that_others_may_read(tmp_path: Path, mode: int) -> None:
    """It is refused, with both ways out; without a secret in it the same file is fine."""
    account = f'service_account = "s"\nservice_secret = "{CANARY}"\nproject_id = 1\n'
    assert problems(tmp_path, MIXPANEL + account, mode) == [
        f"{key}: others may read or change this file; chmod 0600 it, or use {key}_file" for key in SECRETS
    ]
    secret_file(tmp_path / "token")
    assert read(written(tmp_path, MIXPANEL.replace(f'token = "{CANARY}"', 'token_file = "token"'), mode))


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_and_its_file(tmp_path: Path, secret: str) -> None:
    """One of the two is too many."""
    secret_file(tmp_path / "secret")
    text = '[destinations.a]\ntype = "mixpanel"\n' + "".join(
        f'{key} = "{CANARY}"\n{key}_file = "secret"\n' if key == secret else f'{key}_file = "secret"\n'
        for key in SECRETS
    )
    assert problems(tmp_path, text + 'service_account = "s"\nproject_id = 1\n') == [
        f"{secret}: {secret}_file is set as well; remove one of the two"
    ]


@pytest.mark.parametrize(
    ("content", "mode", "line", "problem"),
    [
        (CANARY, 0o644, 'token_file = "token"', "others may read the file (mode 0644)"),
        ("", 0o600, 'token_file = "token"', "the file must hold the secret and nothing else"),
        (f"a {CANARY}", 0o600, 'token_file = "token"', "must be the credential alone"),
        (CANARY, 0o600, f'token_file = "{CANARY}"', "cannot be opened; the value must be the path of a file"),
        (CANARY, 0o600, 'token_file = "a\\u0000b"', "cannot be opened"),
        (CANARY, 0o600, 'token_file = ""', "is not a regular file"),
        (CANARY, 0o600, "token_file = 5", "must be a text in quotes"),
        (CANARY, 0o600, 'token_file = ["token"]', "must be a text in quotes"),
    ],
)
def test_a_file_that_holds_no_secret(tmp_path: Path, content: str, mode: int, line: str, problem: str) -> None:
    """What is wrong with it is told once, under the key that names it, and the file is not named."""
    secret_file(tmp_path / "token", content, mode)
    (told,) = problems(tmp_path, f'[destinations.a]\ntype = "mixpanel"\n{line}\n')
    assert told.startswith(f"token_file: {problem}")


def test_a_file_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told once, with what to do, and a credential that cannot be read is not called missing."""

    def refuse(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    assert problems(tmp_path, '[destinations.a]\ntype = "mixpanel"\ntoken_file = "token"\n') == [
        "token_file: this user may not read the file; make it the file's owner"
    ]


ACCOUNT = {"service_account": '"s"', "service_secret": f'"{CANARY}"', "project_id": "1"}
TOKEN = {"token": f'"{CANARY}"'}


@pytest.mark.parametrize("missing", ACCOUNT)
@pytest.mark.parametrize("token", ["", 'token = "t"\n'])
def test_a_part_of_a_service_account(tmp_path: Path, missing: str, token: str) -> None:
    """The three keys go together, with a token or without."""
    lines = "".join(f"{key} = {value}\n" for key, value in ACCOUNT.items() if key != missing)
    (told,) = problems(tmp_path, f'[destinations.a]\ntype = "mixpanel"\n{token}{lines}')
    assert told.startswith(f"{missing}: is missing; service_account, service_secret, project_id go together")


def test_no_credential(tmp_path: Path) -> None:
    """A project needs its token; only for events alone a whole service account is enough."""
    head = '[destinations.a]\ntype = "mixpanel"\n'
    assert problems(tmp_path, head) == ["token: is missing; set token_file to a file with the project's token"]
    account = head + "".join(f"{key} = {value}\n" for key, value in ACCOUNT.items())
    (told,) = problems(tmp_path, account)
    assert told.startswith("token: is missing; profile and group updates need it beside the account")
    found = one(tmp_path, f'{account}kinds = ["events"]\n')
    assert isinstance(found, MixpanelDestination)
    assert found.project_id == 1


@pytest.mark.parametrize("value", ["5", "true", "1.5", "2026-11-23", f'["{CANARY}"]', f'{{ a = "{CANARY}" }}'])
@pytest.mark.parametrize("key", ["token", "service_secret"])
def test_a_secret_is_a_text(tmp_path: Path, key: str, value: str) -> None:
    """A number, a date, a list and a table are refused without being shown."""
    lines = "".join(f"{name} = {other}\n" for name, other in (ACCOUNT | TOKEN | {key: value}).items())
    assert problems(tmp_path, f'[destinations.a]\ntype = "mixpanel"\n{lines}') == [f"{key}: must be a text in quotes"]


@pytest.mark.parametrize("value", ['"1"', "true", "1.0"])
def test_a_project_id_is_a_number(tmp_path: Path, value: str) -> None:
    """The file has numbers, so a text is none, and neither is a yes."""
    lines = "".join(f"{name} = {other}\n" for name, other in (ACCOUNT | TOKEN | {"project_id": value}).items())
    assert problems(tmp_path, f'[destinations.a]\ntype = "mixpanel"\n{lines}') == ["project_id: must be a whole number"]
