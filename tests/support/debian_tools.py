"""Programs of Debian's that some tests need."""

from __future__ import annotations

import shutil


def tool(name: str) -> str:
    """Return where a program is, or fail: a check that was left out would look like one that passed."""
    path = shutil.which(name)
    assert path, f"{name} is not installed; tests/deploy/tools.sh installs it"
    return path
