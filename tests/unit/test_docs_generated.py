"""What is generated of the documentation is what the code says today."""

from __future__ import annotations

import pytest
from generated_pages import PAGES, ROOT, updated


@pytest.mark.parametrize("page", PAGES)
def test_a_generated_page_is_current(page: str) -> None:
    """`make docs` would change nothing."""
    assert (ROOT / page).read_text() == updated(page)
