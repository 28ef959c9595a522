"""A signal at any moment of any command: it ends as it should, says nothing of its insides and leaves nothing behind.

strace sends the signal at the n-th of certain system calls, which is the same moment in every run however busy the
machine is. Moments before our first line of code are Python's own and left out.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import certificates, tls_servers
from tests.support.interop import require

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0
CALLS = "openat,write,unlink,rename,link,mkdir,fsync,bind,listen,socketpair,connect,execve,clone,rt_sigaction"
OURS = "tlstunnel/cli/__pycache__/signals."
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
TO_DAEMONS = (*SIGNALS, signal.SIGQUIT, signal.SIGUSR2)
GO_ON = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
TRACES = re.compile("Traceback|Exception ignored")
EVERY = int(os.environ.get("TLSTUNNEL_TEST_MOMENTS", "1"))
"""Moments for each command and signal; more of them for whoever looks for a new fault."""


@dataclass(frozen=True)
class Rig:
    """A folder for one run, with what the commands need in it, and a temporary folder to be left empty."""

    folder: Path
    port: int

    def fresh(self) -> None:
        """As before the first command."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.folder.with_name("template"), self.folder)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TLSTUNNEL_")}
        return kept | {"TMPDIR": str(self.folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}

    def start(self, words: list[str], *strace: str) -> subprocess.Popen[str]:
        """With -D strace is the grandchild, and the command our own child."""
        options = ["-D", "-qq", "-o", str(self.folder / "trace"), "-e", f"trace={CALLS}", *strace]
        return subprocess.Popen(
            [require("strace"), *options, sys.executable, "-m", "tlstunnel", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env=self.environment,
            start_new_session=True,
        )

    def left(self) -> list[str]:
        """What should have been cleaned up."""
        return [*os.listdir(self.folder / "tmp"), *(path.name for path in self.folder.rglob(".*.tmp"))]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    base = tmp_path_factory.mktemp("early")
    template = base / "template"
    (template / "tmp").mkdir(parents=True)
    pair = certificates.server("localhost", "127.0.0.1")
    shutil.copy(pair.certificate, template / "server.pem")
    shutil.copy(pair.key, template / "server.key")
    shutil.copy(certificates.ca().certificate, template / "trust.pem")
    text = '[services.a]\nmode = "server"\nlisten = "127.0.0.1:0"\ntarget = "127.0.0.1:9"\n'
    (template / "tunnel.toml").write_text(text + 'certificate = "server.pem"\nkey = "server.key"\n')
    for words in (
        ["ca", "--out", "ca"],
        ["issue", "--ca", "ca", "--server", "old", "--out", "old"],
        ["request", "--server", "asked", "--out", "asked"],
    ):
        subprocess.run(
            [sys.executable, "-m", "tlstunnel", "cert", *words], cwd=template, check=True, capture_output=True
        )
    with tls_servers.openssl("-www") as port:
        yield Rig(base / "work", port)


COMMANDS = {
    "version": "--version",
    "help": "--help",
    "check": "check tunnel.toml",
    "show": "show tunnel.toml",
    "systemd": "systemd install --directory units --user",
    "connect": "connect localhost:PORT --ca trust.pem",
    "probe": "probe localhost:PORT --ca trust.pem",
    "explain": "explain",
    "explain-network": "explain localhost:PORT --ca trust.pem",
    "status": "status --admin 127.0.0.1:1",
    "top": "top --admin 127.0.0.1:1",
    "bench-ciphers": "bench ciphers --quick",
    "bench-relay": "bench relay --quick",
    "ca": "cert ca --out new",
    "issue": "cert issue --ca ca --server www --out out",
    "self-signed": "cert self-signed --server www --out out",
    "request": "cert request --server www --out out",
    "sign": "cert sign asked/asked.csr --ca ca --out out",
    "bundle": "cert bundle --cert old/old.pem --key old/old.key --out out.p12 --unencrypted",
    "key": "cert key make --out out.key",
    "renew": "cert renew old/old.pem --ca ca --force",
    "revoke": "cert revoke old/old.pem --ca ca",
    "crl": "cert crl --ca ca",
    "cert-show": "cert show old/old.pem",
}
DAEMONS = {
    "server": "server --listen 127.0.0.1:0 --target 127.0.0.1:9 --cert server.pem --key server.key --workers 1",
    "client": "client --listen 127.0.0.1:0 --target localhost:9 --ca trust.pem --workers 1",
    "run": "run tunnel.toml",
    "echo": "echo --listen 127.0.0.1:0 --cert server.pem --key server.key --workers 1",
    "demo": "demo",
}


def read_to_end(process: subprocess.Popen[str]) -> str:
    try:
        said, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        raise AssertionError(f"it does not end; it said:\n{said}") from None
    return said


def ended(process: subprocess.Popen[str]) -> int:
    """The exit code, once its output was read to its end."""
    assert process.stdout is not None
    process.stdout.close()
    return process.wait(PATIENCE_S)


def calls_in(trace: Path) -> list[tuple[str, int]]:
    """The traced calls from the moment on at which our code runs: each by its name and its number among its like."""
    numbers: dict[str, int] = {}
    found = []
    is_ours = False
    for line in trace.read_text(errors="replace").splitlines():
        name = re.match(r"(\w+)\(", line)
        if name is None:
            continue
        numbers[name[1]] = numbers.get(name[1], 0) + 1
        is_ours = is_ours or OURS in line
        if is_ours:
            found.append((name[1], numbers[name[1]]))
    return found[4:]


def moments(calls: list[tuple[str, int]], number: int) -> list[tuple[str, int]]:
    """Some of them, spread over the whole run; other ones for each signal."""
    step = len(calls) / EVERY
    return [calls[int(step * (n + number / len(TO_DAEMONS)))] for n in range(EVERY)]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_ends_a_command_at_any_moment(name: str, rig: Rig) -> None:
    words = COMMANDS[name].replace("PORT", str(rig.port)).split()
    rig.fresh()
    # Of what takes long the beginning is enough.
    process = rig.start(words, *(["-e", "inject=openat:signal=SIGTERM:when=500"] if name.startswith("bench") else []))
    usual = read_to_end(process)
    code = process.returncode
    assert "Traceback" not in usual
    calls = calls_in(rig.folder / "trace")
    for index, number in enumerate(SIGNALS):
        for call, n in moments(calls, index):
            rig.fresh()
            process = rig.start(words, "-e", f"inject={call}:signal={number.name}:when={n}")
            said = read_to_end(process)
            what = f"{number.name} at {call} {n}: {process.returncode}\n{said}"
            # connect dies at once, top is told to end in no other way, and what is done already cannot be ended.
            allowed = (128 + number, code, *([-number] if name == "connect" else []), *([0] if name == "top" else []))
            assert process.returncode in allowed, what
            assert not TRACES.search(said), what
            assert rig.left() == [], what


@pytest.mark.parametrize("number", TO_DAEMONS)
@pytest.mark.parametrize("name", DAEMONS)
def test_an_early_signal_means_the_same_to_a_daemon_as_a_late_one(name: str, number: signal.Signals, rig: Rig) -> None:
    words = DAEMONS[name].split()
    is_ready = "Ctrl-C ends the demo" if name == "demo" else "ready:"
    rig.fresh()
    process = rig.start(words)
    assert process.stdout is not None
    for line in process.stdout:
        if is_ready in line:
            process.send_signal(signal.SIGTERM)
    assert ended(process) == 0
    calls = calls_in(rig.folder / "trace")
    for call, n in moments(calls[: len(calls) * 3 // 4], TO_DAEMONS.index(number)):
        rig.fresh()
        process = rig.start(words, "-e", f"inject={call}:signal={number.name}:when={n}")
        said: list[str] = []
        is_told = False
        awaited = {is_ready, *(["reloaded"] if number == signal.SIGHUP else [])}
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            awaited.discard(next((word for word in awaited if word in line), ""))
            if not awaited and not is_told and number in GO_ON:
                is_told = True
                process.send_signal(signal.SIGTERM)
        what = f"{number.name} at {call} {n}:\n{''.join(said)}"
        assert ended(process) == 0, what
        assert not TRACES.search(what), what
        if number == signal.SIGHUP:
            assert "reloaded" in what, what
        assert rig.left() == [], what
