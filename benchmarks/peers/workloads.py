"""The rows of the comparison: what is done to a proxy, what is read off it, and how much of it we allow ourselves.

A row prepares a proxy (connections opened, caches warm), measures it once per round, and says in which unit. Sizes
are those of a full run; `Site.scaled` shrinks them for quick runs and for the tests.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from benchmarks.peers import process
from benchmarks.peers.errors import BenchmarkError
from benchmarks.peers.native import Answer, Backend, Loadgen
from benchmarks.peers.programs import Running

MIB = 1 << 20
GIB = 1 << 30
IDLE_CONNECTIONS = 1000
BULKY_CONNECTIONS = 100
HANDSHAKES_AT_A_TIME = 16


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement."""

    value: float
    """In the row's unit."""
    proxy_share: float = 0.0
    """How busy the proxy was, of one CPU."""
    load_share: float = 0.0
    """How busy generator and backend were together, of one CPU."""
    detail: Mapping[str, float | str] = field(default_factory=dict)


class Shares(TypedDict):
    """The two shares of a sample."""

    proxy_share: float
    load_share: float


@dataclass(slots=True)
class Site:
    """One proxy under test with its backend and its generators, for the length of a row."""

    proxy: Running
    backend: Backend
    generator: Callable[[], Loadgen]
    """Starts another generator against this proxy."""
    scale: float = 1.0
    generators: list[Loadgen] = field(default_factory=list)
    baseline_kib: int = 0

    def scaled(self, amount: int, least: int) -> int:
        return max(least, round(amount * self.scale))

    def more(self) -> Loadgen:
        self.generators.append(self.generator())
        return self.generators[-1]

    def stop(self) -> None:
        for generator in self.generators:
            generator.stop()
        self.proxy.stop()

    def cost(self, command: str, generator: Loadgen) -> tuple[float, Answer, Shares]:
        """CPU seconds the proxy spends on a command, its rest included; the answer; how busy everyone was."""
        process.come_to_rest(self.proxy.pid)
        proxy, backend = process.cpu_s(self.proxy.pid), self.backend.cpu_s()
        answer = generator.do(command)
        until_answer = process.cpu_s(self.proxy.pid)
        process.come_to_rest(self.proxy.pid)
        spent = process.cpu_s(self.proxy.pid) - proxy
        seconds = max(answer.seconds, 1e-9)
        shares: Shares = {
            "proxy_share": (until_answer - proxy) / seconds,
            "load_share": (answer.cpu + self.backend.cpu_s() - backend) / seconds,
        }
        return spent, answer, shares

    def grown_kib(self) -> int:
        """How much the proxy's memory has grown since `settle_baseline`."""
        process.come_to_rest(self.proxy.pid)
        return process.own_kib(self.proxy.pid) - self.baseline_kib

    def settle_baseline(self, generator: Loadgen) -> None:
        """Takes the memory every proxy needs once, code loaded and pools made, off what its connections need."""
        # Two, because what more connections leave behind in a pool would be missing from the count afterwards.
        for command in ("open 2", "download 65536 0 2", "upload 65536 0 2", "close"):
            generator.do(command)
        self.baseline_kib = 0
        self.baseline_kib = self.grown_kib()


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    name: str
    title: str
    unit: str
    prepare: Callable[[Site], None]
    measure: Callable[[Site], Sample]
    bars: Mapping[str, float] = field(default_factory=dict)
    """By peer: the ratio of ours to it that we allow."""
    bar: float | None = None
    """The value itself that we allow, where the row is not a matter of comparison."""
    fresh: bool = False
    """A new process for every round, because the round before leaves its traces in memory."""
    waits: bool = False
    """Between preparing all proxies and measuring them, `--idle-seconds` pass."""
    with_plain: bool = False
    """Also measured against proxies without TLS."""


def _open(count: int, then: tuple[str, ...] = ()) -> Callable[[Site], None]:
    def prepare(site: Site) -> None:
        generator = site.more()
        for command in (f"open {count}", *then):
            generator.do(command)

    return prepare


def _download(site: Site) -> Sample:
    size = site.scaled(GIB, MIB)
    spent, _, shares = site.cost(f"download {size} 0 1", site.generators[0])
    return Sample(spent * GIB / size, **shares)


def _upload(site: Site) -> Sample:
    size = site.scaled(GIB // 2, MIB)
    site.generators[0].do(f"seal {size} 0 1")
    spent, _, shares = site.cost(f"upload {size} 0 1", site.generators[0])
    return Sample(spent * GIB / size, **shares)


def _warm_handshakes(site: Site) -> None:
    site.more().do(f"shake {site.scaled(100, HANDSHAKES_AT_A_TIME)} {HANDSHAKES_AT_A_TIME} full")


def _handshakes(how: str) -> Callable[[Site], Sample]:
    def measure(site: Site) -> Sample:
        count = site.scaled(1500, HANDSHAKES_AT_A_TIME)
        spent, answer, shares = site.cost(f"shake {count} {HANDSHAKES_AT_A_TIME} {how}", site.generators[0])
        if answer.resumed != (count if how == "resume" else 0):
            raise BenchmarkError(f"{answer.resumed} of {count} handshakes were resumed, which is not {how}")
        return Sample(spent / count * 1e6, **shares, detail={"suite": answer.suite, "group": answer.group})

    return measure


def _round_trips(site: Site) -> Sample:
    count = site.scaled(40000, 500)
    spent, answer, shares = site.cost(f"echo {count} 64 0 50", site.generators[0])
    return Sample(spent / count * 1e6, **shares, detail={"p50_us": answer.p50_us, "p99_us": answer.p99_us})


def _latency(site: Site) -> Sample:
    _, answer, shares = site.cost(f"echo {site.scaled(5000, 100)} 64 0 1", site.generators[0])
    return Sample(answer.p50_us, **shares, detail={"p99_us": answer.p99_us})


def _prefer(pid: int) -> None:
    """Lets what measures latency go before what makes the bulk, so that the wait measured is the proxy's."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, pid, -15)


def _prepare_tail(site: Site) -> None:
    exchanges, _bulk = site.more(), site.more()
    exchanges.do("open 10")
    _prefer(exchanges.process.pid)
    _prefer(site.backend.process.pid)


def _tail(site: Site) -> Sample:
    exchanges, bulk = site.generators
    bulk.do("open 4")
    bulk.do(f"download {MIB} 0 4")
    bulk.send(f"download {1 << 50} 0 4")
    try:
        answer = exchanges.do(f"echo {site.scaled(5000, 200)} 64 0 10")
    finally:
        bulk.send("stop")
        moved = bulk.answer()
        bulk.do("close")
    process.come_to_rest(site.proxy.pid)
    gib_s = moved.bytes / GIB / moved.seconds
    share = (answer.cpu + moved.cpu) / moved.seconds
    return Sample(answer.p99_us, load_share=share, detail={"p50_us": answer.p50_us, "bulk_gib_s": gib_s})


REST_S = 4.0
"""How long connections stand still before their memory is read: a proxy may give back what the handshake left."""


def _prepare_idle(site: Site) -> None:
    site.settle_baseline(site.more())


def _idle_memory(site: Site) -> Sample:
    count = site.scaled(IDLE_CONNECTIONS, 50)
    site.generators[0].do(f"open {count}")
    time.sleep(REST_S)
    return Sample(site.grown_kib() / count)


def _prepare_transferred(site: Site) -> None:
    generator = site.more()
    site.settle_baseline(generator)
    count, size = site.scaled(BULKY_CONNECTIONS, 10), site.scaled(64 * MIB, MIB)
    for command in (f"open {count}", f"download {size} 0 {count}", f"upload {size} 0 {count}"):
        generator.do(command)


def _transferred_memory(site: Site) -> Sample:
    return Sample(site.grown_kib() / site.scaled(BULKY_CONNECTIONS, 10))


def _never_read_memory(site: Site) -> Sample:
    count = site.scaled(1000, 20)
    site.generators[0].do(f"open {count}")
    site.generators[0].do(f"ask {10 * MIB} 0 {count}")
    sample = Sample(site.grown_kib() / count)
    site.generators[0].do("close")
    return sample


def _prepare_busy(site: Site) -> None:
    busy, _idle = site.more(), site.more()
    busy.do("open 1")
    busy.do(f"download {site.scaled(GIB // 4, MIB)} 0 1")


def _busy_beside_idle(site: Site) -> Sample:
    busy, idle = site.generators
    download = f"download {site.scaled(GIB, MIB)} 0 1"
    before, _, _ = site.cost(download, busy)
    idle.do(f"open {site.scaled(5000, 100)}")
    beside, _, shares = site.cost(download, busy)
    idle.do("close")
    after, _, _ = site.cost(download, busy)
    return Sample(beside / ((before + after) / 2), **shares)


_BULK = {"haproxy": 0.60, "nginx": 0.60, "haproxy-13": 0.75, "nginx-13": 0.75, "haproxy-plain": 1.0}
_FULL = {"haproxy": 1.0, "haproxy-13": 1.0, "nginx": 1.1, "nginx-13": 1.1}
_RESUMED = dict.fromkeys(("haproxy", "haproxy-13", "nginx", "nginx-13"), 1.1)
_TRIPS = dict.fromkeys(("haproxy", "haproxy-13", "nginx", "nginx-13"), 1.2)
_P50 = {"nginx": 1.5, "nginx-13": 1.5}
_P99 = {"haproxy": 1.0, "haproxy-13": 1.0}

ROWS = (
    Row("download", "download, 1 connection", "CPU s/GiB", _open(1, (f"download {64 * MIB} 0 1",)), _download, _BULK,
        with_plain=True),
    Row("upload", "upload, 1 connection", "CPU s/GiB", _open(1, (f"upload {64 * MIB} 0 1",)), _upload, _BULK,
        with_plain=True),
    Row("full", "full handshakes", "CPU us each", _warm_handshakes, _handshakes("full"), _FULL),
    Row("resumed", "resumed handshakes", "CPU us each", _warm_handshakes, _handshakes("resume"), _RESUMED),
    Row("trips", "64-byte round trips, 50 connections", "CPU us each", _open(50, ("echo 2000 64 0 50",)), _round_trips,
        _TRIPS),
    Row("p50", "64-byte round trip, 1 connection, p50", "us", _open(1, ("echo 500 64 0 1",)), _latency, _P50),
    Row("p99", "64-byte round trips, 10 connections beside 4 downloads, p99", "us", _prepare_tail, _tail, _P99),
    Row("idle", "memory per idle connection after its handshake", "KiB", _prepare_idle, _idle_memory, bar=16,
        fresh=True),
    Row("idle-bulk", "memory per idle connection after 64 MiB each way", "KiB", _prepare_transferred,
        _transferred_memory, bar=20, fresh=True, waits=True),
    Row("never-read", "memory per client that never reads its 10 MiB", "KiB", _prepare_idle, _never_read_memory,
        bar=128, fresh=True),
    Row("busy", "a download beside 5,000 idle connections, CPU against alone", "ratio", _prepare_busy,
        _busy_beside_idle, bar=1.10),
)  # fmt: skip
