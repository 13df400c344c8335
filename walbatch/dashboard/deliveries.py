"""The last batches that were answered, and how many records were delivered since the start. Kept in memory, pure."""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

from walbatch.delivery import Answered

KEPT = 50

_OURS = re.compile(r"[0-9]{3}(?:: refused [^:]*)?")
_STATUS = re.compile(r"([0-9]{3}\b[^:]*):.*")
"""What is noted of a bad answer: its status and our remark, and after a colon the destination's words."""


class Delivery(NamedTuple):
    """One batch and the answer to it. `number` is 1, 2, 3, ... since the start of the server."""

    number: int
    answered: Answered


class Deliveries:
    """Fed by `observe`, with every batch of every destination."""

    def __init__(self) -> None:
        self._recent: deque[Delivery] = deque(maxlen=KEPT)
        self._number = 0
        self.sent = 0
        """Records delivered since the start: the counts of the log also shrink, when something is erased."""

    def observe(self, answered: Answered) -> None:
        """Remember one answer, and forget the one before the last 50."""
        self._number += 1
        self.sent += answered.sent
        self._recent.append(Delivery(self._number, answered))

    def after(self, number: int) -> list[Delivery]:
        """Return what is kept and has a higher number, oldest first; 0 returns all."""
        return [delivery for delivery in self._recent if delivery.number > number]


def in_brief(answered: Answered) -> str:
    """Return the answer without the destination's own words, which may quote a record: those are for its letters."""
    text = answered.answer
    if answered.outcome == "delivered" or (answered.outcome == "partial" and _OURS.fullmatch(text)):
        return text
    if answered.outcome == "partial":
        return "refused" if answered.dead else "not known"
    return _STATUS.sub(r"\1", text)
