"""A file that is complete or not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from log_records import mode, modes_in

from walbatch.errors import StorageFailed
from walbatch.whole_file import Occupied, written


def test_it_has_its_name_at_the_end(tmp_path: Path) -> None:
    """Until then something else is there under another name; its owner alone may read it, then and before."""
    target = tmp_path / "records.ndjson"
    with written(target, replace=False) as file:
        file.write(b"a")
        assert not target.exists()
        ((partial, rights),) = modes_in(tmp_path).items()
        assert (partial.endswith(".partial"), rights) == (True, 0o600)
    assert (target.read_bytes(), mode(target)) == (b"a", 0o600)
    assert list(tmp_path.iterdir()) == [target]


def fail(target: Path, error: BaseException) -> None:
    """Write something, and break off."""
    with written(target, replace=True) as file:
        file.write(b"a")
        raise error


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    """Not even of what was to be replaced is anything changed."""
    target = tmp_path / "records.ndjson"
    target.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt):
        fail(target, KeyboardInterrupt())
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def put(target: Path, link: Path | None = None, *, replace: bool = False) -> None:
    """Write a file; meanwhile, if told so, somebody puts a link in its place."""
    with written(target, replace=replace) as file:
        file.write(b"b")
        if link is not None:
            target.symlink_to(link)


def test_nothing_is_replaced_unless_it_is_said(tmp_path: Path) -> None:
    """Also what appears meanwhile stays, and a link that leads nowhere."""
    target = tmp_path / "records.ndjson"
    with pytest.raises(Occupied, match="--force"):
        put(target, tmp_path / "nowhere")
    with pytest.raises(Occupied):
        put(target)
    assert list(tmp_path.iterdir()) == [target]
    put(target, replace=True)
    assert (target.is_symlink(), target.read_bytes()) == (False, b"b")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The message has the path and the system's reason."""
    with pytest.raises(StorageFailed, match=r"missing/a cannot be written: No such file"):
        put(tmp_path / "missing" / "a")
