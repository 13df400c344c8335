"""A file that is there when it is complete, and not at all before."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from walbatch.errors import StorageFailed, WalbatchError
from walbatch.wal.files import fsync


class Occupied(WalbatchError):
    """There is such a file already. It was left as it is; name another one."""


@contextmanager
def written(target: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """Yield a file to write; with the end of the block it is on the disk under its name, for its owner only.

    Until then it has a name that ends with `.partial`; an error removes it, a kill leaves it.

    Raises:
        Occupied: there is such a file, and it is not to be replaced.
        StorageFailed: it cannot be written.
    """
    _check(target, replace=replace)
    try:
        descriptor, name = tempfile.mkstemp(prefix=f"{target.name}.", suffix=".partial", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(descriptor)
            _check(target, replace=replace)
            Path(name).replace(target)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
        fsync(target.parent)
    except OSError as error:
        raise StorageFailed(f"{target} cannot be written: {error.strerror}") from error


def _check(target: Path, *, replace: bool) -> None:
    if os.path.lexists(target) and not replace:
        raise Occupied(f"{target} exists; name a file that does not, or say --force to replace it")
