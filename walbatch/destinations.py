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
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, SecretStr, Tag, TypeAdapter
from pydantic import ValidationError as Invalid

from walbatch.errors import ConfigurationError
from walbatch.routing import Filter
from walbatch.settings import Settings
from walbatch.sources import FORBIDDEN_MODE, read_secret
from walbatch.values import DAY, GIB, MIB, Duration, Region, Secret, Size, UnknownOutcomes, Url, complaint
from walbatch.wal import LANES

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_KINDS = {name: kind for kind, name in LANES.items()}
_SECRETS = ("token", "service_secret")


class _Destination(BaseModel):
    """What every destination has."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    only: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    kinds: tuple[Literal["events", "profiles", "groups"], ...] = ("events", "profiles", "groups")
    formerly: str | None = None

    @property
    def filter(self) -> Filter:
        """What it wants."""
        return Filter(self.only, self.never, frozenset(_KINDS[name] for name in self.kinds))


class MixpanelDestination(_Destination):
    """A Mixpanel project."""

    type: Literal["mixpanel"] = "mixpanel"
    token: Secret | None = None
    service_account: str | None = None
    service_secret: Secret | None = None
    project_id: Annotated[int, Field(ge=1)] | None = None
    region: Region = "us"
    url: Url | None = None
    timeout: Annotated[Duration, Field(ge=0.01, le=600.0)] = 30.0
    unknown_outcomes: UnknownOutcomes = "retry"


class NdjsonDestination(_Destination):
    """Files in a directory, one JSON line a record."""

    type: Literal["ndjson"]
    directory: Annotated[Path, BeforeValidator(lambda text: Path(text) if isinstance(text, str) else text)]
    rotate_size: Annotated[Size, Field(ge=MIB, le=1024 * GIB)] = 256 * MIB
    rotate_every: Annotated[Duration, Field(ge=1.0, le=366 * DAY)] = DAY


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
_MODELS: dict[str, type[_Destination]] = {
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
        before = len(problems)
        problems += (f"{path}: [destinations.{name}] {text}" for text in _misplaced(name, table, is_private=is_private))
        if len(problems) == before:
            destination, wrong = _build(_read_secrets(table, path.parent, problems, f"{path}: [destinations.{name}]"))
            problems += (f"{path}: [destinations.{name}] {text}" for text in wrong)
            if destination is not None:
                found[name] = destination
    problems += (f"{path}: {text}" for text in _clashes(found, path.parent))
    if problems:
        raise ConfigurationError("\n".join(problems))
    return {name: _placed(destination, path.parent) for name, destination in found.items()}


def _load(path: Path) -> tuple[dict[str, Any], bool]:
    """Return the tables of the file, and whether nobody else may read it."""
    try:
        with path.open("rb") as file:
            is_private = not stat.S_IMODE(os.fstat(file.fileno()).st_mode) & FORBIDDEN_MODE
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"WALBATCH_DESTINATIONS_FILE: {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # Outside of the handler's chain a text could show: a TOML error names places, and never values.
        raise ConfigurationError(f"{path}: is not TOML: {error}") from None
    tables = document.pop("destinations", {})
    if document or not isinstance(tables, dict) or not tables:
        unknown = f"; {', '.join(sorted(document))} is not known" if document else ""
        raise ConfigurationError(f"{path}: must have a table [destinations.NAME] for each destination{unknown}")
    return tables, is_private


def _misplaced(name: str, table: object, *, is_private: bool) -> Iterator[str]:
    if not _NAME.fullmatch(name):
        yield "has a name of other than 1 to 63 lower-case letters, digits, - and _"
    if not isinstance(table, dict):
        yield "must be a table"
        return
    for secret in _SECRETS:
        if secret in table and f"{secret}_file" in table:
            yield f"{secret}: {secret}_file is set as well; remove one of the two"
        if secret in table and not is_private:
            yield f"{secret}: others may read this file; chmod 0600 it, or use {secret}_file"


def _read_secrets(table: dict[str, Any], base: Path, problems: list[str], where: str) -> dict[str, Any]:
    """Return the table with what a secret's file holds in place of its path."""
    values = dict(table)
    for secret in _SECRETS:
        file = values.pop(f"{secret}_file", None)
        if file is None:
            continue
        try:
            values[secret] = read_secret(str(base / str(file)))
        except PermissionError:
            problems.append(f"{where} {secret}_file: this user may not read the file; make it the file's owner")
        except ValueError as error:
            problems.append(f"{where} {secret}_file: {error}")
    return values


def _build(values: dict[str, Any]) -> tuple[Destination | None, list[str]]:
    try:
        destination = _CHOICE.validate_python(values)
    except Invalid as error:
        details = error.errors(include_url=False, include_input=False)
    else:
        return destination, list(_incomplete(destination))
    model = _MODELS.get(str(values.get("type")))
    wrong = []
    for detail in details:
        key = next((str(part) for part in detail["loc"] if part not in _MODELS), "type")
        match detail["type"]:
            case "union_tag_invalid" | "union_tag_not_found":
                text = f"must be one of {', '.join(_MODELS)}"
            case "extra_forbidden":
                text = "is not known here"
            case "missing":
                text = "is missing"
            case _:
                text = complaint(detail, model.model_fields[key].metadata if model else [])
        wrong.append(f"{key}: {text}")
    return None, wrong


def _incomplete(destination: Destination) -> Iterator[str]:
    if not isinstance(destination, MixpanelDestination):
        return
    account = (destination.service_account, destination.service_secret, destination.project_id)
    if any(account) and not all(account):
        yield "service_account: goes with service_secret (or service_secret_file) and project_id; set all three"
    elif not any(account) and destination.token is None:
        yield "token: is missing; set token_file to a file with the project's token, or use a service account"


def _clashes(found: dict[str, Destination], base: Path) -> Iterator[str]:
    """Yield what two destinations cannot share."""
    places: dict[object, str] = {}
    for name, destination in found.items():
        if destination.formerly in found:
            yield f"[destinations.{name}] formerly: {destination.formerly} is a destination of this file"
        match destination:
            case NdjsonDestination(directory=directory):
                place: object = (base / directory).resolve()
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
