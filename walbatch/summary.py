"""One sentence that says how delivery is doing, for whoever was woken up by it. Pure.

It is made from the document of `walbatch.stats`, and has counts, names of destinations, statuses and times in UTC. Of
what a destination has answered it has only the status, since its own words may quote a record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from walbatch.errors import LogClosed
from walbatch.units import format_bytes, rough_count, rough_duration

MOST_NAMED = 3
"""Destinations in trouble that a sentence names; of the others it has the number."""

_ANSWER = re.compile(r"(?P<status>[0-9]{3})\b[^,:]*(?:, (?P<remark>[^:]*))?")
"""What is stored of a bad answer: its status, our remark, and after a colon words of the destination."""

Document = Mapping[str, Any]


def sentence(document: Document) -> str:
    """Return what there is to know at a glance: whether records are taken and delivered, since when not, what waits."""
    if not document["serving"]:
        return _not_serving(document)
    storage = document["storage"]
    if storage["reason"] == LogClosed.reason:
        return f"The log is in use, but no server answers. {_pending(document)}."
    refusal = "" if storage["accepting"] else f"New records are refused: {storage['detail']}. "
    destinations = document["destinations"]
    troubled = [one for one in destinations if standing(one) != "ok"]
    if not troubled:
        return f"{refusal}Delivering. {_pending(document)}."
    fine = len(destinations) - len(troubled)
    others = f"Delivering to {fine} of {len(destinations)} destinations; " if fine else ""
    trouble = "; ".join(_trouble(one, document["at"]) for one in troubled[:MOST_NAMED])
    more = len(troubled) - MOST_NAMED
    rest = f"; and {more} more in trouble" if more > 0 else ""
    return f"{refusal}{others}{trouble}{rest}; {_buffered(document)}."


def standing(destination: Document) -> str:
    """Return how a destination is doing, in a word or three: for tables.

    `paused` is the pause of a person; what the log calls the state `paused` is here that it needs one.
    """
    if destination["paused_at"]:
        return "paused"
    state: str = destination["state"]
    return "needs a person" if state == "paused" else state


def _not_serving(document: Document) -> str:
    paused = ", ".join(one["name"] for one in document["destinations"] if one["paused_at"])
    if not document["pending"]:
        return f"Not serving. {_pending(document)}{f'; paused by a person: {paused}' if paused else ''}."
    held = f", to {paused} after `walbatch resume`: paused by a person" if paused else ""
    return f"Not serving. {_pending(document)}; what is pending goes out after `walbatch serve`{held}."


def _pending(document: Document) -> str:
    if not document["pending"]:
        return "Nothing is pending"
    return f"{rough_count(document['pending'])} pending, oldest {rough_duration(document['oldest_pending_age_s'])}"


def _buffered(document: Document) -> str:
    if not document["pending"]:
        return "nothing is pending"
    records = "record" if document["pending"] == 1 else "records"
    limit = document["max_backlog_bytes"]
    size = format_bytes(document["pending_bytes"]) + (f" of {format_bytes(limit)}" if limit else "")
    return f"nothing is lost, {rough_count(document['pending'])} {records} buffered, {size}"


def _trouble(destination: Document, at: str) -> str:
    name = destination["name"]
    if destination["paused_at"]:
        return f"{name} is paused by a person{_since(destination['paused_at'], at)}, until `walbatch resume`"
    error = destination["last_error"] or ""
    answer = _ANSWER.match(error)
    what, remark = (f"answers {answer['status']}", answer["remark"] or "") if answer else ("fails", error)
    if destination["state"] == "paused":
        remark = f"a person is needed: {remark}" if remark else "a person is needed"
    parts: Sequence[str] = (f"{name} {what}{_since(destination['failing_since'], at)}", remark, _next_try(destination))
    return ", ".join(part for part in parts if part)


def _next_try(destination: Document) -> str:
    wait_s = destination["retry_in_s"]
    return f"next try in {rough_duration(wait_s)}" if wait_s else "trying again"


def _since(moment: str | None, now: str) -> str:
    """Return a moment as ` since 14:02 UTC`, with its day if that is not today's; nothing if it is not known."""
    if moment is None:
        return ""
    then = datetime.fromisoformat(moment)
    today = then.date() == datetime.fromisoformat(now).date()
    return f" since {then:%H:%M} UTC" if today else f" since {then:%Y-%m-%d %H:%M} UTC"
