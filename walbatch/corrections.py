"""From what a person made of a stored record to the record that is stored instead. Pure.

The same rules as for a new record, so that a correction is refused for the same reasons. What the person left alone
stays: the time, the ids, the address, and the `$insert_id`, by which Mixpanel knows the event again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from walbatch import wire
from walbatch.errors import InvalidRecord
from walbatch.event import EventId, Kind, Record, insert_id
from walbatch.shapes import shaped

_KINDS = {
    "event": Kind.EVENT,
    "identity_link": Kind.EVENT,
    "profile_update": Kind.PROFILE,
    "group_update": Kind.GROUP,
}


def corrected(record_kind: Kind, document: Mapping[str, Any], *, event_id: str, now_ms: int) -> Record:
    """Build the record of an edited document, which has the shape of a stored payload.

    `event_id` is the stored record's and stays its id. Read the document with `walbatch.json_text.parse`, which tells
    what a quicker reader would round.

    Raises:
        InvalidRecord: It breaks a rule, has a key that no payload has, or is a record of another kind.
    """
    message = shaped(_with_its_id(dict(document), event_id))
    form = message.WhichOneof("kind") or ""
    if _KINDS[form] is not record_kind:
        raise InvalidRecord(form, "OTHER_KIND", f"is no {record_kind.name.lower()}, which the stored record is")
    return wire.record(message, now_ms)._replace(event_id=EventId(event_id))


def _with_its_id(document: dict[str, Any], event_id: str) -> dict[str, Any]:
    """Return a document in which an event has its id."""
    properties = document.get("properties", {})
    if "event" not in document or not isinstance(properties, dict):
        return document
    given = properties.get("$insert_id", event_id)
    if "$insert_id" in properties and not (isinstance(given, str) and insert_id(given) == given):
        raise InvalidRecord(
            "event.properties.$insert_id", "BAD_ID", "must be 1 to 36 letters, digits and hyphens; leave it as it was"
        )
    return document | {"properties": properties | {"$insert_id": given}}
