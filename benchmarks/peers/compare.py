"""Runs a row: every proxy at once, measured in turns, in an order that rotates from round to round."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import certificate, debian13, native, process
from benchmarks.peers.errors import BenchmarkError
from benchmarks.peers.native import Backend, Loadgen
from benchmarks.peers.programs import Peer, Setting
from benchmarks.peers.workloads import Row, Sample, Site

# Memory does not depend on the other load of the machine as time does, and the row that waits takes its minute.
_FRESH_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for a whole run."""

    rounds: int = 9
    scale: float = 1.0
    suite: str = "TLS_AES_256_GCM_SHA384"
    group: str = "X25519"
    idle_seconds: float = 60.0
    pin: bool = True
    root: Path = field(default_factory=debian13.default_root)
    """The Debian 13 chroot, whose OpenSSL the generator borrows for groups that the machine's own lacks."""

    def cpus(self) -> tuple[set[int], set[int]]:
        """The CPU of the proxies and those of the load; both are all there are when nothing is pinned."""
        available = os.sched_getaffinity(0)
        if not self.pin or len(available) < 2:
            return available, available
        last = max(available)
        return {last}, available - {last}


@dataclass(slots=True)
class RowResult:
    """What came of a row; a proxy is either in `samples`, once per round, or in `failures`."""

    row: Row
    samples: dict[str, list[Sample]]
    failures: dict[str, str] = field(default_factory=dict)


def _taskset(cpus: set[int]) -> tuple[str, ...]:
    if cpus == os.sched_getaffinity(0):
        return ()
    if shutil.which("taskset") is None:
        raise BenchmarkError("taskset: not installed (Debian: util-linux); or run with --no-pin")
    return ("taskset", "--cpu-list", ",".join(map(str, sorted(cpus))))


class Stage:
    """Certificate, backend and the way generators are started; shared by all rows."""

    def __init__(self, options: Options, work: Path) -> None:
        self.options = options
        proxy_cpus, load_cpus = options.cpus()
        self.load_cpus = len(load_cpus)
        self._load_prefix = _taskset(load_cpus)
        certificate.make(work)
        self.backend = Backend(self._load_prefix)
        self.setting = Setting(self.backend.port, options.suite, options.group, work, _taskset(proxy_cpus))
        self.library = ""
        self._borrowed: Path | None = None
        self._started = 0

    def generator(self, port: int, *, tls: bool) -> Loadgen:
        """A generator against a port; one built here that runs on Debian 13's OpenSSL where ours lacks the group."""
        suite = self.options.suite if tls else None
        try:
            if self._borrowed is None:
                found = Loadgen(port, suite, self.options.group, prefix=self._load_prefix)
        except BenchmarkError as exc:
            if "does not offer" not in str(exc):
                raise
            root = debian13.ensure(self.options.root)
            self._borrowed = root / f"loadgen-{os.getpid()}"
            shutil.copy(native.build("loadgen"), self._borrowed)
        if self._borrowed is not None:
            prefix = (*self._load_prefix, "chroot", str(self.options.root))
            found = Loadgen(port, suite, self.options.group, prefix=prefix, binary=f"/{self._borrowed.name}")
        if tls:
            self.library = found.library
        return found

    def site(self, peer: Peer) -> Site:
        self._started += 1
        proxy = peer.start(self.setting, self._started)
        if self.options.pin:
            # Some (hitch) bind their workers to a CPU by number, which would be the generator's.
            process.come_to_rest(proxy.pid)
            process.pin(proxy.pid, self.options.cpus()[0])
        return Site(proxy, self.backend, lambda: self.generator(proxy.port, tls=peer.tls), self.options.scale)

    def close(self) -> None:
        self.backend.stop()
        if self._borrowed is not None:
            self._borrowed.unlink()


@contextlib.contextmanager
def stage(options: Options) -> Iterator[Stage]:
    """Makes the stage in a temporary directory and leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="tlstunnel-bench-") as directory:
        opened = Stage(options, Path(directory))
        try:
            yield opened
        finally:
            opened.close()


def run_row(row: Row, peers: Mapping[str, Peer], on: Stage) -> RowResult:
    """Measures a row. A proxy that fails is left out of the rest of it, with its reason; the others go on."""
    result = RowResult(row, {name: [] for name, peer in peers.items() if peer.tls or row.with_plain})
    rounds = on.options.rounds
    if row.fresh:
        rounds = 1 if row.waits else min(rounds, _FRESH_ROUNDS)
    for turns in [1] * rounds if row.fresh else [rounds]:
        _run_turns(row, peers, on, result, turns)
    return result


def _run_turns(row: Row, peers: Mapping[str, Peer], on: Stage, result: RowResult, turns: int) -> None:
    sites: dict[str, Site] = {}
    try:
        for name in list(result.samples):
            with _noted(result, name, sites):
                sites[name] = on.site(peers[name])
                row.prepare(sites[name])
        if row.waits:
            time.sleep(on.options.idle_seconds)
        for turn in range(turns):
            for name in _rotated(list(result.samples), turn):
                with _noted(result, name, sites):
                    result.samples[name].append(row.measure(sites[name]))
            _progress(f"{row.name}: round {turn + 1} of {turns}")
    finally:
        for site in sites.values():
            site.stop()


@contextlib.contextmanager
def _noted(result: RowResult, name: str, sites: Mapping[str, Site]) -> Iterator[None]:
    try:
        yield
    except BenchmarkError as exc:
        said = sites[name].proxy.last_line() if name in sites else ""
        result.failures[name] = f"{exc}" + (f"; it said: {said}" if said else "")
        result.samples.pop(name, None)


def _rotated(names: Sequence[str], turn: int) -> list[str]:
    start = turn % len(names) if names else 0
    return [*names[start:], *names[:start]]


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
