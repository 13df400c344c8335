"""What is installed is what was meant to be, and the locks hold nothing that is known to be broken."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, files, metadata, packages_distributions
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")

MINIMUM = {
    "aiosqlite": "0.22.1",  # warns of a connection that was never closed
    "certifi": "2024.7.4",  # CVE-2024-39689
    "grpcio": "1.68.1",  # CVE-2024-7246 and CVE-2024-11407
    "h11": "0.16.0",  # CVE-2025-43859
    "httpcore": "1.0.9",  # requires that h11
    "httpx": "0.28.1",  # the last release
    "idna": "3.7",  # CVE-2024-3651
    "protobuf": "6.33.5",  # CVE-2026-0994 and CVE-2025-4565
    "pysqlite3": "0.6.1",  # brings SQLite 3.53.4, without the WAL-reset bug
}
"""The oldest releases without a known fault that could reach us."""

FORBIDDEN = {"pysqlite3-binary"}
"""Named like what we use, but with an old SQLite."""


def project() -> dict[str, Any]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def installed() -> list[PurePosixPath]:
    """Return the files that the installed distribution put into site-packages."""
    return [PurePosixPath(file) for file in files("walbatch") or [] if file.parts[0] == "walbatch"]


def requirements(lock: str) -> list[str]:
    """Return the entries of a lock, each on one line with its hashes, without comments."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / lock).read_text(), flags=re.MULTILINE)
    return text.replace("\\\n", " ").splitlines()


def pins(lock: str) -> dict[str, Version]:
    """Return name and version of each entry of a lock."""
    parsed = [Requirement(line.split(" --hash=")[0]) for line in requirements(lock)]
    return {canonicalize_name(entry.name): Version(str(entry.specifier).removeprefix("==").strip()) for entry in parsed}


def test_walbatch_is_the_only_name_it_takes() -> None:
    """The folders cli and migrations are packages below walbatch, and no package of their own."""
    taken = {name for name, owners in packages_distributions().items() if "walbatch" in owners}

    assert taken == {"walbatch"}


def test_every_listed_package_is_installed() -> None:
    """The wheel holds the packages that pyproject.toml lists, and no other."""
    packages = {".".join(file.parent.parts) for file in installed() if file.name == "__init__.py"}

    assert packages == set(project()["tool"]["setuptools"]["packages"])


def test_the_command_is_installed() -> None:
    """The wheel's entry point is the one that pyproject.toml names, and it can be loaded."""
    (script,) = entry_points(group="console_scripts", name="walbatch")

    assert script.value == project()["project"]["scripts"]["walbatch"]
    assert callable(script.load())


@pytest.mark.parametrize(
    "pattern",
    [
        "walbatch/py.typed",
        "walbatch/migrations/*.sql",
        "walbatch/pb/analytics/v1/*.pyi",
        "walbatch/dashboard/static/*.html",
    ],
)
def test_files_that_are_no_python_are_installed(pattern: str) -> None:
    """The migrations and the types come with the wheel."""
    assert [file for file in installed() if file.match(pattern)]


def test_the_licence_is_installed() -> None:
    """The wheel carries the text of its licence, and names it."""
    assert metadata("walbatch")["License-Expression"] == "Apache-2.0"
    assert [file for file in files("walbatch") or [] if file.name == "LICENSE"]


@pytest.mark.parametrize("folder", ["walbatch/extra", "cli/extra", "migrations/extra"])
def test_an_unlisted_package_is_noticed(tmp_path: Path, folder: str) -> None:
    """The check that lint runs on the sources names a package that the list lacks."""
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "module.py").touch()
    name = ".".join([part for part in ("walbatch", *Path(folder).parts) if part != "walbatch"])

    script = Path(__file__).with_name("package_list.py")
    check = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=False)

    assert check.returncode == 1
    assert f"walbatch.{name}" in check.stderr


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_and_hashed(lock: str) -> None:
    """An install from a lock takes one version of each package, and only files that were seen when it was made."""
    entries = requirements(lock)

    assert entries
    assert [line for line in entries if not re.match(r"[a-z0-9-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_place(lock: str) -> None:
    """A lock works with any registry: it holds no address, no option and no path."""
    text = (ROOT / lock).read_text()

    assert re.findall(r"https?:|file:|^-.*|^\s*#.*(?:--index|--find-links).*|[ =]/\w+", text, flags=re.MULTILINE) == []


def test_no_known_vulnerable_version_is_locked() -> None:
    """Each package that once had a fault is locked at a release without it."""
    locked = pins("requirements.lock")

    assert {name: str(locked[name]) for name, oldest in MINIMUM.items() if locked[name] < Version(oldest)} == {}


@pytest.mark.parametrize("lock", LOCKS)
def test_no_forbidden_package_is_locked(lock: str) -> None:
    """The wheel with an affected SQLite never gets in by its similar name."""
    assert pins(lock).keys() & FORBIDDEN == set()


def test_what_is_tested_is_what_runs() -> None:
    """The locks agree, so that the tests run with the versions that the image gets."""
    tested = pins("requirements-dev.lock")
    shipped = pins("requirements.lock") | pins("requirements-build.lock")

    assert {name: tested.get(name) for name in shipped} == shipped
