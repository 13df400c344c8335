"""Settings: where they come from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from wrong_settings import CANARY, problems

from walbatch.errors import ConfigurationError
from walbatch.settings import Settings, load

TOKEN = {"WALBATCH_MIXPANEL_TOKEN": "t"}


def test_defaults() -> None:
    """With nothing given, every setting has its documented default."""
    settings = load(environ={}, env_file=None)
    assert settings.model_dump() == {
        "data_dir": Path("./walbatch-data"),
        "max_backlog_bytes": 20 * 2**30,
        "min_free_disk": 256 * 2**20,
        "max_wal_bytes": 2**30,
        "retention": 7 * 86_400.0,
        "allow_affected_sqlite": False,
        "grpc_listen": "127.0.0.1:50051",
        "grpc_reflection": True,
        "admin_listen": "127.0.0.1:9095",
        "destination": "mixpanel",
        "mixpanel_token": None,
        "mixpanel_service_account": None,
        "mixpanel_service_secret": None,
        "mixpanel_project_id": None,
        "mixpanel_region": "us",
        "mixpanel_url": None,
        "mixpanel_timeout": 30.0,
        "unknown_outcomes": "retry",
        "destinations_file": None,
        "batch_size": 50,
        "flush_interval": 10.0,
        "batch_max": 2000,
        "max_in_flight": 10,
        "retry_attempts": 5,
        "retry_base": 1.0,
        "retry_max": 60.0,
        "shutdown_grace": 25.0,
        "log_format": "auto",
        "log_level": "info",
    }


def test_precedence(tmp_path: Path) -> None:
    """A flag wins over the environment, the environment over `.env`, and `.env` over the default."""
    env_file = tmp_path / ".env"
    env_file.write_text("WALBATCH_BATCH_SIZE=1\nWALBATCH_MAX_IN_FLIGHT=2\nWALBATCH_RETRY_ATTEMPTS=3\n")
    environ = {"WALBATCH_BATCH_SIZE": "11", "WALBATCH_MAX_IN_FLIGHT": "12"}
    overrides = {"batch_size": 111, "max_in_flight": None, "retry_attempts": "", "batch_max": None}
    settings = load(overrides, environ=environ, env_file=env_file)
    assert (settings.batch_size, settings.max_in_flight) == (111, 12)
    assert (settings.retry_attempts, settings.batch_max) == (3, 2000)


def test_the_process_is_the_default_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Called without arguments it reads the process environment and `.env` in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("WALBATCH_BATCH_SIZE=7\n")
    monkeypatch.setenv("WALBATCH_MAX_IN_FLIGHT", "3")
    settings = load()
    assert (settings.batch_size, settings.max_in_flight) == (7, 3)


def test_only_load_reads_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings made by hand depend on nothing but their arguments."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("WALBATCH_BATCH_SIZE=7\n")
    monkeypatch.setenv("WALBATCH_MAX_IN_FLIGHT", "3")
    settings = Settings(batch_max=100)
    assert (settings.batch_size, settings.max_in_flight, settings.batch_max) == (50, 10, 100)


@pytest.mark.parametrize("value", ["", "  "])
def test_empty_is_unset(value: str, tmp_path: Path) -> None:
    """An empty value leaves the setting to the next source, and is no second spelling of a secret."""
    env_file = tmp_path / ".env"
    env_file.write_text("WALBATCH_BATCH_SIZE=7\nWALBATCH_BATCH_MAX=\n")
    environ = {"WALBATCH_BATCH_SIZE": value, "WALBATCH_MIXPANEL_TOKEN_FILE": value, **TOKEN}
    settings = load(environ=environ, env_file=env_file)
    assert (settings.batch_size, settings.batch_max) == (7, 2000)
    assert settings.mixpanel_token == SecretStr("t")


def test_settings_are_frozen() -> None:
    """Nobody changes a setting under another's feet."""
    settings = load(environ={}, env_file=None)
    with pytest.raises(ValidationError):
        settings.batch_size = 1


def test_all_kinds_of_values_are_read() -> None:
    """Durations become seconds, sizes bytes, and words may be in any case."""
    settings = load(
        environ={
            "WALBATCH_FLUSH_INTERVAL": "200ms",
            "WALBATCH_RETENTION": "12h",
            "WALBATCH_RETRY_MAX": " 90 ",
            "WALBATCH_MAX_BACKLOG_BYTES": "64MiB",
            "WALBATCH_MIN_FREE_DISK": "0",
            "WALBATCH_GRPC_REFLECTION": "Off",
            "WALBATCH_MIXPANEL_REGION": "EU",
            "WALBATCH_LOG_LEVEL": "WARNING",
            "WALBATCH_DATA_DIR": "/var/lib/walbatch",
        },
        overrides={"retry_base": 0.5, "shutdown_grace": "1m"},
        env_file=None,
    )
    assert (settings.flush_interval, settings.retention, settings.retry_max) == (0.2, 43_200.0, 90.0)
    assert (settings.retry_base, settings.shutdown_grace) == (0.5, 60.0)
    assert (settings.max_backlog_bytes, settings.min_free_disk) == (2**26, 0)
    assert settings.grpc_reflection is False
    assert (settings.mixpanel_region, settings.log_level) == ("eu", "warning")
    assert settings.data_dir == Path("/var/lib/walbatch")


@pytest.mark.parametrize("word", ["true", "TRUE", "1", "yes", "on", "y", "t"])
@pytest.mark.parametrize("opposite", ["false", "False", "0", "no", "off", "n", "f"])
def test_booleans_of_every_spelling(word: str, opposite: str) -> None:
    """A boolean may be spelt as people spell it."""
    environ = {"WALBATCH_ALLOW_AFFECTED_SQLITE": word, "WALBATCH_GRPC_REFLECTION": opposite}
    settings = load(environ=environ, env_file=None)
    assert (settings.allow_affected_sqlite, settings.grpc_reflection) == (True, False)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("BATCH_SIZE", "5O", "'5O' must be a whole number"),
        ("BATCH_SIZE", "0", "'0' must be at least 1"),
        ("BATCH_MAX", "2001", "'2001' must be at most 2000"),
        ("MAX_IN_FLIGHT", "21", "'21' must be at most 20"),
        ("FLUSH_INTERVAL", "10x", "'10x' is not a duration; write 200ms, 10s"),
        ("FLUSH_INTERVAL", "0", "'0' must be at least 10ms"),
        ("SHUTDOWN_GRACE", "1900ms", "'1900ms' must be at least 2s"),
        ("RETRY_MAX", "2h", "'2h' must be at most 1h"),
        ("MAX_BACKLOG_BYTES", "64M", "'64M' is not a size; write 64MiB"),
        ("MAX_BACKLOG_BYTES", "1000", "'1000' must be at least 1MiB"),
        ("DESTINATION", "kafka", "'kafka' must be 'mixpanel' or 'stdout'"),
        ("MIXPANEL_REGION", "mars", "must be 'us', 'eu' or 'in'"),
        ("LOG_FORMAT", "xml", "'xml' must be 'auto', 'text' or 'json'"),
        ("LOG_LEVEL", "loud", "'loud' must be 'debug', 'info', 'warning' or 'error'"),
        ("GRPC_REFLECTION", "maybe", "'maybe' must be true or false"),
        ("UNKNOWN_OUTCOMES", "drop", "'drop' must be 'retry' or 'hold'"),
        ("MIXPANEL_PROJECT_ID", "p1", "must be a whole number"),
        ("MIXPANEL_TOKEN", "a b", "must be the credential alone"),
        ("GRPC_LISTEN", "50051", "'50051' is not HOST:PORT; write 127.0.0.1:50051"),
        ("GRPC_LISTEN", ":50051", "':50051' is not HOST:PORT"),
        ("GRPC_LISTEN", "::1:50051", "'::1:50051' is not HOST:PORT; write 127.0.0.1:50051, 0.0.0.0:50051 or [::1]"),
        ("GRPC_LISTEN", "[::g]:50051", "'[::g]:50051' has no IPv6 address between its brackets"),
        ("GRPC_LISTEN", "localhost:65536", "'localhost:65536' has a port above 65535"),
        ("GRPC_LISTEN", "unix:grpc.sock", "'unix:grpc.sock' has no absolute path after unix:"),
        ("ADMIN_LISTEN", "unix:/run/admin.sock", "'unix:/run/admin.sock' is not HOST:PORT"),
        ("MIXPANEL_URL", "api.mixpanel.com", "is not a URL; write https://api.mixpanel.com"),
        ("MIXPANEL_URL", "https://[::1", "is not a URL"),
        ("MIXPANEL_URL", "https://host:port", "is not a URL"),
        ("MIXPANEL_URL", "https://ho st", "is not a URL"),
        ("MIXPANEL_URL", "https://user:word@host", "must hold no user or password"),
        ("MIXPANEL_URL", "https://host/?a=b", "must end with the path"),
        ("MIXPANEL_URL", "http://api.mixpanel.com", "must begin with https://"),
        ("MIXPANEL_URL", "http://127.0.0.1.example.com", "must begin with https://"),
        ("MIXPANEL_URL", "ftp://localhost", "must begin with https://"),
    ],
)
def test_wrong_value(name: str, value: str, problem: str) -> None:
    """A wrong value is told with its key as typed, what is wrong, and what would be right."""
    (line,) = problems({f"WALBATCH_{name}": value})
    assert line.startswith(f"WALBATCH_{name}: {problem}")


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("0.0.0.0:0", "0.0.0.0:0"),
        ("[::1]:50051", "[::1]:50051"),
        ("walbatch.internal:50051", "walbatch.internal:50051"),
        ("unix:/run/grpc.sock", "unix:/run/grpc.sock"),
        ("unix:///run/grpc.sock", "unix:/run/grpc.sock"),
    ],
)
def test_address(address: str, kept: str) -> None:
    """Host and port, IPv6 in brackets and a Unix socket are addresses to listen on."""
    assert load(environ={"WALBATCH_GRPC_LISTEN": address}, env_file=None).grpc_listen == kept


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://api-eu.mixpanel.com/", "https://api-eu.mixpanel.com"),
        ("https://proxy.example.com:8443/mixpanel/", "https://proxy.example.com:8443/mixpanel"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://127.0.0.2:8080", "http://127.0.0.2:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_url(url: str, kept: str) -> None:
    """A URL may have a port and a path, and be plain http on this machine only."""
    assert load(environ={"WALBATCH_MIXPANEL_URL": url}, env_file=None).mixpanel_url == kept


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    """Someone who has made five mistakes reads of five, each with its key as typed."""
    env_file = tmp_path / ".env"
    env_file.write_text("WALBATCH_MAX_IN_FLIGHT=99\n")
    environ = {"WALBATCH_BATCH_SIZ": "1", "WALBATCH_RETENTION": "soon", "WALBATCH_RETRY_MAX": "1s"}
    with pytest.raises(ConfigurationError) as raised:
        load({"batch_size": "x", "retry_base": "2s"}, environ=environ, env_file=env_file)
    keys = {line.split(":")[0] for line in str(raised.value).splitlines()}
    assert keys == {
        "--batch-size",
        "--retry-base",
        "WALBATCH_BATCH_SIZ",
        "WALBATCH_RETENTION",
        f"WALBATCH_MAX_IN_FLIGHT in {env_file}",
    }


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("WALBATCH_BATCHSIZE", "did you mean WALBATCH_BATCH_SIZE?"),
        ("WALBATCH_MIXPANEL_TOKN", "did you mean WALBATCH_MIXPANEL_TOKEN?"),
        ("WALBATCH_MIXPANEL_TOKENFILE", "did you mean WALBATCH_MIXPANEL_TOKEN_FILE?"),
        ("walbatch_log_level", "did you mean WALBATCH_LOG_LEVEL?"),
        ("WALBATCH_GRPC_PORT", "did you mean WALBATCH_GRPC_LISTEN?"),
        ("WALBATCH_XYZZY", ".env.example lists those there are"),
    ],
)
def test_unknown_name(name: str, hint: str, tmp_path: Path) -> None:
    """A name of ours that does not exist is an error with a suggestion, wherever it stands and even if empty."""
    assert problems({name: CANARY}) == [f"{name}: there is no such setting; {hint}"]
    env_file = tmp_path / ".env"
    env_file.write_text(f"{name}=\n")
    with pytest.raises(ConfigurationError) as raised:
        load(environ={}, env_file=env_file)
    assert str(raised.value) == f"{name} in {env_file}: there is no such setting; {hint}"


def test_unknown_flag() -> None:
    """A flag for a setting that does not exist is told as a flag."""
    assert problems({}, {"batch_sise": 1}) == ["--batch-sise: there is no such setting; remove it"]


def test_names_of_others_are_left_alone(tmp_path: Path) -> None:
    """Neither other programs' variables nor those of a Kubernetes Service with our name are settings."""
    env_file = tmp_path / ".env"
    env_file.write_text("OTHER=1\nexport PATH\nMY_WALBATCH_TOKEN=1\n")
    environ = {
        "WALBATCHER": "1",
        "WALBATCH_SERVICE_HOST": "10.0.0.1",
        "WALBATCH_SERVICE_PORT": "50051",
        "WALBATCH_SERVICE_PORT_GRPC": "50051",
        "WALBATCH_PORT": "tcp://10.0.0.1:50051",
        "WALBATCH_PORT_50051_TCP": "tcp://10.0.0.1:50051",
        "WALBATCH_PORT_50051_TCP_ADDR": "10.0.0.1",
        "WALBATCH_GRPC_PORT_50051_TCP_PROTO": "tcp",
    }
    assert load(environ=environ, env_file=env_file) == Settings()


def test_known_name_is_never_taken_for_a_service() -> None:
    """A value that looks like a Service's address is still refused where a setting is meant."""
    assert problems({"WALBATCH_GRPC_LISTEN": "tcp://10.0.0.1:50051"})[0].startswith("WALBATCH_GRPC_LISTEN: ")


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        (
            {"WALBATCH_BATCH_SIZE": "200", "WALBATCH_BATCH_MAX": "100"},
            "WALBATCH_BATCH_SIZE: must not be above WALBATCH_BATCH_MAX (100)",
        ),
        (
            {"WALBATCH_BATCH_MAX": "49"},
            "WALBATCH_BATCH_SIZE: must not be above WALBATCH_BATCH_MAX (49)",
        ),
        (
            {"WALBATCH_RETRY_BASE": "2m"},
            "WALBATCH_RETRY_BASE: must not be above WALBATCH_RETRY_MAX (1m)",
        ),
        (
            {"WALBATCH_ADMIN_LISTEN": "127.0.0.1:50051"},
            "WALBATCH_ADMIN_LISTEN: is the same as WALBATCH_GRPC_LISTEN; choose another port",
        ),
        (
            {"WALBATCH_MIXPANEL_SERVICE_ACCOUNT": "a"},
            "WALBATCH_MIXPANEL_SERVICE_ACCOUNT: needs WALBATCH_MIXPANEL_SERVICE_SECRET and",
        ),
        (
            {"WALBATCH_MIXPANEL_SERVICE_SECRET": CANARY, "WALBATCH_MIXPANEL_PROJECT_ID": "1", **TOKEN},
            "WALBATCH_MIXPANEL_SERVICE_SECRET: needs WALBATCH_MIXPANEL_SERVICE_ACCOUNT as well; set all three",
        ),
    ],
)
def test_settings_that_do_not_go_together(environ: dict[str, str], line: str) -> None:
    """What contradicts another setting is told with both keys."""
    (told,) = problems(environ)
    assert told.startswith(line)


DESTINATIONS = {"WALBATCH_DESTINATIONS_FILE": "destinations.toml"}


@pytest.mark.parametrize(
    "given",
    [
        {"WALBATCH_MIXPANEL_TOKEN": CANARY},
        {"WALBATCH_MIXPANEL_URL": "https://proxy.example.com", "WALBATCH_MIXPANEL_TIMEOUT": "10s"},
        {"WALBATCH_DESTINATION": "mixpanel"},
        {"WALBATCH_UNKNOWN_OUTCOMES": "hold"},
        {"WALBATCH_MIXPANEL_REGION": "eu"},
        {"WALBATCH_MIXPANEL_PROJECT_ID": "1", "WALBATCH_MIXPANEL_SERVICE_ACCOUNT": "a"},
    ],
)
def test_one_destination_beside_the_file_of_several(given: dict[str, str]) -> None:
    """What describes the only destination would have no effect, so it is refused with the key of each."""
    names = ", ".join(given)
    (line,) = problems(given | DESTINATIONS, need_destination=True)
    assert line.startswith(f"WALBATCH_DESTINATIONS_FILE: lists the destinations, so {names} would have no effect; ")


def test_the_file_of_several_needs_no_other_credential() -> None:
    """Its secrets are in it, or in the files that it names; it is not read before it is needed."""
    settings = load(environ=DESTINATIONS | {"WALBATCH_MIXPANEL_TOKEN": ""}, env_file=None, need_destination=True)
    assert settings.destinations_file == Path("destinations.toml")


def test_any_free_port_twice() -> None:
    """Port 0 on both addresses is two different ports."""
    settings = load({"grpc_listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"}, environ={}, env_file=None)
    assert settings.grpc_listen == settings.admin_listen


def test_a_refused_value_makes_no_second_problem() -> None:
    """A value that is wrong by itself is not compared with others."""
    assert len(problems({"WALBATCH_RETRY_BASE": "2m", "WALBATCH_RETRY_MAX": "soon"})) == 1
    assert len(problems({"WALBATCH_MIXPANEL_TOKEN": "a b"}, need_destination=True)) == 1


def test_destination_needs_credentials() -> None:
    """Without credentials the error tells what is needed, and how to try without any."""
    (line,) = problems({}, need_destination=True)
    assert line.startswith("WALBATCH_MIXPANEL_TOKEN: is not set; set it (or WALBATCH_MIXPANEL_TOKEN_FILE)")
    assert "WALBATCH_DESTINATION=stdout" in line


def test_a_service_account_needs_the_token_as_well() -> None:
    """It can import events, and nothing else: profile updates would wait for ever."""
    names = {"SERVICE_ACCOUNT": "a", "SERVICE_SECRET": "s", "PROJECT_ID": "1"}
    account = {f"WALBATCH_MIXPANEL_{name}": value for name, value in names.items()}
    (line,) = problems(account, need_destination=True)
    assert line.startswith("WALBATCH_MIXPANEL_TOKEN: is not set; profile and group updates need it")


@pytest.mark.parametrize(
    "environ",
    [
        TOKEN,
        {
            "WALBATCH_MIXPANEL_SERVICE_ACCOUNT": "a",
            "WALBATCH_MIXPANEL_SERVICE_SECRET": "s",
            "WALBATCH_MIXPANEL_PROJECT_ID": "1",
            "WALBATCH_MIXPANEL_TOKEN": "t",
        },
        {"WALBATCH_DESTINATION": "stdout"},
    ],
)
def test_destination_with_what_it_needs(environ: dict[str, str]) -> None:
    """A token, with a service account or without, or a destination without credentials is enough."""
    settings = load(environ=environ, env_file=None, need_destination=True)
    assert settings.destination == environ.get("WALBATCH_DESTINATION", "mixpanel")
