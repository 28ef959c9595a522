"""A network namespace of a test's own: with a loopback interface, the local ports it wants, and nothing else.

    with network.of_our_own(ports="60000 60009"):
        ...

Everything that the calling thread begins meanwhile is in it: sockets, threads, processes.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.interop import require

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def of_our_own(ports: str = "32768 60999") -> Iterator[None]:
    """Until the block is left, we are in a network of our own.

    Args:
        ports: the first and the last port that connections come from.
    """
    here = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(_CLONE_NEWNET):
            _cannot(f"a network of one's own needs root ({os.strerror(ctypes.get_errno())})")
        try:
            ip("link", "set", "lo", "up")
            Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(ports)
            yield
        finally:
            assert _libc.setns(here, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(here)


def ip(*words: str) -> None:
    """Run ip(8)."""
    subprocess.run([require("ip"), *words], check=True)


def _cannot(why: str) -> None:
    if os.environ.get("TLSTUNNEL_REQUIRE_INTEROP") == "1":
        pytest.fail(why)
    pytest.skip(why)
