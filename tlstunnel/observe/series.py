"""Which series exist for a configuration, and in which cell of a row each one is counted.

Every label comes from a bounded set that no client can widen: services and targets from the configuration, reasons
from `CloseReason`, TLS versions, ciphers and groups from the lists below, and "other" for what is not on them. All
combinations have their cell from the start, so the hot path holds plain ints and nothing is ever allocated while
counting.

The layout is a pure function of the configuration (and of the schema it extends), so a process forked later and one
forked earlier agree about it without a word.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from tlstunnel.config.model import ClientAuth, Config, Mode, Service
from tlstunnel.observe.counters import Layout
from tlstunnel.outcome import CloseReason, Stage

OTHER = "other"
NONE = "none"
"""The group of a handshake without key exchange, such as a session resumed with TLS 1.2."""

SUITES_13 = (
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
)
CIPHERS_12 = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
GROUPS_12 = ("X25519", "P-256", "P-384", "P-521", "X448", NONE)
GROUPS_13 = ("X25519MLKEM768", "SecP256r1MLKEM768", "SecP384r1MLKEM1024", "X25519", "P-256", "P-384", "P-521", "X448")
DEFAULT_GROUPS = ("X25519MLKEM768", "X25519", "P-256", "P-384")
# OpenSSL's own spelling (left) of what the configuration and the metrics call by its usual name.
GROUP_NAMES = {
    "x25519": "X25519",
    "secp256r1": "P-256",
    "secp384r1": "P-384",
    "secp521r1": "P-521",
    "x448": "X448",
}
VERSIONS = {"TLSv1.2": (CIPHERS_12, GROUPS_12), "TLSv1.3": (SUITES_13, GROUPS_13), OTHER: ((), ())}

# A local handshake takes about half a millisecond of CPU; what takes ten seconds is timed out (handshake_timeout).
HANDSHAKE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# From a loopback connect to the default connect_timeout and one step beyond.
CONNECT_BUCKETS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
# From one request to a link that stays open for a day.
CONNECTION_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0)

DECISIONS = ("allow_rule", "allow_any", "anonymous", "deny_rule", "no_rule", "no_certificate")
"""What access rules may say: `access.policy.Reason`."""
DECISIONS_ON_SERVERS = ("allow_rule", "no_rule")
PAUSE_REASONS = ("descriptors", "max_connections", "memory")

HandshakeKey = tuple[str, str, str, bool]
"""version, cipher, group, resumed."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Where a histogram is counted: one cell per bucket (each value in exactly one), one float cell for the sum."""

    bounds: tuple[float, ...]
    """Upper bounds, each inclusive; one more bucket without bound follows."""
    first: int
    sum: int

    def observe(self, cells: memoryview[int], floats: memoryview[float], value: float) -> None:
        cells[self.first + bisect_left(self.bounds, value)] += 1
        floats[self.sum] += value


@dataclass(frozen=True, slots=True)
class ServiceSeries:
    """The cells of one service."""

    name: str
    active: int
    bytes_forward: int
    bytes_reverse: int
    results: dict[CloseReason, int]
    rejected: dict[CloseReason, int]
    handshake_failures: dict[CloseReason, int]
    connect_failures: dict[CloseReason, int]
    decisions: dict[str, int]
    handshakes: dict[HandshakeKey, int]
    handshake_duration: Histogram
    connect_duration: Histogram
    duration: Histogram
    staple_failures: int
    targets_resting: dict[str, int]
    """Gauges: 1 while this worker rests the target because it failed."""
    taken: int
    """A gauge, as the process has one."""

    def handshake_cell(self, version: str | None, cipher: str | None, group: str | None, resumed: bool) -> int:
        """Where a handshake is counted; what is not on our lists is "other"."""
        cell = self.handshakes.get((version, cipher, group, resumed))  # type: ignore[arg-type]
        return cell if cell is not None else self.handshakes[handshake_key(version, cipher, group, resumed)]


@dataclass(frozen=True, slots=True)
class ProcessSeries:
    """The cells that are not a service's: the supervisor's own, and what each worker counts for itself."""

    reloads_ok: int
    reloads_failed: int
    last_reload_success: int
    """A float cell: Unix time."""
    worker_restarts: int
    workers: int
    draining: int
    draining_generations: int
    accept_pauses: dict[str, int]
    log_dropped: int
    log_suppressed: int
    log_unsaid: int
    """A gauge: log lines that are lost, and no line has said so yet. Read by the supervisor when a worker has ended."""
    log_waiting: int
    """A gauge: log lines that the log's reader has not taken yet."""
    taken: int
    """A gauge: how many places of max_connections are taken. Not shown: some are, for a moment, by nobody yet."""


@dataclass(frozen=True, slots=True)
class Schema:
    """Every series and its cell."""

    layout: Layout
    process: ProcessSeries
    services: tuple[ServiceSeries, ...]
    """In the order of the configuration: the position is the `service_index` of a record."""
    limits: dict[str, int]
    """max_connections by service; "" for the whole daemon. What has no limit is missing."""
    expected: dict[str, frozenset[HandshakeKey]]
    """By service: the handshakes its configuration allows. Shown at 0 from the start, others once they occurred."""
    expected_decisions: dict[str, tuple[str, ...]]
    """By service: what its access rules may say, as above."""
    retired: tuple[ServiceSeries, ...] = ()
    """Services of earlier configurations, which draining workers may still count in."""


_Key = TypeVar("_Key")


@dataclass(slots=True)
class _Cells:
    """Hands out cells in order."""

    used: int = 0
    gauges: list[int] = field(default_factory=list)

    def one(self) -> int:
        self.used += 1
        return self.used - 1

    def gauge(self) -> int:
        self.gauges.append(self.used)
        return self.one()

    def each(self, keys: Iterable[_Key]) -> dict[_Key, int]:
        return {key: self.one() for key in keys}

    def histogram(self, bounds: tuple[float, ...]) -> Histogram:
        first = self.used
        self.used += len(bounds) + 1
        return Histogram(bounds, first, self.one())


def handshake_key(version: str | None, cipher: str | None, group: str | None, resumed: bool) -> HandshakeKey:
    """The labels of a handshake, each from its bounded set."""
    if version not in VERSIONS:
        return (OTHER, OTHER, OTHER, resumed)
    ciphers, groups = VERSIONS[version]
    group = group or NONE
    return (version, cipher if cipher in ciphers else OTHER, group if group in groups else OTHER, resumed)


def schema_for(config: Config, extends: Schema | None = None) -> Schema:
    """The series of a configuration.

    Args:
        config: the configuration.
        extends: the schema in use so far. A service that it knows keeps its cells and so its counts; the rest is
            appended.
    """
    cells = _Cells()
    if extends is None:
        process = _process_series(cells)
        known: dict[str, ServiceSeries] = {}
    else:
        cells = _Cells(extends.layout.cells, list(extends.layout.gauges))
        process = extends.process
        known = {series.name: series for series in (*extends.services, *extends.retired)}
    services = tuple(_service_series(cells, service, known.get(service.name)) for service in config.services)
    names = {series.name for series in services}
    limits = {service.name: service.max_connections for service in config.services if service.max_connections}
    if config.process.max_connections:
        limits[""] = config.process.max_connections
    return Schema(
        layout=Layout(cells.used, tuple(cells.gauges)),
        process=process,
        services=services,
        limits=limits,
        expected={service.name: expected_handshakes(service) for service in config.services},
        expected_decisions={service.name: expected_decisions(service) for service in config.services},
        retired=tuple(series for name, series in known.items() if name not in names),
    )


def expected_handshakes(service: Service) -> frozenset[HandshakeKey]:
    """The labels of the handshakes that a service's configuration allows."""
    if service.mode is Mode.PASSTHROUGH:
        return frozenset()
    settings = service.target_tls.tls if service.mode is Mode.CLIENT and service.target_tls else service.tls
    offered = tuple(GROUP_NAMES.get(name, name) for name in settings.groups.split(":") if name) or DEFAULT_GROUPS
    found = set()
    for version, (ciphers, groups) in VERSIONS.items():
        if version == OTHER or not settings.min_version <= version.removeprefix("TLSv") <= settings.max_version:
            continue
        written = settings.ciphersuites if version == "TLSv1.3" else settings.ciphers
        named = [name for name in written.split(":") if name in ciphers]
        for cipher in named or ciphers:
            for group in offered:
                if group in groups:
                    found.add((version, cipher, group, False))
                    found.add((version, cipher, NONE if version == "TLSv1.2" else group, True))
    return frozenset(found)


def expected_decisions(service: Service) -> tuple[str, ...]:
    """What the access rules of a service may say: nothing where nobody is asked for a certificate."""
    if service.mode is Mode.CLIENT:
        has_rules = service.target_tls is not None and service.target_tls.verify is not None
        return DECISIONS_ON_SERVERS if has_rules else ()
    return DECISIONS if service.mode is Mode.SERVER and service.client_auth is not ClientAuth.NONE else ()


def _process_series(cells: _Cells) -> ProcessSeries:
    return ProcessSeries(
        reloads_ok=cells.one(),
        reloads_failed=cells.one(),
        last_reload_success=cells.one(),
        worker_restarts=cells.one(),
        workers=cells.gauge(),
        draining=cells.gauge(),
        draining_generations=cells.gauge(),
        accept_pauses=cells.each(PAUSE_REASONS),
        log_dropped=cells.one(),
        log_suppressed=cells.one(),
        log_unsaid=cells.gauge(),
        log_waiting=cells.gauge(),
        taken=cells.gauge(),
    )


def _service_series(cells: _Cells, service: Service, known: ServiceSeries | None) -> ServiceSeries:
    of_names = (target for name in service.sni for target in name.targets)
    targets = [*service.targets, *service.fallback_target, *of_names]
    names = list(dict.fromkeys(str(target) for target in targets))
    if known is not None:
        resting = known.targets_resting
        return replace(
            known, targets_resting={name: resting[name] if name in resting else cells.gauge() for name in names}
        )
    return ServiceSeries(
        name=service.name,
        active=cells.gauge(),
        bytes_forward=cells.one(),
        bytes_reverse=cells.one(),
        results=cells.each(CloseReason),
        rejected=cells.each(reason for reason in CloseReason if reason.stage is Stage.ADMIT),
        handshake_failures=cells.each(reason for reason in CloseReason if reason.stage is Stage.HANDSHAKE),
        connect_failures=cells.each(reason for reason in CloseReason if reason.stage is Stage.DIAL),
        decisions=cells.each(DECISIONS),
        handshakes=_handshakes(cells),
        handshake_duration=cells.histogram(HANDSHAKE_BUCKETS),
        connect_duration=cells.histogram(CONNECT_BUCKETS),
        duration=cells.histogram(CONNECTION_BUCKETS),
        staple_failures=cells.one(),
        targets_resting={name: cells.gauge() for name in names},
        taken=cells.gauge(),
    )


def _handshakes(cells: _Cells) -> dict[HandshakeKey, int]:
    found = {}
    for version, (ciphers, groups) in VERSIONS.items():
        for cipher in (*ciphers, OTHER):
            for group in (*groups, OTHER):
                for resumed in (False, True):
                    found[version, cipher, group, resumed] = cells.one()
    return found
