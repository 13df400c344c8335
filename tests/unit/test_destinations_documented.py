"""What can be copied from the repository about destinations works, and every key is documented."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from wrong_settings import secret_file

from walbatch.destinations import MODELS, SECRETS, read
from walbatch.event import Kind

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "destinations.md").read_text()
COMMON = {"type", "only", "never", "kinds", "formerly"}


def documented() -> dict[str, set[str]]:
    """Return the keys of each table of the page, by the heading above it."""
    found = {}
    for section in re.split(r"(?m)^#+ ", PAGE):
        keys = re.findall(r"(?m)^\| `([a-z_]+)` \|", section)
        assert len(keys) == len(set(keys))
        if keys:
            found[section.splitlines()[0].strip("`")] = set(keys)
    return found


def test_every_key_is_documented() -> None:
    """The documented keys are those of the models, and their `_file` spellings; not one more."""
    found = documented()
    assert found.pop("Keys of every destination") == COMMON
    for name, model in MODELS.items():
        assert model.model_fields.keys() >= COMMON
        files = {f"{secret}_file" for secret in SECRETS if secret in model.model_fields}
        assert found.pop(name, set()) == model.model_fields.keys() - COMMON | files
    assert not found


def test_the_page_names_the_defaults() -> None:
    """What the page calls the default is the default."""
    for key, text in (("rotate_size", "256MiB"), ("rotate_every", "1d"), ("timeout", "30s"), ("region", "us")):
        (line,) = re.findall(rf"(?m)^\| `{key}` .*$", PAGE)
        assert f"| `{text}` |" in line.replace('"', "")


def test_the_example_of_the_page_is_valid(tmp_path: Path) -> None:
    """It is read as it is, given the secret that it names."""
    (text,) = re.findall(r"(?s)```toml\n(.*?)```", PAGE)
    secret_file(tmp_path / "mixpanel-token")
    path = tmp_path / "destinations.toml"
    path.write_text(text.replace("/run/secrets/", f"{tmp_path}/"))
    assert list(read(path)) == ["production", "archive"]


def test_the_example_of_the_repository_is_valid(tmp_path: Path) -> None:
    """It is read as it is, given its two secrets."""
    shutil.copy(ROOT / "examples" / "destinations.toml", tmp_path)
    for name in ("production", "growth"):
        secret_file(tmp_path / f"{name}-token")
    found = read(tmp_path / "destinations.toml")
    assert list(found) == ["production", "growth", "archive"]
    assert not found["growth"].filter.wants(Kind.PROFILE, "$set")
