"""Compare the list of packages in pyproject.toml with the folders that hold Python files.

`make lint` runs this on the sources: a package that is not listed works in an editable install, and is missing from
the wheel.
"""

import sys
import tomllib
from pathlib import Path


def listed(root: Path) -> set[str]:
    """Return the packages that pyproject.toml lists."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    return set(settings["tool"]["setuptools"]["packages"])


def found(root: Path) -> set[str]:
    """Return the packages that the mapped folders hold."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    packages = set()
    for name, folder in settings["tool"]["setuptools"]["package-dir"].items():
        for file in (root / folder).rglob("*.py"):
            packages.add(".".join([name, *file.parent.relative_to(root / folder).parts]))
    return packages


def main(root: Path) -> str | None:
    """Return what is wrong, for the exit."""
    unlisted, missing = found(root) - listed(root), listed(root) - found(root)
    if unlisted or missing:
        return f"pyproject.toml, tool.setuptools.packages: add {sorted(unlisted)}, remove {sorted(missing)}"
    return None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
