"""The real daemon, started as an operator starts it, for tests of what it promises.

    from tests.support import certificates, tunnel

    with tunnel.server("127.0.0.1:8080", "--idle-timeout", "1s", pair=certificates.server("localhost")) as daemon:
        daemon.port                          # where it listens; daemon.listens has all ready lines, in order
        ...talk to it...
        record = daemon.record()             # waits for the next connection record (a dict of the JSON log)
        assert record["reason"] == "finished"
    # leaving stops it by SIGTERM and asserts that it exits 0 and never had an error of its own

`tunnel.client(target, *options)` and `tunnel.run(config_path)` are the other commands, `tunnel.start(*words)` is any.
One worker, port 0 and the JSON log are the defaults of `server` and `client`; later options win where one may be given
once. Nothing here sleeps to wait for a state: a thread reads stderr, whoever waits is woken by a line. PATIENCE_S is
reached only by a hang, and then the whole log is in the failure.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import certificates

PATIENCE_S = 60.0
"""Only a hang reaches it."""
_READY = re.compile(r"ready: (\S+) listening on (\S+) -> (.+)")

Record = dict[str, Any]


@dataclass(frozen=True)
class Listen:
    """One ready line."""

    service: str
    address: str
    targets: str

    @property
    def port(self) -> int:
        """The port, which the daemon chose if it was asked for port 0."""
        return int(self.address.rpartition(":")[2])


class Tunnel:
    """A running daemon."""

    def __init__(self, command: list[str], env: dict[str, str] | None = None, *, clean: bool = True) -> None:
        self._is_clean = clean
        self.lines: list[str] = []
        """Everything it wrote to stderr."""
        self.messages: list[Record] = []
        """Log records that are about no connection."""
        self.records: list[Record] = []
        """Connection records."""
        self.listens: list[Listen] = []
        self._given = 0
        self._is_over = False
        self._changed = threading.Condition()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TLSTUNNEL_")}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            env=environment | (env or {}),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    # What it says.

    @property
    def port(self) -> int:
        """Where it listens, when there is one listener."""
        return self.listens[0].port

    @property
    def text(self) -> str:
        """Everything it wrote to stderr, as one text."""
        return "\n".join(self.lines)

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        """Wait until something holds of what it has said, and return that."""
        deadline = time.monotonic() + PATIENCE_S
        with self._changed:
            while not (found := holds()):
                left = deadline - time.monotonic()
                is_over = self._is_over
                if left <= 0 or is_over:
                    why = "ended" if is_over else "hangs"
                    raise AssertionError(f"tlstunnel {why} without {what}; it said:\n{self.text}")
                self._changed.wait(left)
        return found

    def record(self) -> Record:
        """The next connection record, in the order of their endings."""
        self.until(lambda: len(self.records) > self._given, "another connection record")
        self._given += 1
        return self.records[self._given - 1]

    def message(self, event: str, word: str = "") -> Record:
        """The first log message of this event with this word in its text."""
        found: Record = self.until(
            lambda: next((m for m in self.messages if m["event"] == event and word in m["message"]), None),
            f"a message {event} {word}",
        )
        return found

    def wait_ready(self) -> None:
        """Until it says where it listens: all ready lines are written at once, before anything is accepted."""
        self.until(lambda: self.listens, "a ready line")

    # What it does.

    def children(self) -> list[int]:
        """The pids of its processes but the supervisor's."""
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def cpu_s(self) -> float:
        """CPU seconds that its living workers have used."""
        return sum(_cpu_s(pid) for pid in self.children())

    def descriptors(self) -> int:
        """Open descriptors of its workers."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.children())

    def memory(self, kind: str = "VmRSS") -> int:
        """Resident bytes of its workers together."""
        total = 0
        for pid in self.children():
            found = re.search(rf"^{kind}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
            total += int(found[1]) * 1024 if found else 0
        return total

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for its end; the exit status."""
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"tlstunnel does not end; it said:\n{self.text}") from None
        self._reader.join(PATIENCE_S)
        return code

    def stop(self, exit_code: int = 0) -> None:
        """SIGTERM, unless it has ended; then check how it ended, and that no error was its own."""
        if self.process.poll() is None:
            self.terminate()
        code = self.wait()
        assert code == exit_code, f"exit status {code} instead of {exit_code}; it said:\n{self.text}"
        if self._is_clean:
            assert "Traceback" not in self.text, self.text
            assert not [r for r in self.records if r["reason"] == "internal_error"], self.text
            assert not [m for m in self.messages if m["event"] in {"crash", "worker"}], self.text

    def kill(self) -> None:
        """End it by force, workers included."""
        if self.process.poll() is None:
            for pid in [*self.children(), self.process.pid]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.process.wait()
        self._reader.join(PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for raw in self.process.stderr:
            line = raw.rstrip("\n")
            with self._changed:
                self.lines.append(line)
                self._sort(line)
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _sort(self, line: str) -> None:
        ready = _READY.fullmatch(line)
        if ready:
            self.listens.append(Listen(*ready.groups()))
        elif line.startswith("{"):
            record = json.loads(line)
            (self.records if record["event"] == "connection" else self.messages).append(record)


@contextmanager
def start(
    *words: str,
    env: dict[str, str] | None = None,
    exit_code: int = 0,
    nofile: int | None = None,
    is_clean: bool = True,
) -> Iterator[Tunnel]:
    """Run `tlstunnel WORDS...` until the block is left.

    Args:
        exit_code: how it has to end when told to stop at the end of the block.
        nofile: its hard limit of open descriptors.
        is_clean: demand that it never logs an error of its own.
    """
    command = [sys.executable, "-m", "tlstunnel", *words]
    if nofile is not None:
        command = ["/bin/sh", "-c", f'ulimit -n {nofile} && exec "$@"', "sh", *command]
    daemon = Tunnel(command, env, clean=is_clean)
    try:
        daemon.wait_ready()
        yield daemon
        daemon.stop(exit_code)
    finally:
        daemon.kill()


_COMMON = ("--workers", "1", "--log-format", "json")


@contextmanager
def server(
    target: str | int,
    *options: str,
    pair: certificates.Pair | None = None,
    listen: tuple[str, ...] = ("127.0.0.1:0",),
    **how: Any,
) -> Iterator[Tunnel]:
    """`tlstunnel server` before a target, an address or a port of 127.0.0.1; for localhost unless told otherwise."""
    pair = pair or certificates.server("localhost", "127.0.0.1")
    words = [word for address in listen for word in ("--listen", address)]
    words += ["--target", _address(target), "--cert", str(pair.certificate), "--key", str(pair.key)]
    with start("server", *_defaults(options), *words, *options, **how) as daemon:
        yield daemon


@contextmanager
def client(
    target: str | int,
    *options: str,
    ca: Path | None = None,
    listen: tuple[str, ...] = ("127.0.0.1:0",),
    **how: Any,
) -> Iterator[Tunnel]:
    """`tlstunnel client` to a target, an address or a port of localhost; trusts the test CA unless told otherwise."""
    words = [word for address in listen for word in ("--listen", address)]
    words += ["--target", f"localhost:{target}" if isinstance(target, int) else target]
    words += ["--ca", str(ca or certificates.ca().certificate)]
    with start("client", *_defaults(options), *words, *options, **how) as daemon:
        yield daemon


@contextmanager
def run(config: Path, **how: Any) -> Iterator[Tunnel]:
    """`tlstunnel run CONFIG`. Records are read only if the file asks for the JSON log on stderr."""
    with start("run", str(config), **how) as daemon:
        yield daemon


def _defaults(options: tuple[str, ...]) -> list[str]:
    pairs = zip(_COMMON[::2], _COMMON[1::2], strict=True)
    return [word for name, value in pairs if name not in options for word in (name, value)]


def _address(target: str | int) -> str:
    return f"127.0.0.1:{target}" if isinstance(target, int) else target


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
