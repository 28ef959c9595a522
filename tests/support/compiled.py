"""The C programs of the benchmarks: a machine without compiler or headers skips, loudly; CI does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.peers import native
from tests.support.interop import require


def require_programs() -> None:
    """Build them, or skip."""
    require("cc")
    require("openssl")
    if not Path("/usr/include/openssl/ssl.h").exists():
        if os.environ.get("TLSTUNNEL_REQUIRE_INTEROP") == "1":
            pytest.fail("libssl-dev is not installed; .ci/run says how")
        pytest.skip("libssl-dev is not installed; .ci/run says how")
    for name in native.PROGRAMS:
        native.build(name)
