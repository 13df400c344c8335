"""The window in which a repeated id is recognised."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from walbatch.event import EventId, Offset, Record

WINDOW = 50_000
"""How many of the newest records are remembered: about 10 MB. An older id that comes again is stored again, with the
same `$insert_id`, and Mixpanel deduplicates it."""


Key = tuple[EventId, int]


def key_of(event_id: EventId, name: str, distinct_id: str) -> Key:
    """Return what makes a record the same as another one, but for its time.

    A hash in place of two texts halves the window's memory. A collision needs the same id as well.
    """
    return event_id, hash((name, distinct_id))


class RecentIds:
    """Finds the earlier copy of a record. It knows only what is durable: `remember` is called after the commit.

    The same id under another name, user or time is another event to Mixpanel, so it is stored, never dropped. A
    record without a time of its own matches any time, since a repeated request cannot know the first one's.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self.window = window
        self._known: OrderedDict[Key, tuple[int, Offset]] = OrderedDict()

    def find(self, key: Key, record: Record) -> Offset | None:
        """Return where the record of this key already is, or None. A replay is a repetition on purpose: never found."""
        known = self._known.get(key)
        if known is None or record.replay_of is not None:
            return None
        time_ms, offset = known
        return None if record.time_given and record.time_ms != time_ms else offset

    def forget(self, offsets: Collection[Offset]) -> None:
        """Forget records that are stored no more."""
        for key in [key for key, (_, offset) in self._known.items() if offset in offsets]:
            del self._known[key]

    def remember(self, key: Key, time_ms: int, offset: Offset) -> None:
        """Add a stored record, and forget the oldest beyond the window."""
        known = self._known
        if key in known:
            del known[key]  # it goes to the end
        known[key] = (time_ms, offset)
        if len(known) > self.window:
            known.popitem(last=False)
