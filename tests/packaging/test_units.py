"""deploy/systemd: what the units say of the server is true. systemd itself judges them in tests/deploy."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from deployed import DEPLOY, seconds, settings
from wrong_settings import CANARY, secret_file

from walbatch.errors import ConfigurationError, CorruptLog

pytestmark = pytest.mark.packaging


def directives(name: str) -> dict[str, list[str]]:
    """Return the values of each directive of a unit, in order."""
    found = defaultdict(list)
    for line in (DEPLOY / "systemd" / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            directive, _, value = line.partition("=")
            found[directive].append(value)
    return found


def variables(credentials: Path) -> dict[str, str]:
    """Return what the unit sets, with systemd's directories filled in."""
    lines = [line.replace("%S", "/var/lib").replace("%d", str(credentials)) for line in SERVICE["Environment"]]
    return dict(line.split("=", 1) for line in lines)


SERVICE = directives("walbatch.service")


def test_the_server_takes_its_settings(tmp_path: Path) -> None:
    """The log is in the state directory, and the token is the credential, which the group may read."""
    credential, _, source = SERVICE["LoadCredential"][0].partition(":")
    secret_file(tmp_path / credential, mode=0o440)
    made = settings(variables(tmp_path))
    assert made.mixpanel_token
    assert made.mixpanel_token.get_secret_value() == CANARY
    assert made.data_dir == Path("/var/lib") / SERVICE["StateDirectory"][0]
    assert Path(source).is_absolute()


def test_it_is_killed_only_after_its_grace(tmp_path: Path) -> None:
    """And its own watchdog ends it before systemd has to."""
    secret_file(tmp_path / "mixpanel-token", mode=0o440)
    assert seconds(SERVICE["TimeoutStopSec"][0]) >= settings(variables(tmp_path)).shutdown_grace + 10


def test_what_a_restart_does_not_mend_is_not_tried_again() -> None:
    """The exit codes are those of the code, and everything else is tried for ever."""
    codes = {ConfigurationError.exit_code, CorruptLog.exit_code}
    assert set(SERVICE["RestartPreventExitStatus"][0].split()) == {str(code) for code in codes}
    assert SERVICE["Restart"] == ["on-failure"]
    assert SERVICE["StartLimitIntervalSec"] == ["0"]


def test_it_waits_for_the_server_s_word() -> None:
    """What tests/e2e/test_notify.py shows of the server is what the unit counts on."""
    assert SERVICE["Type"] == ["notify"]
    assert seconds(SERVICE["WatchdogSec"][0]) >= 10


def test_the_backup_is_of_the_same_log_as_the_same_user() -> None:
    """Another user could not read it, and another directory has none."""
    backup = directives("walbatch-backup.service")
    assert backup["User"] == SERVICE["User"]
    assert [line for line in SERVICE["Environment"] if "DATA_DIR" in line] == backup["Environment"][:1]
    assert f"RCLONE_CONFIG=%d/{backup['LoadCredential'][0].partition(':')[0]}" in backup["Environment"]
    assert (DEPLOY / "systemd" / "walbatch-backup.timer").is_file()
    users = (DEPLOY / "systemd" / "walbatch.sysusers").read_text().split()
    assert users[:2] == ["u", SERVICE["User"][0]]
