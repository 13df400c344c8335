"""Everything that can be set, where it is set, and what is wrong with it in the user's own words.

A flag wins over the environment, the environment over `.env`, and `.env` over the default. `load` gathers the values
itself instead of leaving that to pydantic-settings, because only who gathers knows how each key was typed. It tells
every problem at once, and never repeats what stands in a `MIXPANEL_` key: a secret may be in the wrong one of them.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from walbatch.errors import ConfigurationError
from walbatch.sources import PREFIX, Given, Sources, env_name
from walbatch.units import format_duration
from walbatch.values import (
    DAY,
    GIB,
    HOUR,
    MIB,
    DestinationType,
    Duration,
    HostPort,
    Listen,
    LogFormat,
    LogLevel,
    Region,
    Secret,
    Size,
    UnknownOutcomes,
    Url,
    complaint,
)


class Settings(BaseSettings):
    """The settings of one process: durations in seconds, sizes in bytes. Get it from `load`.

    Made by hand it takes exactly what it is given, reads nothing else, and checks each value only by itself.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, hide_input_in_errors=True, frozen=True, extra="forbid")

    data_dir: Path = Field(
        default=Path("walbatch-data"),
        description="Directory of the log: made if missing, on a local disk, for one server at a time.",
    )
    max_backlog_bytes: Size = Field(
        default=20 * GIB,
        ge=MIB,
        description="Size of the records that may be waiting; beyond it new ones are refused until some are sent.",
    )
    min_free_disk: Size = Field(
        default=256 * MIB,
        ge=0,
        description="Free space of the disk below which new records are refused; delivery goes on. 0 switches it off.",
    )
    max_wal_bytes: Size = Field(
        default=GIB,
        ge=32 * MIB,
        description="Size of SQLite's log beyond which new records are refused: somebody reads the database all the"
        " time, so that it cannot be trimmed.",
    )
    retention: Duration = Field(
        default=7 * DAY,
        ge=1.0,
        le=3650 * DAY,
        description="How long sent records are kept, for inspection and replay. What any configured destination still"
        " needs is kept.",
    )
    allow_affected_sqlite: bool = Field(
        default=False,
        description="true starts even on an SQLite with the WAL-reset bug, which can lose acknowledged records.",
    )

    grpc_listen: Listen = Field(
        default="127.0.0.1:50051",
        description="Where applications send to: HOST:PORT, [::1]:PORT or unix:/path. Port 0 takes any free one.",
    )
    grpc_reflection: bool = Field(
        default=True, description="Whether tools such as grpcurl may ask which calls there are: true or false."
    )
    admin_listen: HostPort = Field(
        default="127.0.0.1:9095",
        description="Where health checks and the commands reach the server, over HTTP: HOST:PORT.",
    )

    destination: DestinationType = Field(
        default="mixpanel", description="Where records go. stdout prints each one and needs no credential."
    )
    mixpanel_token: Secret | None = Field(
        default=None, description="The project's token. Profile and group updates need it in any case."
    )
    mixpanel_service_account: str | None = Field(
        default=None,
        description="Name of a service account, to import events with. Updates go by the token all the same.",
    )
    mixpanel_service_secret: Secret | None = Field(default=None, description="The service account's secret.")
    mixpanel_project_id: int | None = Field(
        default=None, ge=1, description="Number of the project, which goes with the service account."
    )
    mixpanel_region: Region = Field(
        default="us", description="Where the project's data lives, chosen when it was created."
    )
    mixpanel_url: Url | None = Field(
        default=None, description="Another address in place of the region's: https, or http on this machine."
    )
    mixpanel_timeout: Duration = Field(
        default=30.0,
        ge=0.01,
        le=600.0,
        description="Time for one whole request, from connecting to the end of the answer.",
    )

    unknown_outcomes: UnknownOutcomes = Field(
        default="retry",
        description="What becomes of a profile update that counts twice when it is sent twice (add, append, remove) if"
        " no answer says whether it arrived: retry sends it again, hold keeps it for `walbatch dead`.",
    )
    destinations_file: Path | None = Field(
        default=None,
        description="TOML file with several destinations, in place of the settings above; see docs/destinations.md.",
    )

    batch_size: int = Field(default=50, ge=1, le=2000, description="Number of waiting records that makes a batch due.")
    flush_interval: Duration = Field(
        default=10.0,
        ge=0.01,
        le=DAY,
        description="Time after which the oldest waiting record makes a smaller batch due.",
    )
    batch_max: int = Field(
        default=2000, ge=1, le=2000, description="Number of records to which a batch may grow when delivery is behind."
    )
    max_in_flight: int = Field(default=10, ge=1, le=20, description="Number of requests with events under way at once.")
    retry_attempts: int = Field(
        default=5,
        ge=1,
        le=60,
        description="Number of failures in a row, each with twice the wait, until one batch probes now and then.",
    )
    retry_base: Duration = Field(default=1.0, ge=0.01, le=HOUR, description="Wait after the first failure.")
    retry_max: Duration = Field(
        default=60.0,
        ge=0.01,
        le=HOUR,
        description="Longest wait between two probes. Retrying never ends, and never loses a record.",
    )
    shutdown_grace: Duration = Field(
        default=25.0,
        ge=2.0,
        le=HOUR,
        description="Time to finish at a stop signal; keep it below the service manager's. What is left stays stored.",
    )

    log_format: LogFormat = Field(
        default="auto", description="auto writes text to a terminal and JSON to anything else."
    )
    log_level: LogLevel = Field(default="info", description="The least serious messages that are still written.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 (pydantic-settings passes all of them)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take no value from anywhere but the caller, which is `load`."""
        return (init_settings,)


SECRETS = ("mixpanel_token", "mixpanel_service_secret")
"""What is never shown, and may also be given as the path of a file, with _FILE behind the name."""

WITHOUT_FLAG = (*SECRETS, "mixpanel_service_account")
"""What no command takes as an option: everyone on the machine can read the options of a process."""

_ACCOUNT = ("mixpanel_service_account", "mixpanel_service_secret", "mixpanel_project_id")
_ONE_DESTINATION = frozenset(
    {
        *("destination", "unknown_outcomes", "mixpanel_token", "mixpanel_region", "mixpanel_url", "mixpanel_timeout"),
        *_ACCOUNT,
    }
)
"""What describes the only destination, and belongs into the file of several."""


@dataclass(frozen=True, slots=True)
class Examined:
    """The settings as they were found, also where something is wrong with them."""

    settings: Settings
    """With the default in place of what cannot be used."""
    given: Mapping[str, Given]
    """What was given anywhere, by attribute."""
    unusable: frozenset[str]
    """The attributes that were given, and cannot be used."""
    problems: Sequence[str]
    """A line for each, with its key and the remedy."""


def load(
    overrides: Mapping[str, object] = MappingProxyType({}),
    *,
    environ: Mapping[str, str] = os.environ,
    env_file: Path | None = Path(".env"),
    need_destination: bool = False,
) -> Settings:
    """Return the settings from flags (`overrides`, by attribute; None is not given), environment and `.env`.

    Without `need_destination` the credentials may be missing, and a secret file that this user may not read counts
    as not given: looking into the log needs no credential.

    Raises:
        ConfigurationError: Something is wrong; the text has one line for each problem, with its key and the remedy.
    """
    found = examine(overrides, environ=environ, env_file=env_file, need_destination=need_destination)
    if found.problems:
        # Outside of any except clause, so that no foreign exception with a value in it hangs on this one.
        raise ConfigurationError("\n".join(found.problems))
    return found.settings


def examine(
    overrides: Mapping[str, object] = MappingProxyType({}),
    *,
    environ: Mapping[str, str] = os.environ,
    env_file: Path | None = Path(".env"),
    need_destination: bool = False,
) -> Examined:
    """Return what `load` works with, and does not raise."""
    sources = _sources(overrides, environ, env_file)
    values = sources.read_secrets(required=need_destination)
    settings, refused = _validate(values, sources)
    unusable = refused.keys() | sources.unread
    problems = [*sources.problems, *refused.values()]
    for attributes, problem in _conflicts(settings, sources.given, need_destination=need_destination):
        if not unusable.intersection(attributes):
            problems.append(f"{_key(attributes[0], sources.given)}: {problem}")
    return Examined(settings, sources.given, frozenset(unusable), problems)


def _sources(overrides: Mapping[str, object], environ: Mapping[str, str], env_file: Path | None) -> Sources:
    sources = Sources(Settings.model_fields, SECRETS)
    sources.add_env_file(env_file)
    sources.add_environ(environ)
    sources.add_flags(overrides)
    return sources


def _validate(values: Mapping[str, object], sources: Sources) -> tuple[Settings, dict[str, str]]:
    """Return the settings, with the default in place of what is refused, and the problem of each that is."""
    try:
        return Settings.model_validate(values), {}
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    refused = {}
    for detail in details:
        attribute = str(detail["loc"][0])
        shown = "" if attribute.startswith("mixpanel_") else f"{reprlib.repr(str(values[attribute]))} "
        problem = complaint(detail, Settings.model_fields[attribute].metadata)
        refused[attribute] = f"{sources.given[attribute].key}: {shown}{problem}"
    return Settings.model_validate({k: v for k, v in values.items() if k not in refused}), refused


def _conflicts(
    settings: Settings, given: Mapping[str, Given], *, need_destination: bool
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the attributes that do not go together, first the one to name, and why they do not."""
    if settings.batch_size > settings.batch_max:
        yield ("batch_size", "batch_max"), f"must not be above {_key('batch_max', given)} ({settings.batch_max})"
    if settings.retry_base > settings.retry_max:
        limit = format_duration(settings.retry_max)
        yield ("retry_base", "retry_max"), f"must not be above {_key('retry_max', given)} ({limit})"
    if settings.admin_listen == settings.grpc_listen and not settings.admin_listen.endswith(":0"):
        yield ("admin_listen", "grpc_listen"), f"is the same as {_key('grpc_listen', given)}; choose another port"
    present = [attribute for attribute in _ACCOUNT if getattr(settings, attribute) is not None]
    missing = [attribute for attribute in _ACCOUNT if attribute not in present]
    misplaced = [attribute for attribute in given if attribute in _ONE_DESTINATION]
    if settings.destinations_file is not None:
        if misplaced:
            names = ", ".join(_key(attribute, given) for attribute in misplaced)
            yield (
                ("destinations_file", *misplaced),
                f"lists the destinations, so {names} would have no effect; write it into the file, and remove it here",
            )
    elif present and missing:
        names = " and ".join(_key(attribute) for attribute in missing)
        yield (present[0], *_ACCOUNT), f"needs {names} as well; set all three, or only {_key('mixpanel_token')}"
    elif need_destination and missing and settings.destination == "mixpanel" and settings.mixpanel_token is None:
        yield ("mixpanel_token", *_ACCOUNT, "destination"), _NO_CREDENTIAL
    elif need_destination and settings.destination == "mixpanel" and settings.mixpanel_token is None:
        yield ("mixpanel_token", *_ACCOUNT), "is not set; profile and group updates need it beside the service account"


def _key(attribute: str, given: Mapping[str, Given] = MappingProxyType({})) -> str:
    return given[attribute].key if attribute in given else env_name(attribute)


_NO_CREDENTIAL = (
    f"is not set; set it (or {_key('mixpanel_token')}_FILE) to the project's token; "
    f"{_key('destination')}=stdout tries walbatch without Mixpanel"
)
