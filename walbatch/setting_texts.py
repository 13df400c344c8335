"""What the settings are, in words: for `.env.example`, for docs/configuration.md, and for the help of the options.

All of it comes from the fields of `Settings` and of the destinations: a new one is described by its field alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from walbatch import destinations, values
from walbatch.settings import SECRETS, WITHOUT_FLAG, Settings
from walbatch.sources import env_name

_TOPICS = {
    "data_dir": "Storage",
    "grpc_listen": "Addresses",
    "destination": "Destination",
    "batch_size": "Delivery",
    "log_format": "Logs",
}
"""Heading of the group of settings that begins with this one."""

MASK = "********"
"""What stands in the place of a secret."""

_FILE_NOTE = "Or the path of a file with it, which others may not read (mode 0400, 0440 or 0600)."


def env_example() -> str:
    """Return the text of `.env.example`: every setting with its meaning, its limits and its default."""
    lines = [
        "# Every setting of walbatch, with its default. Copy this file to .env, and take the # off what you change.",
        "# A flag of the same name wins over the environment, and the environment over .env. Empty means not set.",
        "# Durations are written 200ms, 10s, 5m, 2h or 7d, sizes 64MiB (of 1024) or 64MB (of 1000).",
    ]
    for attribute, info in Settings.model_fields.items():
        if attribute in _TOPICS:
            lines += ["", f"# ---- {_TOPICS[attribute]} ----"]
        limits = _limits(info) or _choices(info)
        text = f"{info.description} {f'({limits})' if limits else ''}"
        lines += ["", *textwrap.wrap(text, 118, initial_indent="# ", subsequent_indent="# ")]
        lines.append(f"#{env_name(attribute)}={shown(info, info.default)}")
        if attribute in SECRETS:
            lines.append(f"# {_FILE_NOTE}")
            lines.append(f"#{env_name(attribute)}_FILE=")
    return "\n".join(lines) + "\n"


def configuration_page() -> str:
    """Return the text of docs/configuration.md: every setting, and every key of the file of destinations."""
    return "\n".join([*_PAGE_HEAD, *_settings_tables(), *_PAGE_MIDDLE, *_destination_tables()]) + "\n"


def option_help(attribute: str) -> tuple[str, str]:
    """Return what the option of a setting takes, as its help calls it, and the help: meaning, limits, default."""
    info = Settings.model_fields[attribute]
    word = _kind(info)
    facts = [_limits(info), f"default {default}" if (default := shown(info, info.default)) else ""]
    told = "; ".join(fact for fact in facts if fact)
    return word if "|" in word else word.upper(), f"{info.description}{f' ({told})' if told else ''}"


def shown(info: FieldInfo, value: Any) -> str:
    """Write a value as a user would; nothing for none, and `MASK` for a secret."""
    match value:
        case None:
            return ""
        case SecretStr():
            return MASK
        case Path():
            return str(value) if str(value).startswith(("/", "..")) else f"./{value}"
        case tuple():
            return ", ".join(value)
        case str():
            return value
        case _:
            return values.show(value, info.metadata)


def _kind(info: FieldInfo) -> str:
    return values.kind(info.annotation, info.metadata)


def _limits(info: FieldInfo) -> str:
    items = values.constraints(info.annotation, info.metadata)
    bounds = {name: getattr(item, name) for item in items for name in ("ge", "le") if hasattr(item, name)}
    if "le" in bounds:
        return f"{shown(info, bounds['ge'])} to {shown(info, bounds['le'])}"
    return f"at least {shown(info, bounds['ge'])}" if bounds.get("ge") else ""


def _choices(info: FieldInfo) -> str:
    word = _kind(info)
    return word.replace("|", ", ") if "|" in word else ""


_PAGE_HEAD = """\
# Configuration

<!-- Made by `make docs` from walbatch/settings.py and walbatch/destinations.py. -->

A flag of `walbatch serve` wins over the environment, the environment over `.env` in the directory where the command
runs, and `.env` over the default. Empty means not set. The flag of `WALBATCH_BATCH_SIZE` is `--batch-size`; credentials
have none, since everyone on the machine could read it. Durations are written `200ms`, `10s`, `5m`, `2h`, `7d`, sizes
`64MiB` (of 1024) or `64MB` (of 1000).

- `walbatch config show` prints every setting, its value and where that comes from; secrets are masked.
- `walbatch config check` says everything that is wrong, and ends with 78: run it before a deploy.
- [.env.example](../.env.example) is the same list, to be copied.""".splitlines()

_PAGE_MIDDLE = """
## The file of destinations

`WALBATCH_DESTINATIONS_FILE` names a TOML file with a table `[destinations.NAME]` for each destination, in place of
`WALBATCH_DESTINATION`, `WALBATCH_MIXPANEL_...` and `WALBATCH_UNKNOWN_OUTCOMES`; [destinations.md](destinations.md) says
what they do.""".splitlines()


def _settings_tables() -> Iterator[str]:
    for attribute, info in Settings.model_fields.items():
        if attribute in _TOPICS:
            yield from ("", f"## {_TOPICS[attribute]}", "", "| setting | flag | takes | default | meaning |")
            yield "|---|---|---|---|---|"
        flag = "" if attribute in WITHOUT_FLAG else f"`--{attribute.replace('_', '-')}`"
        cells = [f"`{env_name(attribute)}`", flag, _takes(info), _code(shown(info, info.default)), info.description]
        yield _row(cells)
        if attribute in SECRETS:
            yield _row([f"`{env_name(attribute)}_FILE`", "", "path", "", _FILE_NOTE])


def _destination_tables() -> Iterator[str]:
    common = set.intersection(*(set(model.model_fields) for model in destinations.MODELS.values()))
    names = ", ".join(f"`{name}`" for name in destinations.MODELS)
    yield from ("", "### Keys of every destination", *_KEYS_HEAD)
    yield _row(["`type`", names, "must be given", "What kind of destination it is."])
    example = next(iter(destinations.MODELS.values()))
    yield from _key_rows(example, sorted(common - {"type"}, key=list(example.model_fields).index))
    for name, model in destinations.MODELS.items():
        own = [key for key in model.model_fields if key not in common]
        if own:
            yield from ("", f"### `{name}`", *_KEYS_HEAD)
            yield from _key_rows(model, own)


_KEYS_HEAD = ("", "| key | takes | default | meaning |", "|---|---|---|---|")


def _key_rows(model: type[BaseModel], keys: Iterable[str]) -> Iterator[str]:
    for key in keys:
        info = model.model_fields[key]
        default = "must be given" if info.is_required() else _code(shown(info, info.default))
        yield _row([f"`{key}`", _takes(info), default, info.description])
        if key in destinations.SECRETS:
            yield _row([f"`{key}_file`", "path", "", _FILE_NOTE])


def _takes(info: FieldInfo) -> str:
    choices, limits = _choices(info), _limits(info)
    taken = ", ".join(f"`{one}`" for one in choices.split(", ")) if choices else _kind(info)
    return f"{taken}, {limits}" if limits else taken


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _row(cells: Iterable[str | None]) -> str:
    return f"| {' | '.join((cell or '').replace('|', chr(92) + '|') for cell in cells)} |"
