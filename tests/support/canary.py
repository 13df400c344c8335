"""What no output may ever hold: a credential and the parts of records that the suite's programs get by default.

`outputs.py` looks for them in whatever a program of a test has written. Imported by clients that are programs of their
own, so it needs nothing but the standard library.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from urllib.parse import quote

SECRET = "canary-secret-91be04"
"""A token, or whatever else is a credential."""
PERSON = "canary-person-91be04"
"""A distinct_id, or another id of a person."""
NAME = "canary_name_91be04"
"""The name of a property."""
VALUE = "canary-value-91be04"
"""The value of a property."""

PROPERTIES = json.dumps({NAME: VALUE})
"""The properties of an ordinary event, as JSON."""

RECORD = '{"endpoint":'
"""How a line begins with which a destination hands on a record: that line is data, and no word about it."""


def leaks(text: str, *, names: bool = False) -> list[str]:
    """Return which of them a text holds, as they are or encoded. With `names` a property's name is no leak."""
    told = "\n".join(line for line in text.splitlines() if not line.startswith(RECORD))
    wanted = (SECRET, PERSON, VALUE) if names else (SECRET, PERSON, VALUE, NAME)
    return [canary for canary in wanted if any(form in told for form in _forms(canary))]


def check(text: str, what: str, *, names: bool = False) -> None:
    """Fail if a text holds one of them. `names` is for a refusal that is told to whoever sent the record."""
    found = leaks(text, names=names)
    assert not found, f"{what} tells {found}:\n{text}"


def _forms(canary: str) -> Iterator[str]:
    yield canary
    yield quote(canary)
    data = canary.encode()
    for shift, spoilt in enumerate((0, 2, 3)):  # bytes in front of it, and the characters in which those have a share
        encoded = base64.b64encode(bytes(shift) + data).decode()
        yield encoded[spoilt : (shift + len(data)) * 8 // 6]
