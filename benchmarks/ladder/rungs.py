"""The rungs, in the order in which they are climbed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.ladder.steps import InMemory, Served, Step, bulk, copying, reading, shaking
from tlstunnel.tools.bench.cases import BASE_GROUP, BASE_KEY, BASE_SUITE, GROUPS, KEYS, SUITES, Bulk, Handshake


@dataclass(frozen=True)
class Rung:
    """One question, and the steps that answer it."""

    name: str
    title: str
    unit: str
    steps: Callable[[], list[Step]]
    climbs: bool = False
    """Each step is compared with the one above it, not with the first."""
    trick: str = ""
    """Where the trick is that the first step has and the others do not."""


_BULK = Bulk(BASE_SUITE, BASE_KEY, 256 * 1024)
_WORKERS = max(2, len(os.sched_getaffinity(0)))
_LAYERS = {"plain": "+ sockets, a link", "tls": "+ TLS", "trio": "+ trio", "worker": "+ worker"}


def _layers(
    work: str, kinds: tuple[str, ...] = ("plain", "tls", "trio", "worker"), *, several: bool = True
) -> list[Step]:
    steps: list[Step] = [Served(_LAYERS[kind], work, kind) for kind in kinds]
    if several:
        steps.append(Served(f"{_WORKERS} workers", work, "worker", workers=_WORKERS))
    return steps


def _climb_bulk(work: str, what: str) -> Callable[[], list[Step]]:
    def steps() -> list[Step]:
        return [InMemory("copy in memory", copying), InMemory(f"{what} in memory", bulk(_BULK, what)), *_layers(work)]

    return steps


def _climb_handshake(work: str, *, is_resumed: bool) -> Callable[[], list[Step]]:
    case = Handshake("", "1.3", BASE_SUITE, BASE_KEY, BASE_GROUP, is_resumed)

    def steps() -> list[Step]:
        return [InMemory("TLS in memory", shaking(case)), *_layers(work, ("tls", "trio", "worker"))]

    return steps


def _by_key(*, is_resumed: bool) -> Callable[[], list[Step]]:
    def steps() -> list[Step]:
        cases = [Handshake("", "1.3", BASE_SUITE, key, BASE_GROUP, is_resumed) for key in KEYS]
        return [InMemory(case.key.name, shaking(case)) for case in cases]

    return steps


def _by_group(*, is_resumed: bool) -> Callable[[], list[Step]]:
    def steps() -> list[Step]:
        cases = [Handshake("", "1.3", BASE_SUITE, BASE_KEY, group, is_resumed) for group in GROUPS[:8]]
        return [InMemory(case.group.name, shaking(case)) for case in cases]

    return steps


def _by_suite(*, is_resumed: bool) -> Callable[[], list[Step]]:
    def steps() -> list[Step]:
        cases = [Handshake("", "1.3", suite, BASE_KEY, BASE_GROUP, is_resumed) for suite in SUITES[:3]]
        return [InMemory(case.suite.name, shaking(case)) for case in cases]

    return steps


def _without(work: str, having: str, *, workers: int = 1, **variants: str) -> Callable[[], list[Step]]:
    """The daemon as it is, and without a trick or with another setting; labels with underscores for spaces."""

    def steps() -> list[Step]:
        found: list[Step] = [Served(having, work, "worker", workers=workers)]
        return found + [
            Served(label.replace("_", " "), work, "worker", variant=name, workers=workers)
            for label, name in variants.items()
        ]

    return steps


def _twice(work: str) -> Callable[[], list[Step]]:
    return lambda: [Served("the daemon", work, "worker"), Served("the same again", work, "worker")]


def _reading() -> list[Step]:
    once, twice = reading(is_asked_twice=False), reading(is_asked_twice=True)
    return [InMemory("one read", once), InMemory("asked twice", twice)]


_CHUNKS = {"64 KiB": "chunk-64", "128 KiB": "chunk-128", "256 KiB": "chunk-256", "1024 KiB": "chunk-1024"}
_GIB, _US, _KIB = "CPU s/GiB", "CPU us", "KiB"
_WIRE, _READ = "_openssl.engine: _SMALL", "_openssl.engine: _is_aligned"
_ROOM, _TICKETS = "relay.reactor: watch_room", "relay.ends: _withheld"

RUNGS = (
    # What each layer adds.
    Rung("download", "download, 1 connection", _GIB, _climb_bulk("download", "encrypt"), climbs=True),
    Rung("upload", "upload, 1 connection", _GIB, _climb_bulk("upload", "decrypt"), climbs=True),
    Rung("trips", "64-byte round trips, 50 connections", _US, lambda: _layers("trips"), climbs=True),
    Rung("full", "full handshakes", _US, _climb_handshake("full", is_resumed=False), climbs=True),
    Rung("resumed", "resumed handshakes", _US, _climb_handshake("resumed", is_resumed=True), climbs=True),
    Rung("idle", "memory per idle link", _KIB, lambda: _layers("idle", several=False), climbs=True),
    Rung("tail", "p99 of round trips on 10 connections beside 4 downloads", "us", lambda: _layers("p99"), climbs=True),
    # What can be chosen.
    Rung("keys", "full handshakes by key type, the server's part, in memory", _US, _by_key(is_resumed=False)),
    Rung("keys-resumed", "the same resumed", _US, _by_key(is_resumed=True)),
    Rung("groups", "full handshakes by group, the server's part, in memory", _US, _by_group(is_resumed=False)),
    Rung("groups-resumed", "the same resumed", _US, _by_group(is_resumed=True)),
    # The same thing twice: what the rungs below cannot tell apart.
    Rung("noise-down", "download", _GIB, _twice("download")),
    Rung("noise-trips", "round trips", _US, _twice("trips")),
    Rung("noise-full", "full handshakes", _US, _twice("full")),
    # Whether the tricks are worth it.
    Rung("wire-bio", "upload through a BIO over the receive area", _GIB,
         _without("upload", "shared area", copied="copied-wire"), trick=_WIRE),
    Rung("one-read", "round trips with one SSL_read", _US, _without("trips", "one read", asked_twice="two-reads"),
         trick=_READ),
    Rung("one-read-memory", "reading one record of 64 bytes, in memory", _US, _reading, trick=_READ),
    Rung("record-copy", "round trips with one record copied out", _US,
         _without("trips", "copied out", sent_from_the_BIO="output-in-place"), trick="_openssl.engine: _ONE_RECORD"),
    Rung("read-in-place", "download, an output emptied by reading it onto itself", _GIB,
         _without("download", "onto itself", elsewhere="read-elsewhere"), trick="_openssl.engine: flush"),
    Rung("linger", "round trips with the thread lent to the reactor", _US,
         _without("trips", "waits 3 ms", back_to_trio_at_once="no-linger"), trick="server.bridge: LINGER_S"),
    Rung("linger-p50", "latency of the same on 1 connection", "us",
         _without("p50", "waits 3 ms", back_to_trio_at_once="no-linger"), trick="server.bridge: LINGER_S"),
    Rung("chunk-down", "download by chunk", _GIB, _without("download", "512 KiB", **_CHUNKS),
         trick="_openssl.engine: CHUNK"),
    Rung("chunk-up", "upload by chunk", _GIB, _without("upload", "512 KiB", **_CHUNKS), trick="_openssl.engine: CHUNK"),
    Rung("start-chunk", "memory per client that never reads, by the first chunk", _KIB,
         _without("never-read", "64 KiB first", whole_chunks_at_once="big-at-once"), trick="relay.link: START_CHUNK"),
    Rung("watch-room", "full handshakes, room watched for when it lacked", _US,
         _without("full", "when it lacked", always="always-room"), trick=_ROOM),
    Rung("watch-room-trips", "round trips, the same", _US, _without("trips", "when it lacked", always="always-room"),
         trick=_ROOM),
    Rung("release-buffers", "memory per idle link, record buffers released", _KIB,
         _without("idle", "released", kept="kept-buffers"), trick="tls.context: MODE_RELEASE_BUFFERS"),
    Rung("release-buffers-trips", "round trips, the same", _US, _without("trips", "released", kept="kept-buffers"),
         trick="tls.context: MODE_RELEASE_BUFFERS"),
    Rung("suite-order", "full handshakes by suite, the server's part, in memory", _US, _by_suite(is_resumed=False),
         trick="tls.context: DEFAULT_SUITES"),
    Rung("suite-order-resumed", "the same resumed", _US, _by_suite(is_resumed=True),
         trick="tls.context: DEFAULT_SUITES"),
    Rung("tickets", "full handshakes, tickets sent with the first bytes", _US,
         _without("full", "withheld", sent_at_once="eager-tickets"), trick=_TICKETS),
    # What it costs to count over all workers.
    Rung("limits", "full handshakes by limits", _US,
         _without("full", "none", max_connections="max-connections", and_per_address="per-address")),
    Rung("limits-workers", f"the same, {_WORKERS} workers", _US,
         _without("full", "none", workers=_WORKERS, max_connections="max-connections", and_per_address="per-address")),
)  # fmt: skip
