"""Where the value of a setting comes from: flags, the environment, `.env`, and the files that secrets are in.

It knows names and texts, not what they mean. Problems are collected and not raised, so that a user sees them all; none
of them repeats a value, and a file that should hold a secret is not even named, because its name may be the secret.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from dotenv.parser import Binding, parse_stream

PREFIX = "WALBATCH_"
"""What the name of every environment variable of ours begins with."""

FORBIDDEN_MODE = 0o027
"""Permissions that a file with a secret must not give: anything to everyone, and writing to the group. The group may
read it, since that is how Kubernetes and systemd hand a secret to a process that is not root."""

MAX_SECRET_BYTES = 4096
"""A longer file is no credential but something else by mistake."""

# Kubernetes puts the addresses of a Service called "walbatch" or "walbatch-grpc" into every container next to it.
_SERVICE_LINK = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")


def env_name(attribute: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + attribute.upper()


@dataclass(frozen=True, slots=True)
class Given:
    """A value, and the key it was given with as the user typed it."""

    key: str
    value: object = field(repr=False)
    is_file: bool = False
    """Whether the value is the path of a file that holds the secret."""
    source: str = "flag"
    """`flag`, `environment`, or the path of the `.env`."""


class Sources:
    """Every value that is given anywhere. Add the weakest source first: a later one wins, key by key.

    A secret and its `_FILE` are one setting with two names, so giving both in one source is a mistake.
    """

    def __init__(self, attributes: Iterable[str], secrets: Iterable[str]) -> None:
        self._names = {env_name(attribute): (attribute, False) for attribute in attributes}
        self._names |= {f"{env_name(attribute)}_FILE": (attribute, True) for attribute in secrets}
        self.given: dict[str, Given] = {}
        self.problems: list[str] = []
        self.unread: set[str] = set()
        """The settings whose file could not be read."""

    def add_flags(self, overrides: Mapping[str, object]) -> None:
        """Add values by attribute. None and the empty string are not given."""
        for attribute, value in overrides.items():
            flag = "--" + attribute.replace("_", "-")
            if self._names.get(env_name(attribute)) != (attribute, False):
                self.problems.append(f"{flag}: there is no such setting; remove it")
            elif value is not None and value != "":
                self.given[attribute] = Given(flag, value)

    def add_environ(self, environ: Mapping[str, str]) -> None:
        """Add the variables of an environment. Those of others are left alone."""
        ours = (name for name in environ if name in self._names or not _is_service_link(name, environ[name]))
        self._add({name: environ[name] for name in ours}, "environment")

    def add_env_file(self, path: Path | None) -> None:
        """Add the lines of a `.env`, if there is one. `$NAME` in a value stays: passwords have dollar signs."""
        try:
            text = path.read_text(encoding="utf-8-sig") if path else ""
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError):
            self.problems.append(f"{path}: cannot be read; make it a text file in UTF-8 that this user may read")
            return
        values = {}
        for line in parse_stream(StringIO(text)):
            if line.error or (line.value is None and (line.key or "").startswith(PREFIX)):
                self.problems.append(f"{path}: line {_number(line)} is not KEY=value; correct it, or quote its value")
            elif line.key and line.value is not None:
                values[line.key] = line.value
        self._add(values, str(path))

    def _add(self, values: Mapping[str, str], source: str) -> None:
        """Add what is ours. An empty value is not given; blanks around one were not meant."""
        where = "" if source == "environment" else f" in {source}"
        added: dict[str, Given] = {}
        for name, value in values.items():
            if name not in self._names:
                self._check_unknown(name, where)
                continue
            attribute, is_file = self._names[name]
            if value.strip() and attribute in added:
                self.problems.append(f"{name}{where}: {added[attribute].key} is set as well; remove one of the two")
            elif value.strip():
                added[attribute] = Given(name + where, value.strip(), is_file, source)
        self.given |= added

    def _check_unknown(self, name: str, where: str) -> None:
        if not name.upper().startswith(PREFIX):
            return
        # Without the prefix, which would make any two names look alike.
        names = [known.removeprefix(PREFIX) for known in self._names]
        near = difflib.get_close_matches(name.upper().removeprefix(PREFIX), names, 1)
        hint = f"did you mean {PREFIX}{near[0]}?" if near else ".env.example lists those there are"
        self.problems.append(f"{name}{where}: there is no such setting; {hint}")

    def read_secrets(self, *, required: bool) -> dict[str, object]:
        """Return every value, with what a secret's file holds in place of its path.

        Unless `required`, a file that this user may not read is no problem, and its setting is only `unread`.
        """
        values: dict[str, object] = {}
        for attribute, item in self.given.items():
            try:
                values[attribute] = read_secret(str(item.value)) if item.is_file else item.value
            except PermissionError:
                self.unread.add(attribute)
                if required:
                    self.problems.append(f"{item.key}: this user may not read the file; make it the file's owner")
            except ValueError as error:
                self.unread.add(attribute)
                self.problems.append(f"{item.key}: {error}")
        return values


def _is_service_link(name: str, value: str) -> bool:
    return _SERVICE_LINK.fullmatch(name) is not None or value.startswith(("tcp://", "udp://", "sctp://"))


def _number(line: Binding) -> int:
    text = line.original.string
    blank = text[: len(text) - len(text.lstrip())]  # what the parser counts as the line begins with those above it
    return line.original.line + blank.count("\n")


def read_secret(path: str) -> str:
    """Return what a file holds that nobody else may read.

    Raises:
        PermissionError: this user may not read it.
        ValueError: it is no such file; the text says why, without naming it.
    """
    try:
        # Not blocking, or the open of a named pipe would wait for ever. The checks are on what was opened.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        raise
    except (OSError, ValueError):
        raise ValueError("cannot be opened; the value must be the path of a file, not the secret itself") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError("is not a regular file; name a file that holds the secret and nothing else")
        if mode & FORBIDDEN_MODE:
            found = stat.S_IMODE(mode)
            raise ValueError(
                f"others may read the file (mode {found:04o}); make that 0400, with chmod or where it is mounted"
            )
        content = os.read(descriptor, MAX_SECRET_BYTES + 1)
    finally:
        os.close(descriptor)
    if not content.strip() or len(content) > MAX_SECRET_BYTES:
        raise ValueError(f"the file must hold the secret and nothing else: 1 to {MAX_SECRET_BYTES} bytes")
    return content.decode(errors="replace").strip()
