"""The window in which a repeated id is recognised."""

from __future__ import annotations

from collections import OrderedDict

from walbatch.event import EventId, Offset, Record

WINDOW = 50_000
"""How many of the newest records are remembered: about 10 MB. An older id that comes again is stored again, with the
same `$insert_id`, and Mixpanel deduplicates it."""


class RecentIds:
    """Finds the earlier copy of a record. It knows only what is durable: `remember` is called after the commit.

    The same id under another name, user or time is another event to Mixpanel, so it is stored, never dropped. A
    record without a time of its own matches any time, since a repeated request cannot know the first one's.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._known: OrderedDict[EventId, tuple[int, int, Offset]] = OrderedDict()

    def find(self, record: Record) -> Offset | None:
        """Return where the record already is, or None. A replay is a repetition on purpose: never found."""
        known = self._known.get(record.event_id)
        if known is None or record.replay_of is not None:
            return None
        who, time_ms, offset = known
        same = who == hash((record.name, record.distinct_id)) and (not record.time_given or time_ms == record.time_ms)
        return offset if same else None

    def remember(self, event_id: EventId, name: str, distinct_id: str, time_ms: int, offset: Offset) -> None:
        """Add a stored record, and forget the oldest beyond the window."""
        self._known[event_id] = (hash((name, distinct_id)), time_ms, offset)
        self._known.move_to_end(event_id)
        if len(self._known) > self._window:
            self._known.popitem(last=False)
