"""A verdict for monitoring, by the conventions of Nagios plugins: a level, one line, and figures behind a bar. Pure.

critical   not serving; new records are refused; beyond a limit that was given
warning    a destination does not answer well, or is paused by a person; dead letters wait for a person
unknown    nothing could be read
ok         else
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from walbatch.summary import standing
from walbatch.units import rough_duration


class Level(IntEnum):
    """How bad it is; the value is the exit code."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """What is critical beyond: the age of the oldest pending record in seconds, and how many may be pending."""

    max_age_s: float | None = None
    max_pending: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A level, and the line to print."""

    level: Level
    line: str


def judge(document: Mapping[str, Any], limits: Limits) -> Verdict:
    """Judge the document of `walbatch.stats`."""
    found = [*_reasons(document, limits)]
    level = max((level for level, _ in found), default=Level.OK)
    text = "".join(f"{reason}. " for _, reason in sorted(found, reverse=True) if reason)
    return _verdict(level, text + document["summary"], _figures(document, limits))


def unknown(why: str) -> Verdict:
    """Return the verdict where there is no document."""
    return _verdict(Level.UNKNOWN, why, "")


def _reasons(document: Mapping[str, Any], limits: Limits) -> Iterator[tuple[Level, str]]:
    """Yield what is wrong, in words as far as the summary does not have them."""
    if not document["serving"] or not document["storage"]["accepting"]:
        yield Level.CRITICAL, ""
    age_s, pending, dead = document["oldest_pending_age_s"], document["pending"], document["dead"]
    if limits.max_age_s is not None and age_s > limits.max_age_s:
        limit = rough_duration(limits.max_age_s)
        yield Level.CRITICAL, f"The oldest pending record is {rough_duration(age_s)} old, more than {limit}"
    if limits.max_pending is not None and pending > limits.max_pending:
        yield Level.CRITICAL, f"{pending:,} are pending, more than {limits.max_pending:,}"
    if any(standing(destination) != "ok" for destination in document["destinations"]):
        yield Level.WARNING, ""
    if dead:
        letters = "1 dead letter waits" if dead == 1 else f"{dead:,} dead letters wait"
        yield Level.WARNING, f"{letters} for a person"


def _figures(document: Mapping[str, Any], limits: Limits) -> str:
    """Return `label=value[unit];warning;critical;minimum;maximum`; `c` is the unit of what only grows."""
    lanes = [lane for destination in document["destinations"] for lane in destination["lanes"]]
    delivered = sum(lane["sent"] + lane["purged"] for lane in lanes)
    age = "" if limits.max_age_s is None else f"{limits.max_age_s:g}"
    pending = "" if limits.max_pending is None else str(limits.max_pending)
    return " ".join(
        (
            f"pending={document['pending']};;{pending};0;",
            f"oldest_pending_age={document['oldest_pending_age_s']:.3f}s;;{age};0;",
            f"pending_bytes={document['pending_bytes']}B;;;0;{document['max_backlog_bytes'] or ''}",
            f"in_flight={document['in_flight']};;;0;",
            f"dead={document['dead']};0;;0;",
            f"accepted={document['accepted']}c;;;0;",
            f"delivered={delivered}c;;;0;",
        )
    )


def _verdict(level: Level, text: str, figures: str) -> Verdict:
    line = " ".join(text.replace("|", "/").split())  # the bar ends the text, and a second line would be another output
    return Verdict(level, f"{level.name} - {line}" + (f" | {figures}" if figures else ""))
