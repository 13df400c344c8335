"""The image, as far as it can be checked without building one: its steps are read from the Dockerfile and run here."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of the Dockerfile."""

    name: str
    text: str

    def command(self) -> list[str]:
        """Return the words of an instruction in exec form. A shell form is no JSON, and raises."""
        words: list[str] = json.loads(self.text.partition("CMD ")[2] if self.name == "HEALTHCHECK" else self.text)
        return words


def stages() -> list[list[Step]]:
    """Return the instructions of each stage, comments dropped and continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    steps = [Step(*line.split(" ", 1)) for line in text.splitlines() if line]
    starts = [index for index, step in enumerate(steps) if step.name == "FROM"]
    return [steps[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


def only(name: str) -> Step:
    """Return the final stage's one instruction of this name."""
    (step,) = [step for step in stages()[-1] if step.name == name]
    return step


def environment() -> dict[str, str]:
    """Return what the final stage sets."""
    return dict(pair.split("=", 1) for step in stages()[-1] if step.name == "ENV" for pair in step.text.split())


def test_hadolint_finds_nothing() -> None:
    """The Dockerfile passes its linter with every rule on."""
    hadolint = Path(sys.executable).with_name("hadolint")
    check = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)

    assert (check.returncode, check.stdout) == (0, "")
    assert "hadolint ignore" not in (ROOT / "Dockerfile").read_text()


def test_it_does_not_run_as_root() -> None:
    """The user is a number, so that an orchestrator can check it, and owns the data directory."""
    user = only("USER").text
    directory = environment()["WALBATCH_DATA_DIR"]
    uid, _, gid = user.partition(":")

    assert user == "65532:65532"
    assert only("VOLUME").text == directory
    assert Step("RUN", f"install -d -o {uid} -g {gid} -m 0700 {directory}") in stages()[-1]


@pytest.mark.parametrize("name", ["HEALTHCHECK", "ENTRYPOINT", "CMD"])
def test_no_shell_is_needed(name: str) -> None:
    """What the container runs is in exec form: signals reach the process, and no shell has to be there."""
    assert only(name).command()[0] in {"walbatch", "serve"}


def test_it_can_be_reached_and_stopped() -> None:
    """It listens where the published port is, and is stopped by the signal that drains it."""
    port = environment()["WALBATCH_GRPC_LISTEN"].rpartition(":")[2]

    assert environment()["WALBATCH_GRPC_LISTEN"].startswith("0.0.0.0:")
    assert only("EXPOSE").text == port
    assert only("STOPSIGNAL").text == "SIGTERM"


def test_the_root_file_system_may_be_read_only() -> None:
    """Python is told to write nothing beside the code."""
    assert environment()["PYTHONDONTWRITEBYTECODE"] == "1"


def test_both_stages_have_one_pinned_base() -> None:
    """The base is named once, with a full version, and both stages start from it."""
    text = (ROOT / "Dockerfile").read_text()
    bases = [stage[0].text.split(" ")[0] for stage in stages()]

    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+$", text, flags=re.MULTILINE)
    assert bases == ["${PYTHON_IMAGE}"] * 2


def test_only_what_is_copied_gets_into_the_build() -> None:
    """The ignore file lets through what the Dockerfile copies, and nothing else."""
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {source.rstrip("/") for step in stages()[0] if step.name == "COPY" for source in step.text.split(" ")[:-1]}

    assert ignore[1] == "*"
    assert {line.removeprefix("!") for line in ignore if line.startswith("!")} == copied


@pytest.mark.timeout(300)  # it downloads what the image installs
def test_the_steps_work(tmp_path: Path) -> None:
    """Each step but those that need root runs outside Docker as well, down to the command and its SQLite."""
    context = build_context(tmp_path)
    source, target = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "python"], check=True)

    def run(step: Step, path: str) -> None:
        text = step.text.replace("/opt/walbatch", str(target)).replace("/tmp/wheel", str(tmp_path / "wheel"))  # noqa: S108
        command = json.loads(text) if text.startswith("[") else ["/bin/sh", "-c", text]
        result = subprocess.run(
            command, cwd=source, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"{step.text}\n{result.stdout}{result.stderr}"

    build, final = stages()
    for step in build:
        if step.name == "COPY":
            copy(step, context, source)
        elif step.name == "RUN":
            run(step, f"{tmp_path}/python/bin:{os.environ['PATH']}")

    in_image = environment()["PATH"].replace("/opt/walbatch", str(target)).replace("$PATH", "/usr/bin:/bin")
    as_user = [step for step in final[final.index(only("USER")) :] if step.name == "RUN"]
    started = [only("HEALTHCHECK").command(), only("ENTRYPOINT").command() + only("CMD").command()]
    assert [step for step in as_user if "sqlite_version_info" in step.text]
    for step in [*as_user, *(Step("RUN", json.dumps([*words, "--help"])) for words in started)]:
        run(step, in_image)


def build_context(tmp_path: Path) -> Path:
    """Return the sources that the image is built from: those that the tested wheel was made from, or the checkout."""
    if "TESTED_WHEEL" not in os.environ:
        return ROOT
    (archive,) = Path(os.environ["TESTED_WHEEL"]).parent.glob("walbatch-*.tar.gz")
    with tarfile.open(archive) as sdist:
        sdist.extractall(tmp_path / "sdist", filter="data")
    (context,) = (tmp_path / "sdist").iterdir()
    for lock in ROOT.glob("requirements*.lock"):
        shutil.copy(lock, context)
    return context


def copy(step: Step, context: Path, target: Path) -> None:
    """Copy as Docker does: the content of a folder, or files into a folder."""
    *sources, destination = step.text.split(" ")
    for name in sources:
        if name.endswith("/"):
            shutil.copytree(context / name, target / destination)
        else:
            shutil.copy(context / name, target / destination)
