"""Whether the disk that is measured is one that can keep what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from walbatch.diagnosis import Status
from walbatch.disk_speed import IMPLAUSIBLE_MS, Fdatasync
from walbatch.doctor import file_system


def warnings(directory: Path, disk: Fdatasync) -> Iterator[str]:
    """Yield why the figures of this directory may mean nothing."""
    finding = file_system(directory)
    if finding.status is not Status.OK:
        yield f"{finding.text}: {finding.fix}"
    if disk.p50_ms < IMPLAUSIBLE_MS:
        yield (
            f"fdatasync takes {disk.p50_ms * 1000:.0f} us, which is no disk: nothing here survives a power cut, and"
            " these figures say nothing about a disk"
        )
