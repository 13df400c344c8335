"""What can be copied from the repository about destinations works, and every key is documented."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from wrong_settings import secret_file

from walbatch.destinations import MODELS, read
from walbatch.event import Kind
from walbatch.setting_texts import configuration_page

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "destinations.md").read_text()


def test_every_kind_and_its_keys_can_be_found() -> None:
    """The page names each kind, and leads to its keys."""
    for name, model in MODELS.items():
        assert f"## `{name}`" in PAGE
        if model.model_fields.keys() - {"type", "only", "never", "kinds", "formerly"}:
            assert f"(configuration.md#{name})" in PAGE
            assert f"### `{name}`" in configuration_page()


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
