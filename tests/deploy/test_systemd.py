"""systemd's own judgement of deploy/systemd, and whether the server can do its work within that sandbox."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from debian_tools import tool
from deployed import DEPLOY
from programs import WALBATCH, eventually, site

SYSTEMD = DEPLOY / "systemd"
UNITS = ("walbatch.service", "walbatch-backup.service", "walbatch-backup.timer")
MAX_EXPOSURE = 1.6
"""Of 10. What is left: the network, which is the job, and a user of its own instead of one made for each start."""


AS_ROOT = {"fchown"}
"""SQLite gives its files to the owner of the database, if it is root; the service is not."""


def systemd_analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    command = [tool("systemd-analyze"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with programs that are here in place of those that they would find installed."""
    for name in UNITS:
        text = (SYSTEMD / name).read_text()
        text = text.replace("/opt/walbatch/bin/walbatch", WALBATCH).replace("/usr/bin/rclone", "/bin/true")
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_valid(name: str, units: Path) -> None:
    """Every directive is known, and has a value that it can have."""
    checked = systemd_analyze("verify", "--man=no", "--recursive-errors=no", units / name)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_misspelt_directive_would_be_found(units: Path) -> None:
    """The control."""
    unit = units / "walbatch.service"
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchDogSecs="))
    assert "WatchDogSecs" in systemd_analyze("verify", "--man=no", "--recursive-errors=no", unit).stderr


def test_the_sandbox_is_tight(units: Path) -> None:
    """By the points that systemd gives, 0 the best and 10 the worst."""
    judged = systemd_analyze("security", "--offline=true", f"--threshold={MAX_EXPOSURE * 10:.0f}", units / UNITS[0])
    assert judged.returncode == 0, judged.stdout


def test_the_user_can_be_made(tmp_path: Path) -> None:
    """systemd-sysusers makes the user that the units name."""
    (tmp_path / "etc").mkdir()
    text = (SYSTEMD / "walbatch.sysusers").read_text()
    subprocess.run([tool("systemd-sysusers"), f"--root={tmp_path}", "-"], input=text, text=True, timeout=60, check=True)
    assert re.search(r"^walbatch:.*:/var/lib/walbatch:", (tmp_path / "etc/passwd").read_text(), re.MULTILINE)


def directives() -> dict[str, list[str]]:
    """Return the values of each directive of the server's unit."""
    found = defaultdict(list)
    for line in (SYSTEMD / "walbatch.service").read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name].append(value)
    return found


def expand(name: str) -> Iterator[str]:
    """Yield the system calls of a set, and those of the sets in it."""
    for line in systemd_analyze("syscall-filter", name).stdout.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            yield from expand(word)
        elif word and not word.startswith("#"):
            yield word


def allowed() -> set[str]:
    """Return the system calls that the unit lets through."""
    calls = set(expand("@default"))
    for value in directives()["SystemCallFilter"]:
        forbids = value.startswith("~")
        for name in value.removeprefix("~").split():
            calls = calls - set(expand(name)) if forbids else calls | set(expand(name))
    return calls


CALL = re.compile(r"^(?:\d+ +)?([a-z_0-9]+)\((.*)$")
"""A line of strace's; where a call is resumed there is nothing new."""


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[str, str]], Path]:
    """The system calls of a server, from its start, through a delivery and a checkpoint, to its end; and its site."""
    path = tmp_path_factory.mktemp("traced")
    with site(path) as here:
        here.sink()
        written = path / "trace"
        # As in the unit, where the folders of the program cannot be written in.
        strace = (tool("strace"), "-f", "-qq", "-E", "PYTHONDONTWRITEBYTECODE=1", "-o", str(written))
        tracer = here.start(*strace, WALBATCH, "serve")
        eventually(lambda: here.run("health", check=False).returncode == 0, "the server is ready", 60)
        here.run("send", "--event", "Tick", "--distinct-id", "u1")
        here.drained()
        subprocess.run(["kill", "-TERM", str(here.lock()["pid"])], check=True)
        assert tracer.wait(60) == 0
        assert len(here.delivered()) == 1
        found = [match.groups() for line in written.read_text().splitlines() if (match := CALL.match(line))]
    calls = [(str(name), str(arguments)) for name, arguments in found]
    assert len(calls) > 1000
    return calls, path


Trace = tuple[list[tuple[str, str]], Path]


def test_every_system_call_is_let_through(trace: Trace) -> None:
    """A call that the filter refuses would be a fault that shows only there."""
    used = {name for name, _ in trace[0]} - AS_ROOT
    assert {"fsync", "connect"} <= used
    assert used - allowed() == set()


def test_no_memory_is_written_and_run(trace: Trace) -> None:
    """MemoryDenyWriteExecute would end it."""
    both = [call for call in trace[0] if call[0] in {"mmap", "mprotect"} and "PROT_WRITE|PROT_EXEC" in call[1]]
    assert both == []


def test_its_sockets_are_of_the_families_that_are_let_through(trace: Trace) -> None:
    """Others could not be opened."""
    families = {arguments.split(",")[0] for name, arguments in trace[0] if name == "socket"}
    assert families <= set(directives()["RestrictAddressFamilies"][0].split())


def test_it_writes_nowhere_but_in_its_directory(trace: Trace) -> None:
    """So the rest of the file system may be read-only, here and in a container."""
    calls, path = trace
    opened = [
        match[1]
        for name, arguments in calls
        if name in {"open", "openat"}
        and re.search(r"O_WRONLY|O_RDWR|O_CREAT", arguments)
        and (match := re.search(r'"([^"]*)"', arguments))
        and " = -1 " not in arguments
    ]
    outside = {name for name in opened if not name.startswith((f"{path}/", "/dev/"))}
    assert opened
    assert outside == set()
