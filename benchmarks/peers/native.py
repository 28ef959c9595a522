"""The two C programs: built on demand into a cache outside the repository, and driven over pipes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import process
from benchmarks.peers.errors import BenchmarkError

SOURCES = Path(__file__).parent.parent
CFLAGS = ("-O2", "-Wall", "-Wextra")
PROGRAMS = {
    "backend": (("backend.c",), ()),
    "loadgen": (("loadgen.c", "conn.c", "conn.h", "shake.c", "shake.h", "hkdf.h"), ("-lssl", "-lcrypto")),
}


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/tlstunnel-bench`, made when it is not there."""
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tlstunnel-bench"
    path.mkdir(parents=True, exist_ok=True)
    return path


def build(name: str) -> Path:
    """The binary of one of PROGRAMS, compiled unless one of the same sources is in the cache.

    Raises BenchmarkError when there is no compiler, or it does not find OpenSSL's headers.
    """
    names, libraries = PROGRAMS[name]
    sources = [SOURCES / each for each in names]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources) + repr(CFLAGS).encode()).hexdigest()
    binary = cache_dir() / f"{name}-{digest[:16]}"
    if binary.exists():
        return binary
    if shutil.which("cc") is None:
        raise BenchmarkError("cc: not installed; the load generator needs a C compiler (Debian: gcc libc6-dev)")
    partial = binary.with_name(f"{binary.name}.{os.getpid()}")
    compiled = [source for source in sources if source.suffix == ".c"]
    done = subprocess.run(
        ["cc", *CFLAGS, "-o", partial, *compiled, *libraries], capture_output=True, text=True, check=False
    )
    if done.returncode:
        hint = "; install libssl-dev" if "openssl/" in done.stderr else ""
        raise BenchmarkError(f"cc: {name} does not compile{hint}\n{done.stderr}")
    partial.rename(binary)
    return binary


@dataclass(frozen=True, slots=True)
class Answer:
    """What the generator says after a command; see `loadgen.c`."""

    done: int
    failed: int
    seconds: float
    cpu: float
    bytes: int
    resumed: int
    p50_us: float
    p90_us: float
    p99_us: float
    max_us: float
    cut_short: bool
    suite: str
    group: str
    failure: str


class _Native:
    """A C program that ends when our end of its standard input does."""

    def __init__(self, argv: Sequence[str | Path]) -> None:
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            self.first_line = self._line()
        except BenchmarkError:
            self.stop()
            raise

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            raise BenchmarkError(self.process.stderr.read().strip() or "the program ended without a word")
        return line

    def cpu_s(self) -> float:
        return process.cpu_s(self.process.pid)

    def stop(self) -> None:
        process.end(self.process)


class Backend(_Native):
    """Echo, source and sink; see `backend.c`."""

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        super().__init__([*prefix, build("backend")])
        self.port = int(self.first_line)


class Loadgen(_Native):
    """The client side; see `loadgen.c`. `suite` None is the same load without TLS."""

    def __init__(
        self, port: int, suite: str | None, group: str, *, prefix: Sequence[str] = (), binary: str | Path | None = None
    ) -> None:
        how = [suite, group] if suite else ["plain"]
        super().__init__([*prefix, binary or build("loadgen"), str(port), *how])
        self.library: str = json.loads(self.first_line)["library"]

    def send(self, command: str) -> None:
        """Gives a command without waiting for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def answer(self) -> Answer:
        """Waits for the answer to the command given last."""
        fields: dict[str, Any] = json.loads(self._line())
        return Answer(**fields)

    def do(self, command: str) -> Answer:
        """Gives a command and waits until all of it is done.

        Raises BenchmarkError when a connection failed or stalled: a number made of failures measures nothing.
        """
        self.send(command)
        answer = self.answer()
        if answer.failed or answer.cut_short:
            raise BenchmarkError(f"{command!r}: {answer.failed} failed, {answer.done} done: {answer.failure}")
        return answer
