"""Programs we did not write, as counterparts in tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def require(program: str) -> str:
    """The path of a program from outside; skips loudly without it, and fails where CI forbids skips."""
    # Debian keeps PostgreSQL's server programs out of the PATH.
    databases = sorted(str(path) for path in Path("/usr/lib/postgresql").glob("*/bin"))
    places = [*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/sbin", *databases]
    return shutil.which(program, path=":".join(places)) or lack(program)


def lack(what: str) -> NoReturn:
    """Something from outside is not there: skip loudly, or fail where CI forbids skips."""
    message = f"{what} is not installed; .ci/packages says which Debian package it is in"
    if os.environ.get("TLSTUNNEL_REQUIRE_INTEROP") == "1":
        pytest.fail(message)
    pytest.skip(message)
