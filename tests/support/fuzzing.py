"""Property tests the same on every run; TLSTUNNEL_FUZZ=10 makes ten times as many examples, of new ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy

_TIMES = int(os.environ.get("TLSTUNNEL_FUZZ", "0"))


def fuzz(*strategies: SearchStrategy[Any], examples: int = 100) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test with examples drawn from the strategies, however slow the machine is."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        limits = settings(max_examples=examples * max(_TIMES, 1), derandomize=not _TIMES, deadline=None, database=None)
        return limits(given(*strategies)(test))

    return decorate
