"""What in a data directory is a database."""

from __future__ import annotations

from pathlib import Path

from walbatch.wal.files import DATABASE_FILE, other_files


def test_copies_are_named_and_files_of_others_are_not(tmp_path: Path) -> None:
    """Backups, copies before an update and what was rescued; not another log's directory, and not what sounds alike."""
    copies = ["copy.db", "events.db.before-v3", "events.db.rescued-1", "old.db-wal", "below/copy.db.partial"]
    others = ["notes.dbx", "db", "walbatch.lock", "other/walbatch.lock", "other/events.db", "other/below/copy.db"]
    live = [DATABASE_FILE, f"{DATABASE_FILE}-wal", f"{DATABASE_FILE}-shm"]
    for name in (*copies, *others, *live):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert other_files(tmp_path / DATABASE_FILE) == sorted(tmp_path / name for name in copies)
