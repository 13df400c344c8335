"""What a destination can answer, and what becomes of each record.

    answer to a request    record by record          the destination
    -------------------    ----------------------    -----------------------------------------------
    Settled(outcomes)      Delivered or Rejected     works: the breaker closes
    Split                  ask again about halves;   works
                           a refused single record
                           is Rejected
    Hold                   Retry                     backs off, then asks again: for as long as it takes
    Pause                  Retry                     needs a person; probed slowly

An outage is never a verdict: only `Rejected`, the destination's own word on this one record, makes a dead letter.
Where the answer leaves open whether the records were taken (`unknown`), an update that would count twice may become
`Unknown` instead of `Retry`, if the destination's policy says so; a person then decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Delivered:
    """The destination has the record."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Nothing is known, or it is not the record's fault: it stays pending."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The destination refuses this very record, for good, and says why."""

    code: int
    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The destination may have the record, and having it twice would be wrong: it is held for a person to decide."""

    reason: str


Outcome = Delivered | Retry | Rejected | Unknown

DELIVERED = Delivered()
RETRY = Retry()


def all_delivered(outcomes: Sequence[Outcome]) -> bool:
    """Say whether every record arrived: nearly always so, and then found out without a look at each one's type."""
    return outcomes.count(DELIVERED) == len(outcomes)


@dataclass(frozen=True, slots=True)
class Settled:
    """One `Delivered` or `Rejected` for each record of the request, by position."""

    outcomes: Sequence[Delivered | Rejected]
    note: str = "200"
    """What to keep of the answer in the delivery's history."""
    warning: bool = False
    """Whether the answer does not add up, so that a person should hear of it."""


@dataclass(frozen=True, slots=True)
class Split:
    """The request as a whole was refused, so ask about its halves. `max_bytes` is the limit the answer named."""

    code: int
    reason: str
    max_bytes: int | None = None
    unknown: bool = False
    """Whether some of the records may have been taken all the same."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Back off. `after_s` is the destination's own wish, in seconds, already clamped."""

    reason: str
    after_s: float | None = None
    unknown: bool = False
    """Whether the records may have been taken: the request was sent, and its answer is missing or says nothing."""
    throttled: bool = False
    """Whether the destination asks for less at a time."""


@dataclass(frozen=True, slots=True)
class Untrusted(Hold):
    """A `Hold` because the other side cannot prove who it is, or talks no TLS. It may need a person to end it."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop and raise an alarm: credentials, region or address are wrong. Keep everything."""

    reason: str


Answer = Settled | Split | Hold | Pause

ATTEMPTS = ("delivered", "partial", "failed", "throttled", "paused")
"""What can come of sending a batch: all taken; settled, but some are dead; no answer about records; less is asked for;
a person is needed."""


def attempt_of(answer: Answer, *, whole: bool) -> str:
    """Return which of `ATTEMPTS` the last answer to a batch makes of it; `whole` if every record was delivered."""
    match answer:
        case Settled() | Split():
            return "delivered" if whole else "partial"
        case Hold(throttled=throttled):
            return "throttled" if throttled else "failed"
        case Pause():
            return "paused"


class Answered(NamedTuple):
    """One batch and the answer to it, as it is told to whoever counts or shows deliveries. Nothing is decided by it."""

    destination: str
    lane: str
    finished_at_ms: int
    events: int
    """Records of any kind; the four below are parts of it."""
    sent: int
    dead: int
    held: int
    pending: int
    """To be sent again."""
    payload_bytes: int
    attempt: int
    """1, and one more for each failure of the destination in a row just before."""
    answer: str
    """As it is noted in the delivery's history."""
    duration_s: float
    outcome: str
    """One of `ATTEMPTS`."""
    dead_by_code: Mapping[int, int]
    """How many are dead, by the code of their refusal."""
    oldest_at_ms: int
    """When the record was received that has waited longest."""
