"""The settings of a process as a person may see them: each value, and where it comes from. Secrets are masked.

What stands in a `MIXPANEL_` key may be a secret in the wrong place, as long as nothing shows that it is none. So it is
masked unless it was checked to be of its kind; of an address only the host is shown, and of a service account only a
name such as Mixpanel gives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from walbatch import destinations, values
from walbatch.errors import ConfigurationError
from walbatch.setting_texts import MASK, shown
from walbatch.settings import Examined, Settings
from walbatch.sources import Given, env_name

_ACCOUNT_NAME = re.compile(r"[\w.-]+\.mp-service-account")


@dataclass(frozen=True, slots=True)
class Shown:
    """One setting."""

    name: str
    """Its environment variable."""
    value: str | None
    """As one would type it, masked where it may be a secret; None if it is not set, or cannot be used."""
    source: str
    """`flag`, `environment`, the path of the `.env`, or `default`."""
    key: str | None
    """What it was given with, as it was typed; None for a default."""
    in_file: bool
    """Whether the value is what a file of a secret holds."""
    usable: bool
    """Whether it is what the server would take."""


def settings(found: Examined) -> list[Shown]:
    """Return every setting, in the order in which they are documented."""
    return [_shown(found, attribute, found.given.get(attribute)) for attribute in Settings.model_fields]


def destinations_of(found: Examined) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return the keys and values of each destination by its name, and what is wrong with their file."""
    try:
        configured = destinations.configured(found.settings)
    except ConfigurationError as error:
        return {}, str(error).splitlines()
    return {name: _keys(destination) for name, destination in configured.items()}, []


def _shown(found: Examined, attribute: str, given: Given | None) -> Shown:
    usable = attribute not in found.unusable
    text = _masked(attribute, Settings.model_fields[attribute], getattr(found.settings, attribute))
    return Shown(
        name=env_name(attribute),
        value=(text or None) if usable else None,
        source=given.source if given else "default",
        key=given.key if given else None,
        in_file=given is not None and given.is_file,
        usable=usable,
    )


def _keys(destination: BaseModel) -> dict[str, str]:
    fields: Mapping[str, FieldInfo] = type(destination).model_fields
    texts = {key: _masked(key, info, getattr(destination, key)) for key, info in fields.items()}
    return {"type": texts.pop("type")} | {key: text for key, text in texts.items() if text}


def _masked(attribute: str, info: FieldInfo, value: Any) -> str:
    name = attribute.removeprefix("mixpanel_")
    if isinstance(value, str) and name == "url":
        return values.origin(value)
    if isinstance(value, str) and name == "service_account" and not _ACCOUNT_NAME.fullmatch(value):
        return MASK
    return shown(info, value)
