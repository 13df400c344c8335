"""Every exception that walbatch raises on purpose, in four branches: one for each way to react.

    InvalidRecord        fix the request     the record can never be stored as it is
    Unavailable          retry later         nothing is wrong with the request
    ConfigurationError   fix the settings    the process exits with 78
    FatalError           stop the process    the leaf says with which exit code

Exceptions of other libraries are translated where that library is used, and go no further.
"""

from __future__ import annotations

from typing import TypeVar

E = TypeVar("E", bound=BaseException)


class WalbatchError(Exception):
    """Base of all of them. Its text is meant for people: what is wrong, and what to do."""

    exit_code = 1


class InvalidRecord(WalbatchError):
    """A record breaks a rule. Correct the named field; sending it again unchanged will fail again.

    `field` is a path within the record (`event.name`), `reason` a stable UPPER_SNAKE word.
    """

    def __init__(self, field: str, reason: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.reason = reason
        self.description = description


class Unavailable(WalbatchError):
    """Not now. Send the same records with the same ids again after `retry_after_s` seconds."""

    reason = "UNAVAILABLE"
    retry_after_s = 1.0


class CommitFailed(Unavailable):
    """The commit raised, so its outcome is unknown: the records may be stored. Sending them again is safe."""

    reason = "COMMIT_FAILED"


class LogClosed(Unavailable):
    """The log is closing or closed. The records were not stored; another process will take them."""

    reason = "SHUTTING_DOWN"


class NoRoom(Unavailable):
    """New records are refused before anything breaks. Nothing was stored; delivery goes on; it ends by itself."""

    retry_after_s = 30.0


class BacklogFull(NoRoom):
    """As much is waiting for a destination as may wait."""

    reason = "BACKLOG_FULL"


class DiskFull(NoRoom):
    """The disk is full, or nearly: what is left is for noting what was delivered."""

    reason = "DISK_FULL"


class WalHeld(NoRoom):
    """SQLite's log has grown to its limit, because somebody has been reading the database all the time."""

    reason = "WAL_HELD"


class Overloaded(NoRoom):
    """More waits for the disk than may be kept in memory: it is slow, or hangs."""

    reason = "OVERLOADED"
    retry_after_s = 1.0


class TooLong(WalbatchError):
    """A long read was ended, so that SQLite's log could be trimmed. Ask for less at a time."""


class MeasurementFailed(WalbatchError):
    """A measurement did not come to its end, or contradicts itself. There is no figure of it."""


class ConfigurationError(WalbatchError):
    """A setting is wrong or missing. The text names the key as the user typed it."""

    exit_code = 78


class SchemaTooNew(ConfigurationError):
    """The database was written by a newer walbatch. Nothing was changed; run that version, or a newer one."""


class AffectedSqlite(ConfigurationError):
    """This SQLite has the WAL-reset bug (https://sqlite.org/wal.html#walresetbug) and can lose committed rows."""


class FatalError(WalbatchError):
    """The process must stop: going on could break a promise."""


class LogLocked(FatalError):
    """Another process serves this data directory. The text names it."""

    exit_code = 75


class CorruptLog(FatalError):
    """The database is not one of ours, or is damaged. It was left untouched."""

    exit_code = 65


class StorageFailed(FatalError):
    """The disk refuses to store, or stores into files that are gone. Nothing was acknowledged since."""

    exit_code = 74


def without_frames(error: E) -> E:
    """Part an error, and those that it came from, from the frames that they passed; return it.

    For an error that is kept by what one of its frames, or a caller of theirs, can reach: a call's context, a group's
    answers. They would keep each other, and megabytes of records, until Python looks for cycles.
    """
    passed: BaseException | None = error
    while passed is not None:
        passed.__traceback__ = None
        passed = passed.__context__
    return error
