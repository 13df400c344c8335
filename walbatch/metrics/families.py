"""Every metric by name: type, labels with the values that they can have, meaning, and what to do when it moves.

`docs/metrics.md` is generated from this by `walbatch.metrics.page`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from walbatch.delivery import ATTEMPTS
from walbatch.retry import State
from walbatch.wal import LANES

METHODS = ("TrackEvent", "IdentifyUser", "Ingest", "IngestStream")
"""The calls that bring records."""

CODES = ("OK", "CANCELLED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN")
"""What a call can end with; any other status is counted as `UNKNOWN`."""

OTHER = "OTHER"
"""Stands for a reason that is not listed."""

REJECTIONS = (
    *("BAD_ID", "BAD_NAME", "BATCH_TOO_LARGE", "CONFLICT", "DROPPED", "ERASED", "INTEGER_TOO_LARGE", "IN_THE_FUTURE"),
    *("NOT_AN_ARRAY", "NOT_AN_OBJECT", "NOT_A_NUMBER", "NOT_A_TIME", "NOT_FINITE", "NOT_JSON", "NOT_TEXT"),
    *("NOT_UNICODE", "REQUIRED", "RESERVED", "TOO_DEEP", "TOO_EARLY", "TOO_LARGE", "TOO_LONG", "TOO_MANY", "UNKNOWN"),
    OTHER,
)
"""Why a record can be invalid, as the client is told."""

REFUSALS = ("BACKLOG_FULL", "COMMIT_FAILED", "DISK_FULL", "OVERLOADED", "SHUTTING_DOWN", "WAL_HELD", OTHER)
"""Why a valid record can be refused for the moment, as the client is told."""

HELD = "held"
REFUSED_WITH = ("200", "400", "413", "415", "422", OTHER, HELD)
"""Why a record can be dead: the status it was refused with, or that it is held, as it may have arrived."""

CONFIGURED: tuple[str, ...] = ()
"""In place of a label's values: they are known from the settings, or from the installation."""

DISK_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
HTTP_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LAG_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21_600.0, 86_400.0)
RECORDS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0)
BYTES = (1e3, 2.5e3, 5e3, 1e4, 2.5e4, 5e4, 1e5, 2.5e5, 5e5, 1e6, 2e6, 5e6)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. Its name is that of its samples: a counter's ends with `_total`."""

    name: str
    type: str
    """`counter`, `gauge`, `histogram` or `info`."""
    help: str
    """What the number is; also told at each scrape."""
    action: str
    """What to do when it moves."""
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The values that each label can have; `CONFIGURED` where they are names from the settings."""
    buckets: tuple[float, ...] = ()

    @property
    def unit(self) -> str:
        """Return the unit that the name ends with; empty for a plain number."""
        return next((unit for unit in ("seconds", "bytes") if self.name.endswith(f"_{unit}")), "")


_METHOD = {"method": METHODS}
_DESTINATION = {"destination": CONFIGURED}
_LANE = {"destination": CONFIGURED, "lane": tuple(LANES.values())}

TOPICS: dict[str, tuple[Family, ...]] = {
    "Intake": (
        Family(
            "walbatch_events_received_total",
            "counter",
            "Records that clients have sent, of any kind.",
            "None for longer than usual: look at the senders, or at the way from them.",
            _METHOD,
        ),
        Family(
            "walbatch_events_accepted_total",
            "counter",
            "Records stored and fsynced: new ones, and those that were replayed.",
            "It follows what is received. If it does not, one of the next three says why.",
        ),
        Family(
            "walbatch_events_duplicate_total",
            "counter",
            "Records that were stored before, by their id, and answered OK.",
            "A few are retries. Many: a client sends again what was acknowledged, or gives different events one id.",
        ),
        Family(
            "walbatch_events_rejected_total",
            "counter",
            "Records that can never be stored as they are, by the reason that the client was told.",
            "A client has a fault: its own log has the field. Unless it corrects these records, they are lost.",
            {"reason": REJECTIONS},
        ),
        Family(
            "walbatch_events_refused_total",
            "counter",
            "Valid records that were not stored for the moment, by the reason; clients send them again.",
            "`walbatch stats` says why. A client that does not send them again loses these.",
            {"reason": REFUSALS},
        ),
        Family(
            "walbatch_ingest_ack_duration_seconds",
            "histogram",
            "From a request to its records on the disk; for a stream from when its turn has come.",
            "With `walbatch_commit_duration_seconds`: the disk. Without it: the CPU, or very large requests.",
            _METHOD,
            DISK_S,
        ),
        Family(
            "grpc_server_handled_total",
            "counter",
            "Calls that have ended, by status; a call whose client gave up, or ran out of time, is CANCELLED.",
            "UNKNOWN is a fault of walbatch: see its log. CANCELLED: deadlines are short, or the disk is slow.",
            {
                "grpc_type": ("unary", "bidi_stream"),
                "grpc_service": ("analytics.v1.AnalyticsService",),
                "grpc_method": METHODS,
                "grpc_code": CODES,
            },
        ),
    ),
    "The log": (
        Family(
            "walbatch_accepting",
            "gauge",
            "1 while new records are accepted, 0 while they are refused because of the disk or of the backlog.",
            "At 0 `walbatch stats` names the reason. It ends without a restart.",
        ),
        Family(
            "walbatch_commit_duration_seconds",
            "histogram",
            "One transaction with its fsync, in the thread that writes.",
            "The disk is slow, or busy with something else: `walbatch bench` measures it.",
            buckets=DISK_S,
        ),
        Family(
            "walbatch_commit_events",
            "histogram",
            "New records that shared one transaction.",
            "It grows with the load by itself. Ones alone at a high load: a single caller waits for each answer.",
            buckets=RECORDS,
        ),
        Family(
            "walbatch_checkpoint_duration_seconds",
            "histogram",
            "Moving SQLite's log into the database, between two transactions.",
            "As for commits. It holds up those who wait for the next commit.",
            buckets=DISK_S,
        ),
        Family(
            "walbatch_database_bytes",
            "gauge",
            "Size of the database file.",
            "It holds what is pending, dead, or kept for `WALBATCH_RETENTION`; it shrinks after a purge.",
        ),
        Family(
            "walbatch_wal_file_bytes",
            "gauge",
            "Size of SQLite's write-ahead log.",
            "Beyond 100 MB somebody reads the database all the time: end that before `WALBATCH_MAX_WAL_BYTES`.",
        ),
        Family(
            "walbatch_disk_free_bytes",
            "gauge",
            "Free space of the disk that holds the log.",
            "Below `WALBATCH_MIN_FREE_DISK` records are refused. Make room, or shorten `WALBATCH_RETENTION`.",
        ),
        Family(
            "walbatch_backlog_bytes",
            "gauge",
            "Size of the records that wait for the destination that is furthest behind.",
            "It falls when that destination answers again. At the limit new records are refused.",
        ),
        Family(
            "walbatch_backlog_limit_bytes",
            "gauge",
            "Where new records are refused: WALBATCH_MAX_BACKLOG_BYTES.",
            "Raise it before a long outage has filled it, if the disk has room.",
        ),
    ),
    "Delivery": (
        Family(
            "walbatch_events_sent_total",
            "counter",
            "Records that a destination has taken.",
            "It follows what is accepted, for each destination that wants it.",
            _LANE,
        ),
        Family(
            "walbatch_events_dead_total",
            "counter",
            "Records that became dead letters, by the status they were refused with, or held as they may have arrived.",
            "Look with `walbatch dead list`, correct, and replay. Nothing is lost until a person discards it.",
            {**_LANE, "reason": REFUSED_WITH},
        ),
        Family(
            "walbatch_dead_letters",
            "gauge",
            "Dead letters that wait for a person, those that are held included.",
            "`walbatch dead list`. They stay until they are replayed or discarded.",
            _LANE,
        ),
        Family(
            "walbatch_dead_letters_held",
            "gauge",
            "Of these: updates that may have arrived, and would count twice.",
            "Look at the destination whether they are there; then replay them with `--held`, or discard them.",
            _LANE,
        ),
        Family(
            "walbatch_events_pending",
            "gauge",
            "Records that a destination is owed, those in flight included.",
            "Growing: the destination is down, or takes less than comes in. See `walbatch_destination_up`.",
            _LANE,
        ),
        Family(
            "walbatch_events_in_flight",
            "gauge",
            "Records on their way to a destination at this moment.",
            "The same number for minutes: it does not answer, and its time-out is long.",
            _LANE,
        ),
        Family(
            "walbatch_oldest_pending_age_seconds",
            "gauge",
            "How long the oldest pending record has waited; 0 if none is pending.",
            "At rest it stays below `WALBATCH_FLUSH_INTERVAL`. Above some minutes the destination needs a look.",
            _DESTINATION,
        ),
        Family(
            "walbatch_destination_up",
            "gauge",
            "1 while the last answer of a destination was one about records, 0 while it is backed off from.",
            "At 0 `walbatch stats` has its last error. Records wait on the disk, and none is lost.",
            _DESTINATION,
        ),
        Family(
            "walbatch_destination_state",
            "gauge",
            "1 for the state that a destination is in, 0 for the others.",
            "`retrying` and `open` end by themselves. `paused`: the token, the region or the address is wrong.",
            {**_DESTINATION, "state": tuple(State)},
        ),
        Family(
            "walbatch_destination_paused",
            "gauge",
            "1 while a person holds delivery to a destination back, 0 if nobody does.",
            "`walbatch resume` lets it go on. Records wait on the disk, and none is lost.",
            _DESTINATION,
        ),
        Family(
            "walbatch_backoff_until_timestamp_seconds",
            "gauge",
            "When a destination is asked again, as a Unix time; 0 if it is not backed off from.",
            "Nothing: it says when the next attempt is due.",
            _DESTINATION,
        ),
        Family(
            "walbatch_delivery_attempts_total",
            "counter",
            "Batches that were sent and answered, or not answered in time, by what came of it.",
            "`failed`: it is down. `throttled`: it asks for less. `paused`: see its state. `partial`: dead letters.",
            {**_LANE, "outcome": ATTEMPTS},
        ),
        Family(
            "walbatch_delivery_duration_seconds",
            "histogram",
            "From sending a batch to the answer that settled it, with all requests that it took.",
            "The destination or the way to it is slow. Larger batches help against distance: `WALBATCH_BATCH_MAX`.",
            _DESTINATION,
            HTTP_S,
        ),
        Family(
            "walbatch_delivery_lag_seconds",
            "histogram",
            "From the receipt of the oldest record of a batch to the answer that took records of it.",
            "At rest about `WALBATCH_FLUSH_INTERVAL`; after an outage as long as that was, until the backlog is gone.",
            _DESTINATION,
            LAG_S,
        ),
        Family(
            "walbatch_batch_events",
            "histogram",
            "Records of a batch that was sent.",
            "Above `WALBATCH_BATCH_SIZE` delivery catches up. Ones: `WALBATCH_FLUSH_INTERVAL` is short.",
            _DESTINATION,
            RECORDS,
        ),
        Family(
            "walbatch_batch_bytes",
            "histogram",
            "Payload of a batch that was sent, before compression.",
            "Nothing by itself: large events make small batches.",
            _DESTINATION,
            BYTES,
        ),
    ),
    "The process": (
        Family(
            "walbatch_build_info",
            "info",
            "1, with the versions of walbatch, Python and SQLite.",
            "Compare it before and after an update.",
            {"version": CONFIGURED, "python": CONFIGURED, "sqlite": CONFIGURED},
        ),
    ),
}
"""Every family of ours. `process_*`, of the client library, come on top of them."""


def families() -> dict[str, Family]:
    """Return every family by the name of its samples."""
    return {family.name: family for topic in TOPICS.values() for family in topic}
