"""Programs we did not write, as counterparts in tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def require(program: str) -> str:
    """The path of a program from outside; skips loudly without it, and fails where CI forbids skips."""
    # Debian keeps PostgreSQL's server programs out of the PATH.
    databases = sorted(str(path) for path in Path("/usr/lib/postgresql").glob("*/bin"))
    places = [*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/sbin", *databases]
    found = shutil.which(program, path=":".join(places))
    if found is not None:
        return found
    message = f"{program} is not installed; .ci/run says which Debian package it is in"
    if os.environ.get("TLSTUNNEL_REQUIRE_INTEROP") == "1":
        pytest.fail(message)
    pytest.skip(message)
