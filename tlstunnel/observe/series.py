"""The table of metrics that are counted, and the counter of a row that each of their series has.

A field of `ServiceSeries` or `ProcessSeries` is a metric (`families`). To add one, add a field and count in it: the
field holds the places of its counters in a row.

Every label comes from a bounded set that no client can widen: services and targets from the configuration, reasons
from `CloseReason`, TLS versions, ciphers and groups from the lists below, and "other" for what is not on them. All
combinations have their counter from the start, so the hot path holds plain ints and nothing is ever allocated while
counting.

The layout is a pure function of the configuration (and of the series it extends), so a process forked later and one
forked earlier agree about it without a word.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from tlstunnel.config.model import ClientAuth, Config, Mode, Service
from tlstunnel.observe.counters import Layout
from tlstunnel.observe.families import Family, counter, families, gauge, histogram
from tlstunnel.outcome import CloseReason, Stage

OTHER = "other"
NONE = "none"
"""The group of a handshake without key exchange, such as a session resumed with TLS 1.2."""

SUITES_13 = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
CIPHERS_12 = (
    "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
)  # fmt: skip
GROUPS_12 = ("X25519", "P-256", "P-384", "P-521", "X448", NONE)
GROUPS_13 = ("X25519MLKEM768", "SecP256r1MLKEM768", "SecP384r1MLKEM1024", "X25519", "P-256", "P-384", "P-521", "X448")
DEFAULT_GROUPS = ("X25519MLKEM768", "X25519", "P-256", "P-384")
# OpenSSL's own spelling (left) of what the configuration and the metrics call by its usual name.
GROUP_NAMES = {"x25519": "X25519", "secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521", "x448": "X448"}
VERSIONS = {"TLSv1.2": (CIPHERS_12, GROUPS_12), "TLSv1.3": (SUITES_13, GROUPS_13), OTHER: ((), ())}

HandshakeKey = tuple[str, str, str, bool]
"""version, cipher, group, resumed."""
HANDSHAKES: tuple[HandshakeKey, ...] = tuple(
    (version, cipher, group, resumed)
    for version, (ciphers, groups) in VERSIONS.items()
    for cipher in (*ciphers, OTHER)
    for group in (*groups, OTHER)
    for resumed in (False, True)
)

# A local handshake takes about half a millisecond of CPU; what takes ten seconds is timed out (handshake_timeout).
HANDSHAKE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# From a loopback connect to the default connect_timeout and one step beyond.
CONNECT_BUCKETS = (0.0001, 0.00025, *HANDSHAKE_BUCKETS)
# From one request to a link that stays open for a day.
CONNECTION_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0)

DECISIONS = ("allow_rule", "allow_any", "anonymous", "deny_rule", "no_rule", "no_certificate")
"""What access rules may say: `access.policy.Reason`."""
DECISIONS_ON_SERVERS = ("allow_rule", "no_rule")
PAUSE_REASONS = ("descriptors", "max_connections", "memory")


def _reasons(stage: Stage) -> tuple[CloseReason, ...]:
    return tuple(reason for reason in CloseReason if reason.stage is stage)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Where a histogram is counted: one counter per bucket (each value in exactly one), one float for the sum."""

    bounds: tuple[float, ...]
    """Upper bounds, each inclusive; one more bucket without bound follows."""
    first: int
    sum: int

    def observe(self, counters: memoryview[int], floats: memoryview[float], value: float) -> None:
        counters[self.first + bisect_left(self.bounds, value)] += 1
        floats[self.sum] += value


@dataclass(frozen=True, slots=True)
class ServiceSeries:
    """The counters of one service, in the order in which `/metrics` shows them."""

    # fmt: off
    name: str
    results: dict[CloseReason, int] = counter(
        "connections{service,result}", "Connections that ended, by how they ended.", "Each counts exactly once.",
        keys=tuple(CloseReason))
    active: int = gauge("connections_active{service}", "Connections that are open now.")
    duration: Histogram = histogram(
        "connection_duration_seconds{service}", CONNECTION_BUCKETS, "From accept to the end of a connection.",
        "Not for connections refused at once.")
    rejected: dict[CloseReason, int] = counter(
        "connections_rejected{service,reason}", "Connections refused before any TLS work, by reason.",
        keys=_reasons(Stage.ADMIT))
    bytes: dict[str, int] = counter(
        "bytes{service,direction}", "Plaintext bytes relayed, counted while they move.",
        "A byte counts once the kernel has it for the other side; `forward` is client to backend, `reverse` the other "
        "way.", keys=("forward", "reverse"))
    handshakes: dict[HandshakeKey, int] = counter(
        "handshakes{service,version,cipher,group,resumed}", "TLS handshakes that succeeded.",
        "Combinations that the settings do not foresee appear once they occur; `group` is `none` for sessions resumed "
        "with TLS 1.2.", keys=HANDSHAKES, is_sparse=True)
    handshake_failures: dict[CloseReason, int] = counter(
        "handshake_failures{service,reason}", "TLS handshakes that failed, by reason.", keys=_reasons(Stage.HANDSHAKE))
    handshake_duration: Histogram = histogram(
        "handshake_duration_seconds{service}", HANDSHAKE_BUCKETS, "Duration of successful TLS handshakes.")
    decisions: dict[str, int] = counter(
        "access_decisions{service,reason}", "What access rules said about peers, resumed sessions included.",
        "Once per connection that they were asked about. Only of services with `client_auth` or, in client mode, "
        "`verify` rules.", keys=DECISIONS, is_sparse=True)
    connect_duration: Histogram = histogram(
        "backend_connect_duration_seconds{service}", CONNECT_BUCKETS, "Time to reach a backend.",
        "Failed attempts on other targets are included.")
    connect_failures: dict[CloseReason, int] = counter(
        "backend_connect_failures{service,reason}", "Backends that could not be reached, by reason.",
        "With several targets one connection may count several times.", keys=_reasons(Stage.DIAL))
    staple_failures: int = counter(
        "ocsp_staple_failures{service}", "Attempts to fetch an OCSP response that gave none to staple.")
    targets_resting: dict[str, int] = gauge(
        "target_resting_workers{service,target}", "Workers that leave a target out for now because it failed.")
    taken: int = gauge()
    """Places of max_connections that are taken; some are, for a moment, by nobody yet."""
    # fmt: on

    def handshake(self, version: str | None, cipher: str | None, group: str | None, resumed: bool) -> int:
        """The counter of a handshake; what is not on our lists is "other"."""
        place = self.handshakes.get((version, cipher, group, resumed))  # type: ignore[arg-type]
        return place if place is not None else self.handshakes[handshake_key(version, cipher, group, resumed)]


@dataclass(frozen=True, slots=True)
class ProcessSeries:
    """The counters that are not a service's: the supervisor's own, and what each worker counts for itself.

    A gauge that is shown describes the daemon and is the supervisor's.
    """

    # fmt: off
    reloads: dict[str, int] = counter(
        "config_reloads{result}", "Attempts to reload, by result.", keys=("success", "failure"))
    last_reload_success: int = gauge(
        "config_last_reload_success_timestamp_seconds", "When the configuration in use was loaded, in Unix time.",
        is_float=True)
    worker_restarts: int = counter("worker_restarts", "Workers that died and were replaced.")
    log_dropped: int = counter("log_lines_dropped", "Log lines lost because nothing took them.")
    log_suppressed: int = counter(
        "log_lines_suppressed", "Log lines held back as noise; summary lines give their number.")
    workers: int = gauge("workers", "Worker processes that are running.")
    draining: int = gauge("draining", "1 while tlstunnel is stopping and finishes open links.")
    draining_generations: int = gauge(
        "draining_generations", "Earlier configurations whose workers still have open links.")
    accept_pauses: dict[str, int] = counter(
        "accept_pauses{reason}", "Times a worker stopped accepting for a while, by reason.", keys=PAUSE_REASONS)
    log_unreported: int = gauge()
    """Log lines that are lost, and no line has said so yet. Read by the supervisor when a worker has ended."""
    log_waiting: int = gauge()
    """Log lines that the log's reader has not taken yet."""
    cut: int = gauge()
    """Connections that were cut at the end of a drain. Read by the supervisor when a worker was killed before it could
    report them."""
    taken: int = gauge()
    """Places of max_connections that are taken, as of a service."""
    # fmt: on


@dataclass(frozen=True, slots=True)
class Series:
    """Every series and its counter."""

    layout: Layout
    process: ProcessSeries
    services: tuple[ServiceSeries, ...]
    """In the order of the configuration: the position is the `service_index` of a record."""
    limits: dict[str, int]
    """max_connections by service; "" for the whole daemon. What has no limit is missing."""
    expected: dict[str, frozenset[HandshakeKey | str]]
    """By service: the keys of sparse families that its configuration foresees. They are shown at 0 from the start."""
    retired: tuple[ServiceSeries, ...] = ()
    """Services of earlier configurations, which draining workers may still count in."""

    @property
    def every_service(self) -> tuple[ServiceSeries, ...]:
        """Those of this configuration and those of earlier ones."""
        return (*self.services, *self.retired)


_Table = TypeVar("_Table", ServiceSeries, ProcessSeries)


@dataclass(slots=True)
class _Allotment:
    """Hands out counters in order."""

    used: int = 0
    gauges: list[int] = field(default_factory=list)

    def table(self, table: type[_Table], **given: Any) -> _Table:
        """Counters for each field that is not given."""
        rest: dict[str, Any] = {name: self._counters(family) for name, family in families(table) if name not in given}
        return table(**given, **rest)

    def _counters(self, family: Family) -> int | dict[Any, int] | Histogram:
        if family.bounds:
            first = self._next(len(family.bounds) + 1)
            return Histogram(family.bounds, first, self._next())
        if family.keys:
            return {key: self._next() for key in family.keys}
        return self.gauge() if family.kind == "gauge" else self._next()

    def gauge(self) -> int:
        self.gauges.append(self.used)
        return self._next()

    def _next(self, count: int = 1) -> int:
        self.used += count
        return self.used - count


def handshake_key(version: str | None, cipher: str | None, group: str | None, resumed: bool) -> HandshakeKey:
    """The labels of a handshake, each from its bounded set."""
    if version not in VERSIONS:
        return (OTHER, OTHER, OTHER, resumed)
    ciphers, groups = VERSIONS[version]
    group = group or NONE
    return (version, cipher if cipher in ciphers else OTHER, group if group in groups else OTHER, resumed)


def series_for(config: Config, extends: Series | None = None) -> Series:
    """The series of a configuration.

    Args:
        config: the configuration.
        extends: the series in use so far. A service that they know keeps its counters and so its counts; the rest is
            appended.
    """
    if extends is None:
        allotment = _Allotment()
        process = allotment.table(ProcessSeries)
        known: dict[str, ServiceSeries] = {}
    else:
        allotment = _Allotment(extends.layout.size, list(extends.layout.gauges))
        process = extends.process
        known = {each.name: each for each in extends.every_service}
    services = []
    for service in config.services:
        old = known.pop(service.name, None)
        resting = {} if old is None else old.targets_resting
        resting = {name: resting[name] if name in resting else allotment.gauge() for name in targets_of(service)}
        if old is None:
            services.append(allotment.table(ServiceSeries, name=service.name, targets_resting=resting))
        else:
            services.append(replace(old, targets_resting=resting))
    limits = {service.name: service.max_connections for service in config.services if service.max_connections}
    if config.process.max_connections:
        limits[""] = config.process.max_connections
    return Series(
        layout=Layout(allotment.used, tuple(allotment.gauges)),
        process=process,
        services=tuple(services),
        limits=limits,
        expected={each.name: expected_handshakes(each).union(expected_decisions(each)) for each in config.services},
        retired=tuple(known.values()),
    )


def targets_of(service: Service) -> tuple[str, ...]:
    """Where a service's connections may go, each target once: its own, those without a certificate, those of names."""
    of_names = (target for name in service.sni for target in name.targets)
    return tuple(dict.fromkeys(str(target) for target in (*service.targets, *service.fallback_target, *of_names)))


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
