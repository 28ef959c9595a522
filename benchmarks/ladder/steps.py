"""The steps of a rung: something that runs, and gives a number whenever it is asked."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import thread_time

from benchmarks.ladder.variants import ask_twice
from benchmarks.peers.compare import Stage
from benchmarks.peers.programs import Peer, Setting
from benchmarks.peers.workloads import ROWS, Row, Site
from tlstunnel._openssl import CHUNK, Engine
from tlstunnel.tools.bench.cases import BASE_KEY, BASE_SUITE, Bulk, Case, Handshake
from tlstunnel.tools.bench.session import Lab, Wire

ROOT = Path(__file__).parents[2]
GIB, MIB = 1 << 30, 1 << 20
_ROWS = {row.name: row for row in ROWS}


class Step(ABC):
    """One line of a rung."""

    label: str
    fresh = False
    """Whether it is opened anew for every round."""

    @abstractmethod
    def open(self, on: Stage, lab: Lab) -> None:
        """Make ready. Raises BenchmarkError."""

    @abstractmethod
    def measure(self) -> float:
        """One sample, in the rung's unit. Raises BenchmarkError."""

    def close(self) -> None:  # noqa: B027 - most have nothing to leave
        """Leave nothing behind."""

    def last_words(self) -> str:
        """What it said last, for whoever has to find out why it failed."""
        return ""


class Served(Step):
    """A process under test behind the C load generator, doing the work of a row of the comparison."""

    def __init__(self, label: str, work: str, kind: str, *, variant: str = "", workers: int = 1) -> None:
        self.label = label
        self.variant = variant
        self._row: Row = _ROWS[work]
        self.fresh = self._row.fresh
        self._peer = _subject(label, kind, variant, workers)
        self._site: Site | None = None

    def open(self, on: Stage, lab: Lab) -> None:
        self._site = on.site(self._peer)
        self._row.prepare(self._site)

    def measure(self) -> float:
        assert self._site is not None
        return self._row.measure(self._site).value

    def close(self) -> None:
        if self._site is not None:
            self._site.stop()
            self._site = None

    def last_words(self) -> str:
        return "" if self._site is None else self._site.proxy.last_line()


def _subject(label: str, kind: str, variant: str, workers: int) -> Peer:
    def argv(setting: Setting, where: Path, port: int) -> tuple[list[str], str]:
        words = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "benchmarks.ladder.subject", kind]
        words += ["--backend", str(setting.backend_port), "--work", str(where), "--suite", setting.suite]
        words += ["--group", setting.group, "--workers", str(workers)]
        return words + (["--variant", variant] if variant else []), ""

    name = label.replace(" ", "-").replace("/", "-")
    return Peer(name, "ladder", argv, ("true",), "()", tls=kind != "plain", names_port=True)


@dataclass
class InMemory(Step):
    """Work in this process, on the CPU of the proxies."""

    label: str
    make: Callable[[Stage, Lab], Callable[[], float]]
    """Makes ready, and returns what gives a sample."""
    _sample: Callable[[], float] | None = None
    _cpus: frozenset[int] = frozenset()

    def open(self, on: Stage, lab: Lab) -> None:
        self._cpus = frozenset(on.options.cpus()[0])
        self._sample = self.make(on, lab)

    def measure(self) -> float:
        assert self._sample is not None
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cpus)
        try:
            return self._sample()
        finally:
            os.sched_setaffinity(0, allowed)


def copying(on: Stage, lab: Lab) -> Callable[[], float]:
    """CPU seconds to copy a GiB from one area to another, a chunk at a time."""
    one, other = memoryview(bytearray(b"x" * CHUNK)), memoryview(bytearray(CHUNK))
    count = max(1, round(on.options.scale * GIB / CHUNK / 2))

    def sample() -> float:
        begun = thread_time()
        for _ in range(count):
            other[:] = one
        return (thread_time() - begun) * GIB / (count * CHUNK)

    return sample


def bulk(case: Bulk, what: str) -> Callable[[Stage, Lab], Callable[[], float]]:
    """CPU seconds to encrypt or decrypt a GiB."""

    def make(on: Stage, lab: Lab) -> Callable[[], float]:
        work = lab.encrypter(case) if what == "encrypt" else lab.decrypter(case)
        work(1)
        amount = max(MIB, round(on.options.scale * GIB / 2))

        def sample() -> float:
            spent_s, size = work(amount)
            return spent_s * GIB / size

        return sample

    return make


def shaking(case: Case) -> Callable[[Stage, Lab], Callable[[], float]]:
    """CPU microseconds of the server for one handshake."""
    assert isinstance(case, Handshake)

    def make(on: Stage, lab: Lab) -> Callable[[], float]:
        shake = lab.shaker(case)
        count = max(1, round(on.options.scale * 400))
        return lambda: sum(shake().server_s for _ in range(count)) / count * 1e6

    return make


class _AskedTwice(Engine):
    """The engine without its knowledge of where a record ends."""

    __slots__ = ()


def reading(*, is_asked_twice: bool) -> Callable[[Stage, Lab], Callable[[], float]]:
    """CPU microseconds to read one record of 64 bytes, and to see that there is nothing to answer."""

    def make(on: Stage, lab: Lab) -> Callable[[], float]:
        server, client = lab.joined(Bulk(BASE_SUITE, BASE_KEY, 64))
        if is_asked_twice:
            if "decrypt" not in vars(_AskedTwice):
                ask_twice(_AskedTwice)
            server.__class__ = _AskedTwice
        wire = Wire(lab.server_area)
        count = max(10, round(on.options.scale * 20000))

        def sample() -> float:
            spent_s = 0.0
            for _ in range(count):
                client.send(64, wire.take)
                received = wire.empty()
                begun = thread_time()
                size = server.decrypt(received)
                if server.may_answer:
                    server.output_size()
                spent_s += thread_time() - begun
                assert size == 64
            return spent_s / count * 1e6

        return sample

    return make
