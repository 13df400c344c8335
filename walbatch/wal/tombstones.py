"""Who was erased, and until when: what comes late is refused, so that nobody comes back by a retry or a replay.

Only keyed hashes are kept, with a key that this log alone has. Whoever has the whole database can still try ids that
they know: it is a pseudonym, which is as little as refusing takes.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from walbatch.errors import InvalidRecord
from walbatch.event import Record, described
from walbatch.person import bare, named

KEY_BYTES = 32


class Tombstone(NamedTuple):
    """One erased person. What has a time up to `erased_at_ms` is not taken again."""

    id_hash: bytes
    erased_at_ms: int


class Tombstones:
    """Knows every erased person of a log."""

    def __init__(self, key: bytes, stones: Iterable[Tombstone] = ()) -> None:
        self._key = key
        self._erased_at_ms = dict(stones)
        self._latest_ms = max(self._erased_at_ms.values(), default=-1)

    def add(self, people: Iterable[str], now_ms: int) -> list[Tombstone]:
        """Refuse from now on what these people did up to now, and return what is to be stored."""
        stones = []
        for one in people:
            id_hash = self._hash(one)
            stone = Tombstone(id_hash, max(now_ms, self._erased_at_ms.get(id_hash, now_ms)))
            stones.append(stone)
            self._erased_at_ms[id_hash] = stone.erased_at_ms
            self._latest_ms = max(self._latest_ms, stone.erased_at_ms)
        return stones

    def refusal(self, record: Record) -> InvalidRecord | None:
        """Return why a record is not taken: it is of an erased person, and happened before that. None if it is taken.

        What is new costs a comparison: only a record that is older than the last erasure is looked into.
        """
        if record.time_ms > self._latest_ms and record.replay_of is None:
            return None
        payload = orjson.loads(record.payload)
        _, _, time_ms = described(record.kind, payload)  # of a copy it is the original's
        for one, field in named(record.kind, payload).items():
            erased_at_ms = self._erased_at_ms.get(self._hash(one))
            if erased_at_ms is not None and time_ms <= erased_at_ms:
                at = datetime.fromtimestamp(erased_at_ms / 1000, UTC).isoformat(timespec="milliseconds")
                return InvalidRecord(
                    field, "ERASED", f"is a person who was erased at {at}; what happened up to then is not taken again"
                )
        return None

    def _hash(self, person: str) -> bytes:
        return hmac.digest(self._key, bare(person).encode(), "sha256")
