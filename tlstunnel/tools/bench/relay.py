"""What the tunnel costs here: a real daemon between a backend and clients, each in processes of their own.

The daemon is started as an operator starts it, supervisor, workers, metrics and all, with logging at `warning`. What it
costs is the CPU time of all its processes, read before and after each piece of work, when they have come to rest. What
clients measure are rates and latencies; those are true for this load, and a load that was busier than the tunnel is
named (`Limit`), because then the rate is the load's and only the CPU time is the tunnel's.

Everything is measured once in each round, in turns, for the reason given in `tools.bench.ciphers`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tlstunnel.config.model import TLSSettings
from tlstunnel.tools.bench.load import BATCH
from tlstunnel.tools.bench.process import cpu_at_rest_s, cpu_s
from tlstunnel.tools.bench.processes import ask, ask_all, daemon, hear, line, load, program, say
from tlstunnel.tools.bench.stats import Spread, percentile, spread

GIB, MIB = 1 << 30, 1 << 20
_BUSY = 0.9
"""A worker this busy was the bottleneck, whatever the load did."""
PERCENTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99, "p999": 0.999}

_WORKING = 0.6
"""Below this nobody was near a limit: the CPUs did something else, or everybody waited for everybody."""

Progress = Callable[[float, str], None]


class Limit(StrEnum):
    """Who set the pace of a rate."""

    TUNNEL = "tunnel"
    LOAD = "load"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to do in how many rounds."""

    rounds: int
    bulk_bytes: int
    handshakes: int
    trips: int


THOROUGH = Effort(rounds=9, bulk_bytes=512 * MIB, handshakes=960, trips=4000)
QUICK = Effort(rounds=3, bulk_bytes=192 * MIB, handshakes=320, trips=1000)


@dataclass(frozen=True, slots=True)
class Sample:
    """One piece of work in one round."""

    rate: float
    """GiB or handshakes for each second; nothing for latencies."""
    cost_s: float
    """CPU seconds of the tunnel for one GiB, handshake or exchange."""
    tunnel_share: float
    """How busy the tunnel was, of the CPUs its workers can use."""
    load_share: float
    """How busy clients were, each of one CPU; of all the busiest."""
    us: dict[str, float] = field(default_factory=dict)
    """Percentiles of an exchange."""

    @property
    def limit(self) -> Limit:
        """Who set the pace."""
        if self.tunnel_share >= _BUSY:
            return Limit.TUNNEL
        return Limit.LOAD if self.load_share >= max(self.tunnel_share, _WORKING) else Limit.MACHINE


@dataclass(slots=True)
class Work:
    """A line of the report."""

    name: str
    title: str
    unit: str
    """Of the rate; empty where latencies are measured."""
    samples: list[Sample] = field(default_factory=list)

    def spread(self, what: str) -> Spread:
        """Median and quartiles over the rounds, of an attribute of the samples or of a percentile."""
        if what in PERCENTILES:
            return spread([sample.us[what] for sample in self.samples])
        return spread([getattr(sample, what) for sample in self.samples])

    @property
    def limit(self) -> Limit:
        """Who set the pace in most rounds."""
        return statistics.mode(sample.limit for sample in self.samples)


@dataclass(slots=True)
class Outcome:
    """Everything measured."""

    works: list[Work]
    negotiated: dict[str, str]
    workers: int
    clients: int
    """Processes that make handshakes and transfers."""


def run(
    command: Callable[[int], Sequence[str]],
    settings: TLSSettings,
    effort: Effort,
    *,
    workers: int,
    progress: Progress = lambda done, what: None,
) -> Outcome:
    """Measure a tunnel.

    Args:
        command: the words that start the daemon, given the backend's port; it must listen on a port of 127.0.0.1.
        settings: what the clients offer.
        workers: how many workers that daemon has.

    Raises:
        StartupError: the daemon or the load did not do what it should; with its last words.
    """
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(program("backend"))
        port = int(line(backend, "the backend"))
        tunnel, listens = stack.enter_context(daemon(command(port)))
        count = max(workers, min(8, len(os.sched_getaffinity(0)) - workers), 1)
        hello = {"port": listens, "tls": dataclasses.asdict(settings)}
        loads = [stack.enter_context(load(hello)) for _ in range(count)]
        beside = stack.enter_context(load(hello))
        return _Bench(tunnel, loads, beside, effort, workers, progress).run()


class _Bench:
    def __init__(
        self,
        daemon: subprocess.Popen[str],
        loads: list[subprocess.Popen[str]],
        beside: subprocess.Popen[str],
        effort: Effort,
        workers: int,
        progress: Progress,
    ) -> None:
        self._daemon, self._loads, self._beside = daemon, loads, beside
        self._effort, self._workers, self._progress = effort, workers, progress

    def run(self) -> Outcome:
        effort, count = self._effort, len(self._loads)
        shakes = max(BATCH, effort.handshakes // count)
        works: list[tuple[Work, Callable[[], Sample]]] = [
            (Work("download", "download", "GiB/s"), lambda: self._bulk("download")),
            (Work("upload", "upload", "GiB/s"), lambda: self._bulk("upload")),
            (Work("full", "full handshakes", "/s"), lambda: self._shake(shakes, resumed=False)),
            (Work("resumed", "resumed handshakes", "/s"), lambda: self._shake(shakes, resumed=True)),
            (Work("trips", "64-byte exchange, alone", ""), self._trips),
            (Work("beside", "64-byte exchange beside a download", ""), self._beside_bulk),
        ]
        negotiated = ask(self._loads[0], {"do": "negotiated"})
        self._warm_up()
        done = 0
        for number in range(effort.rounds):
            # Whoever comes first in one round comes last in another.
            turn = number % len(works)
            for work, measure in works[turn:] + works[:turn]:
                self._progress(done / effort.rounds / len(works), f"round {number + 1}: {work.title}")
                work.samples.append(measure())
                done += 1
        names = {name: str(negotiated[name]) for name in ("version", "suite", "group")}
        return Outcome([work for work, _ in works], names, self._workers, count)

    def _warm_up(self) -> None:
        for clients in self._loads:
            ask(clients, {"do": "handshakes", "count": BATCH, "resumed": False})
            ask(clients, {"do": "download", "size": 32 * MIB})

    def _bulk(self, what: str) -> Sample:
        size = self._effort.bulk_bytes
        return self._measure({"do": what, "size": size}, size / GIB)

    def _shake(self, count: int, *, resumed: bool) -> Sample:
        return self._measure({"do": "handshakes", "count": count, "resumed": resumed}, count)

    def _measure(self, command: dict[str, Any], amount: float) -> Sample:
        """What it costs when every client does this; `amount` is what one of them moves."""
        before = cpu_at_rest_s(self._daemon.pid)
        answers = ask_all(self._loads, command)
        seconds = max(answer["seconds"] for answer in answers)
        busy = cpu_s(self._daemon.pid) - before
        spent = cpu_at_rest_s(self._daemon.pid) - before
        total = amount * len(self._loads)
        load_share = max(answer["cpu_s"] / answer["seconds"] for answer in answers)
        return Sample(total / seconds, spent / total, min(1.0, busy / seconds / self._cpus), load_share)

    @property
    def _cpus(self) -> int:
        return min(self._workers, len(os.sched_getaffinity(0)))

    def _trips(self) -> Sample:
        count = self._effort.trips
        before = cpu_at_rest_s(self._daemon.pid)
        answer = ask(self._loads[0], {"do": "trips", "count": count, "connections": 1})
        spent = cpu_at_rest_s(self._daemon.pid) - before
        return _latencies(answer, spent / count)

    def _beside_bulk(self) -> Sample:
        say(self._beside, {"do": "bulk"})
        hear(self._beside)
        try:
            answer = ask(self._loads[0], {"do": "trips", "count": self._effort.trips, "connections": 10})
        finally:
            say(self._beside, {})
            hear(self._beside)
        return _latencies(answer, 0.0)


def _latencies(answer: dict[str, Any], cost_s: float) -> Sample:
    ordered = sorted(answer["us"])
    us = {name: percentile(ordered, share) for name, share in PERCENTILES.items()} | {"max": ordered[-1]}
    return Sample(0.0, cost_s, 0.0, 0.0, us)
