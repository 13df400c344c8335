"""Rows of the fault matrix that need root and the tools that tools.sh installs; elsewhere each is skipped, by name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from file_systems import mount_for_ourselves

TOOLS = ("mkfs.ext4", "mkfs.xfs", "mount", "umount", "mountpoint")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run here, and say why. `.ci/run` takes no skip for an answer."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    reason = ""
    if os.geteuid() != 0:
        reason = "needs root"
    elif missing:
        reason = f"needs {', '.join(missing)}; tests/privileged/tools.sh installs them"
    elif not Path("/dev/loop-control").exists():
        reason = "needs loop devices"
    for item in items:
        if reason and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def own_mounts() -> None:
    """Give the tests mounts of their own."""
    mount_for_ourselves()
