"""Where records go: one destination from the environment, or several from a TOML file.

    [destinations.production]
    type = "mixpanel"
    token_file = "/run/secrets/mixpanel-token"     or token = "..." in a file that nobody else may read
    region = "eu"

    [destinations.archive]
    type = "ndjson"
    directory = "/var/lib/walbatch/archive"
    never = ["debug *"]

docs/destinations.md describes every key. As with all settings, every problem is told at once and no secret is repeated.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, SecretStr, Tag, TypeAdapter
from pydantic import ValidationError as Invalid
from pydantic_core import ErrorDetails

from walbatch.errors import ConfigurationError
from walbatch.routing import Filter
from walbatch.settings import Settings
from walbatch.sources import FORBIDDEN_MODE, read_secret
from walbatch.values import DAY, GIB, MIB, Directory, Duration, Region, Secret, Size, UnknownOutcomes, Url, complaint
from walbatch.wal import LANES

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_NAME_RULE = "1 to 63 lower-case letters, digits, - and _, the first a letter or a digit"
_KINDS = {name: kind for kind, name in LANES.items()}

SECRETS = ("token", "service_secret")
"""Keys that can also be given with _file behind them: the path of a file that holds the secret."""

_ACCOUNT = ("service_account", "service_secret", "project_id")

Text = Annotated[str, Field(min_length=1)]


class _Destination(BaseModel):
    """What every destination has."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    only: tuple[Text, ...] = Field(
        default=(), description="List of patterns: of the events, only those whose name matches one. Empty means all."
    )
    never: tuple[Text, ...] = Field(
        default=(), description="List of patterns: no event whose name matches one; wins over `only`."
    )
    kinds: tuple[Literal["events", "profiles", "groups"], ...] = Field(
        default=("events", "profiles", "groups"), min_length=1, description="Which kinds of records; at least one."
    )
    formerly: Text | None = Field(default=None, description="The name that this destination had before.")

    @property
    def filter(self) -> Filter:
        """What it wants."""
        return Filter(self.only, self.never, frozenset(_KINDS[name] for name in self.kinds))


class MixpanelDestination(_Destination):
    """A Mixpanel project."""

    type: Literal["mixpanel"] = "mixpanel"
    token: Secret | None = Field(
        default=None, description="The project's token; only in a file that nobody else may read (mode 0600)."
    )
    service_account: Text | None = Field(
        default=None,
        description="Name of a service account, to import events with; updates go by the token all the same.",
    )
    service_secret: Secret | None = Field(
        default=None, description="The service account's secret; only in a file that nobody else may read."
    )
    project_id: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        default=None, description="Number of the project, which goes with the service account."
    )
    region: Region = Field(default="us", description="Where the project's data lives.")
    url: Url | None = Field(
        default=None, description="Another address in place of the region's: https, or http on this machine."
    )
    timeout: Annotated[Duration, Field(ge=0.01, le=600.0, description="Time for one whole request.")] = 30.0
    unknown_outcomes: UnknownOutcomes = Field(
        default="retry",
        description="What becomes of an update that counts twice when it is sent twice if no answer says whether it"
        " arrived: `retry` sends it again, `hold` keeps it for `walbatch dead`; see"
        " [delivery.md](delivery.md#when-an-answer-leaves-it-open).",
    )


class NdjsonDestination(_Destination):
    """Files in a directory, one JSON line a record."""

    type: Literal["ndjson"]
    directory: Directory = Field(
        description="Where the files are, for this user's eyes only; made at the start if it is missing."
    )
    rotate_size: Annotated[
        Size, Field(ge=MIB, le=1024 * GIB, description="A file is finished by the batch that takes it to this size.")
    ] = 256 * MIB
    rotate_every: Annotated[
        Duration, Field(ge=1.0, le=366 * DAY, description="A file is finished when it is so old.")
    ] = DAY


class StdoutDestination(_Destination):
    """Standard output, one JSON line a record."""

    type: Literal["stdout"] = "stdout"


Destination = MixpanelDestination | NdjsonDestination | StdoutDestination

_CHOICE: TypeAdapter[Destination] = TypeAdapter(
    Annotated[
        Annotated[MixpanelDestination, Tag("mixpanel")]
        | Annotated[NdjsonDestination, Tag("ndjson")]
        | Annotated[StdoutDestination, Tag("stdout")],
        Discriminator("type"),
    ]
)
MODELS: dict[str, type[_Destination]] = {
    "mixpanel": MixpanelDestination,
    "ndjson": NdjsonDestination,
    "stdout": StdoutDestination,
}


def configured(settings: Settings) -> dict[str, Destination]:
    """Return the destinations by name, in their order.

    Raises:
        ConfigurationError: Something is wrong with the file; the text has one line for each problem.
    """
    if settings.destinations_file is not None:
        return read(settings.destinations_file)
    if settings.destination == "stdout":
        return {"stdout": StdoutDestination()}
    only = MixpanelDestination(
        token=settings.mixpanel_token,
        service_account=settings.mixpanel_service_account,
        service_secret=settings.mixpanel_service_secret,
        project_id=settings.mixpanel_project_id,
        region=settings.mixpanel_region,
        url=settings.mixpanel_url,
        timeout=settings.mixpanel_timeout,
        unknown_outcomes=settings.unknown_outcomes,
    )
    return {"mixpanel": only}


def read(path: Path) -> dict[str, Destination]:
    """Return what a file lists. Relative paths in it count from where the file is.

    Raises:
        ConfigurationError: as `configured`.
    """
    tables, is_private = _load(path)
    problems: list[str] = []
    found: dict[str, Destination] = {}
    for name, table in tables.items():
        destination, wrong = _read_one(name, table, path.parent, is_private=is_private)
        problems += (f"{path}: [destinations.{name}] {text}" for text in wrong)
        if destination is not None:
            found[name] = destination
    problems += (f"{path}: {text}" for text in _clashes(found, tables.keys(), path.parent))
    if problems:
        raise ConfigurationError("\n".join(problems))
    return {name: _placed(destination, path.parent) for name, destination in found.items()}


def _load(path: Path) -> tuple[dict[str, Any], bool]:
    """Return the tables of the file, and whether nobody else may read it."""
    document: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            is_private = not stat.S_IMODE(os.fstat(file.fileno()).st_mode) & FORBIDDEN_MODE
            document = tomllib.loads(file.read().decode("utf-8-sig"))
    except OSError as error:
        problem = f"WALBATCH_DESTINATIONS_FILE: {path}: {error.strerror}"
    except tomllib.TOMLDecodeError as error:
        problem = f"{path}: is not TOML: {error}"  # which names places, and never values
    except ValueError:
        problem = f"{path}: is not TOML in UTF-8"
    else:
        problem = ""
    if problem:
        # Outside of any except clause: the whole text of the file, with its secrets, may hang on the exception.
        raise ConfigurationError(problem)
    tables = document.pop("destinations", {})
    if document or not isinstance(tables, dict) or not tables:
        unknown = f"; {', '.join(sorted(document))} is not known" if document else ""
        raise ConfigurationError(f"{path}: must have a table [destinations.NAME] for each destination{unknown}")
    return tables, is_private


def _read_one(name: str, table: object, base: Path, *, is_private: bool) -> tuple[Destination | None, list[str]]:
    """Return a destination, or None if its table cannot be read, and everything that is wrong with it."""
    wrong = [] if _NAME.fullmatch(name) else [f"has a name of other than {_NAME_RULE}"]
    if not isinstance(table, dict):
        return None, [*wrong, "must be a table"]
    values = table
    if table.get("type") == "mixpanel":
        wrong += _misplaced(table, is_private=is_private)
        wrong += _incomplete(table)
        values, unread = _with_secrets(table, base)
        wrong += unread
    try:
        return _CHOICE.validate_python(values), wrong
    except Invalid as error:
        details = error.errors(include_url=False, include_input=False)
    return None, [*wrong, *(_complaint(table, detail) for detail in details)]


def _misplaced(table: Mapping[str, object], *, is_private: bool) -> Iterator[str]:
    for secret in SECRETS:
        if secret in table and f"{secret}_file" in table:
            yield f"{secret}: {secret}_file is set as well; remove one of the two"
        if secret in table and not is_private:
            yield f"{secret}: others may read or change this file; chmod 0600 it, or use {secret}_file"


def _incomplete(table: Mapping[str, object]) -> Iterator[str]:
    given = {key.removesuffix("_file") for key in table}
    missing = [key for key in _ACCOUNT if key not in given]
    if missing and given.intersection(_ACCOUNT):
        yield f"{missing[0]}: is missing; {', '.join(_ACCOUNT)} go together (service_secret_file is as good)"
    elif missing and "token" not in given:
        yield "token: is missing; set token_file to a file with the project's token"
    elif "token" not in given and table.get("kinds") != ["events"]:
        yield 'token: is missing; profile and group updates need it beside the account, or set kinds = ["events"]'


def _with_secrets(table: Mapping[str, object], base: Path) -> tuple[dict[str, object], list[str]]:
    """Return the table with what a secret's file holds in place of its path, and what is wrong with the files."""
    values = dict(table)
    wrong = []
    for secret in SECRETS:
        if f"{secret}_file" not in values:
            continue
        file = values.pop(f"{secret}_file")
        if not isinstance(file, str):
            wrong.append(f"{secret}_file: must be a text in quotes")
            continue
        try:
            values[secret] = read_secret(str(base / file))
        except PermissionError:
            wrong.append(f"{secret}_file: this user may not read the file; make it the file's owner")
        except ValueError as error:
            wrong.append(f"{secret}_file: {error}")
    return values, wrong


def _complaint(table: Mapping[str, object], detail: ErrorDetails) -> str:
    """Say what is wrong with a key, without its value."""
    if detail["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        return f"type: must be one of {', '.join(MODELS)}"
    tag, key = str(detail["loc"][0]), str(detail["loc"][1])
    info = MODELS[tag].model_fields.get(key)
    typed = f"{key}_file" if f"{key}_file" in table else key
    return f"{typed}: {complaint(detail, info.metadata if info else [])}"


def _clashes(found: Mapping[str, Destination], names: Collection[str], base: Path) -> Iterator[str]:
    """Yield what two destinations cannot share. `names` has also those that are wrong."""
    places: dict[object, str] = {}
    heirs: dict[str, str] = {}
    for name, destination in found.items():
        if destination.formerly in names:
            yield f"[destinations.{name}] formerly: {destination.formerly} is a destination of this file"
        if destination.formerly is not None and heirs.setdefault(destination.formerly, name) != name:
            yield f"[destinations.{name}] formerly: is that of [destinations.{heirs[destination.formerly]}] as well"
        match destination:
            case NdjsonDestination(directory=directory):
                place: object = os.path.realpath(base / directory)
            case StdoutDestination():
                place = "standard output"
            case _:
                continue
        if place in places:
            yield f"[destinations.{name}] writes to the same place as [destinations.{places[place]}]"
        places[place] = name


def _placed(destination: Destination, base: Path) -> Destination:
    if isinstance(destination, NdjsonDestination):
        return destination.model_copy(update={"directory": base / destination.directory})
    return destination


def secret(value: SecretStr | None) -> str:
    """Return the text of a credential, or nothing."""
    return value.get_secret_value() if value else ""
