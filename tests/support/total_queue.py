"""The checker of the crash tests, after Jepsen's total-queue: what went in against what came out, at the end.

lost         acknowledged, and not delivered          must be empty
unexpected   delivered, and never attempted           must be empty
recovered    attempted without an answer, delivered   allowed: the outcome was unknown
duplicated   delivered more than once                 allowed, if every copy has the same bytes
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Sets of event ids. `altered` are those whose copies differ."""

    attempted: set[str]
    acked: set[str]
    lost: set[str]
    unexpected: set[str]
    recovered: set[str]
    duplicated: set[str]
    altered: set[str]

    def summary(self) -> str:
        """Return the counts in a line."""
        return ", ".join(f"{name} {len(ids)}" for name, ids in vars(self).items())


def judge(client_logs: Iterable[str], delivered_lines: Iterable[str]) -> Verdict:
    """Compare the logs of the clients (`attempt ID`, `ack ID` a line) with the file of the fake Mixpanel."""
    attempted: set[str] = set()
    acked: set[str] = set()
    for log in client_logs:
        for line in log.splitlines():
            word, _, event_id = line.partition(" ")
            (acked if word == "ack" else attempted).add(event_id)
    copies: defaultdict[str, list[str]] = defaultdict(list)
    for line in delivered_lines:
        copies[json.loads(line)["record"]["properties"]["$insert_id"]].append(line)
    delivered = copies.keys()
    return Verdict(
        attempted=attempted,
        acked=acked,
        lost=acked - delivered,
        unexpected=delivered - attempted,
        recovered=(attempted - acked) & delivered,
        duplicated={event_id for event_id, lines in copies.items() if len(lines) > 1},
        altered={event_id for event_id, lines in copies.items() if len(set(lines)) > 1},
    )
