"""Rows of the fault matrix that need root and the tools that tools.sh installs; elsewhere each is skipped, by name."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

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


NEW_MOUNT_NAMESPACE = 0x00020000
"""CLONE_NEWNS of linux/sched.h."""


@pytest.fixture(scope="session", autouse=True)
def own_mounts() -> None:
    """Give the tests mounts of their own, which go with the last of their processes, however that ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(NEW_MOUNT_NAMESPACE) == 0, os.strerror(ctypes.get_errno())
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
