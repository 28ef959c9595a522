"""Programs we did not write, as counterparts in tests."""

from __future__ import annotations

import os
import shutil

import pytest


def require(program: str) -> str:
    """The path of a program from outside; skips loudly without it, and fails where CI forbids skips."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is not None:
        return found
    message = f"{program} is not installed; .ci/run says which Debian package it is in"
    if os.environ.get("TLSTUNNEL_REQUIRE_INTEROP") == "1":
        pytest.fail(message)
    pytest.skip(message)
