"""The reference pages name the keys, values, defaults and options that there are, no more and no less."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.support import manual


@pytest.mark.parametrize(
    ("name", "make"), [("configuration.md", manual.configuration_page), ("options.md", manual.options_page)]
)
def test_the_reference_page_is_what_the_code_says(name: str, make: Callable[[], str]) -> None:
    text = make()
    if os.environ.get("UPDATE_GOLDEN") == "1":
        (manual.REFERENCE / name).write_text(text)
    assert (manual.REFERENCE / name).read_text() == text, "run UPDATE_GOLDEN=1 python -m pytest and read the difference"


def test_the_reference_page_says_of_every_key_what_it_means() -> None:
    assert manual.without_meaning() == []
