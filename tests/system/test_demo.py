"""`tlstunnel demo`: it runs by itself, its curl line works as printed, and Ctrl-C ends it without a trace."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.interop import require

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0
DEMO = [sys.executable, "-m", "tlstunnel", "demo"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Ours, with a temporary folder of its own to see what is left in it, and no proxy for curl."""
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return kept | {"TMPDIR": str(tmp_path)}


@contextmanager
def running(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """The demo as the foreground job of a terminal: a process group of its own.

    `communicate` returns when nobody holds its output any more, so it hangs if one of its processes stays behind.
    """
    demo = subprocess.Popen(
        DEMO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )
    guard = threading.Timer(PATIENCE_S, os.killpg, (demo.pid, signal.SIGKILL))
    guard.start()
    try:
        yield demo
    finally:
        guard.cancel()
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGKILL)
        demo.communicate()


def read_until(demo: subprocess.Popen[str], pattern: str) -> str:
    assert demo.stdout is not None
    seen = []
    for line in demo.stdout:
        seen.append(line)
        if re.search(pattern, line):
            return "".join(seen)
    raise AssertionError(f"the demo ended without {pattern!r}:\n{''.join(seen)}")


def shell(line: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What somebody sees who pastes this line."""
    command = ["/bin/sh", "-c", line]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE_S, check=False)


def test_demo_once_makes_a_round_trip_and_leaves_nothing_behind(environment: dict[str, str]) -> None:
    done = shell(shlex.join([*DEMO, "--once"]), environment)
    assert done.returncode == 0, done.stderr
    assert "a round trip of its own: HTTP/1.1 200 OK, " in done.stdout
    assert "over TLSv1.3, TLS_AES_128_GCM_SHA256, X25519MLKEM768" in done.stdout
    assert "Traceback" not in done.stderr
    assert os.listdir(environment["TMPDIR"]) == []


def test_the_curl_line_works_as_printed_and_ctrl_c_ends_the_demo(environment: dict[str, str]) -> None:
    require("curl")
    with running(environment) as demo:
        said = read_until(demo, "Ctrl-C ends the demo")
        lines = [line.strip() for line in said.splitlines() if line.strip().startswith("curl ")]
        assert len(lines) == 1
        for _ in range(2):
            page = shell(lines[0], environment)
            assert page.returncode == 0, page.stderr
            assert page.stdout.startswith("Hello through tlstunnel")
            # Each connection is printed as it happens, and not when the demo ends.
            read_until(demo, r"bytes_reverse=\d+ ")
        os.killpg(demo.pid, signal.SIGINT)  # as a terminal does it: all of the group get it
        rest, _ = demo.communicate(timeout=PATIENCE_S)
        assert demo.returncode == 0, rest
        assert "Traceback" not in said + rest
        assert "stopped" in rest
    assert os.listdir(environment["TMPDIR"]) == []


def test_the_demo_ends_when_it_is_told_to_before_it_is_ready(environment: dict[str, str]) -> None:
    with running(environment) as demo:
        read_until(demo, "made a CA")
        os.killpg(demo.pid, signal.SIGINT)
        rest, _ = demo.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in rest
    assert os.listdir(environment["TMPDIR"]) == []
