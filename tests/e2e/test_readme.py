"""What the README names beside commands, which test_docs.py types: targets of the Makefile, and tests."""

from __future__ import annotations

import re

import pytest
from pages import ROOT, commands

pytestmark = pytest.mark.e2e

MAKEFILE = (ROOT / "Makefile").read_text()


def test_every_make_target_named_there_exists() -> None:
    """The make commands are real; setup, demo and test are what the CI script itself runs."""
    typed = [command.text for command in commands(ROOT / "README.md")]
    targets = {word for text in typed for word in re.findall(r"\bmake (\w+)", text)}
    assert targets == {"setup", "demo", "test", "faults", "bench"}
    for target in targets:
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_the_guarantees_name_their_tests() -> None:
    """A promise without its test would be a claim; that each of them exists is seen by test_docs.py."""
    named = set(re.findall(r"`(tests/[a-z_/]+\.py)`", (ROOT / "docs" / "guarantees.md").read_text()))
    assert len(named) > 5
