"""Which destinations a record is for. Pure.

A destination takes everything, or what its filter lets through. What a filter keeps back is not owed: it is neither
sent nor counted for that destination. Filters hold for what is accepted after they were set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property, lru_cache

from walbatch.event import Kind, Record
from walbatch.rules import IDENTITY_EVENTS


@dataclass(frozen=True)
class Filter:
    """What a destination wants. Patterns are those of file names: `*`, `?`, `[ab]`; upper and lower case differ."""

    only: Sequence[str] = ()
    """Patterns of event names; empty means all. Those that say who is who always pass: without them the others would
    belong to strangers."""
    never: Sequence[str] = ()
    """Patterns of event names that are kept back, also those of identity events."""
    kinds: frozenset[Kind] = frozenset(Kind)

    def wants(self, kind: Kind, name: str) -> bool:
        """Say whether a record of this kind and name is for the destination. Names count for events alone."""
        if kind not in self.kinds:
            return False
        if kind is not Kind.EVENT:
            return True
        if self._never and self._never.match(name):
            return False
        return self._only is None or name in IDENTITY_EVENTS or self._only.match(name) is not None

    @cached_property
    def _only(self) -> re.Pattern[str] | None:
        return _any_of(self.only)

    @cached_property
    def _never(self) -> re.Pattern[str] | None:
        return _any_of(self.never)


EVERYTHING = Filter()


class Router:
    """Sends each record to the destinations whose filters want it; a destination without one wants everything."""

    def __init__(self, filters: Mapping[str, Filter]) -> None:
        self._given = dict(filters)
        self._filters = {name: one for name, one in filters.items() if one != EVERYTHING}
        self._wanted = lru_cache(maxsize=10_000)(self._want)

    def knowing(self, names: Iterable[str]) -> Router:
        """Return a router that knows these destinations as well: those that are not served now want everything."""
        return Router(dict.fromkeys(names, EVERYTHING) | self._given)

    def destinations(self, record: Record) -> frozenset[str] | None:
        """Return the names of those that it is for, or None if it is for all, whoever they are."""
        if record.destination:
            return frozenset({record.destination})
        if not self._filters:
            return None
        return self._wanted(record.kind, record.name)

    def _want(self, kind: Kind, name: str) -> frozenset[str] | None:
        refused = {one for one, rule in self._filters.items() if not rule.wants(kind, name)}
        return frozenset(self._given) - refused if refused else None


def _any_of(patterns: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(translate(pattern) for pattern in patterns)) if patterns else None
