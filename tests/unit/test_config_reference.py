"""The reference pages say what the model, the loader and the options' table say, no more and no less."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import manual

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference"


@pytest.mark.parametrize(
    ("name", "make"), [("configuration.md", manual.configuration_page), ("options.md", manual.options_page)]
)
def test_the_reference_page_is_what_the_code_says(name: str, make: Callable[[], str]) -> None:
    text = make()
    if os.environ.get("UPDATE_GOLDEN") == "1":
        (REFERENCE / name).write_text(text)
    assert (REFERENCE / name).read_text() == text, "run UPDATE_GOLDEN=1 python -m pytest and read the difference"
