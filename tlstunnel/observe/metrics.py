"""Metrics for Prometheus: the counters and the state, in the names of the contract.

A custom collector reads one snapshot of the counters per scrape. Nothing is counted here and nothing is kept between
scrapes, so this runs in the admin process and never costs the relay anything.

Series that a configuration makes possible exist at 0 from the start, so that `rate()` sees the first event. Two
exceptions keep the page short: handshakes that a service's settings do not allow appear once they have occurred, and
services of an earlier configuration appear for as long as draining workers still have links of theirs.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Sample

from tlstunnel.observe.counters import SUPERVISOR_ROW, Counters, Snapshot
from tlstunnel.observe.processes import ProcessUsage, usage
from tlstunnel.observe.series import Histogram, Schema, ServiceSeries
from tlstunnel.observe.state import CertificateState, StateBlob, TunnelState
from tlstunnel.outcome import CloseReason

PREFIX = "tlstunnel_"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric as the reference names it."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()


FAMILIES = {
    family.name: family
    for family in (
        Family("connections", "counter", "Connections that ended, by how they ended.", ("service", "result")),
        Family("connections_active", "gauge", "Connections that are open now.", ("service",)),
        Family(
            "connections_limit",
            "gauge",
            "Connections that may be open at once (max_connections); without a service: over all services.",
            ("service",),
        ),
        Family("connection_duration_seconds", "histogram", "From accept to the end of a connection.", ("service",)),
        Family(
            "connections_rejected",
            "counter",
            "Connections refused before any TLS work, by reason.",
            ("service", "reason"),
        ),
        Family("bytes", "counter", "Plaintext bytes relayed, counted while they move.", ("service", "direction")),
        Family(
            "handshakes",
            "counter",
            "TLS handshakes that succeeded.",
            ("service", "version", "cipher", "group", "resumed"),
        ),
        Family("handshake_failures", "counter", "TLS handshakes that failed, by reason.", ("service", "reason")),
        Family("handshake_duration_seconds", "histogram", "Duration of successful TLS handshakes.", ("service",)),
        Family(
            "access_decisions",
            "counter",
            "What access rules said about peers, resumed sessions included.",
            ("service", "reason"),
        ),
        Family("backend_connect_duration_seconds", "histogram", "Time to reach a backend.", ("service",)),
        Family(
            "backend_connect_failures",
            "counter",
            "Backends that could not be reached, by reason.",
            ("service", "reason"),
        ),
        Family(
            "target_resting_workers",
            "gauge",
            "Workers that leave a target out for now because it failed.",
            ("service", "target"),
        ),
        Family(
            "certificate_not_before_timestamp_seconds",
            "gauge",
            "Since when a loaded certificate, CA or CRL is good, in Unix time.",
            ("service", "file", "subject", "role"),
        ),
        Family(
            "certificate_not_after_timestamp_seconds",
            "gauge",
            "When a loaded certificate, CA or CRL expires, in Unix time.",
            ("service", "file", "subject", "role"),
        ),
        Family(
            "certificate_loaded_timestamp_seconds",
            "gauge",
            "When a certificate file was last loaded, in Unix time.",
            ("service", "file"),
        ),
        Family(
            "ocsp_staple_this_update_timestamp_seconds",
            "gauge",
            "Since when the stapled OCSP response of a certificate is good, in Unix time; 0 without one.",
            ("service", "file"),
        ),
        Family(
            "ocsp_staple_next_update_timestamp_seconds",
            "gauge",
            "Until when the stapled OCSP response of a certificate is good, in Unix time; 0 without one.",
            ("service", "file"),
        ),
        Family(
            "ocsp_staple_failures",
            "counter",
            "Attempts to fetch an OCSP response that gave none to staple.",
            ("service",),
        ),
        Family("config_reloads", "counter", "Attempts to reload, by result.", ("result",)),
        Family(
            "config_last_reload_success_timestamp_seconds",
            "gauge",
            "When the configuration in use was loaded, in Unix time.",
        ),
        Family("config_last_reload_successful", "gauge", "1 unless the last attempt to reload failed."),
        Family("worker_restarts", "counter", "Workers that died and were replaced."),
        Family("workers", "gauge", "Worker processes that are running."),
        Family("draining", "gauge", "1 while tlstunnel is stopping and finishes open links."),
        Family("draining_generations", "gauge", "Earlier configurations whose workers still have open links."),
        Family("accept_pauses", "counter", "Times a worker stopped accepting for a while, by reason.", ("reason",)),
        Family("log_lines_dropped", "counter", "Log lines lost because nothing took them."),
        Family("log_lines_suppressed", "counter", "Log lines held back as noise; summary lines give their number."),
        Family("build_info", "gauge", "Always 1; the labels tell what is running.", ("version", "python")),
        Family("process_cpu_seconds", "counter", "User and system CPU time.", ("role", "row")),
        Family("process_resident_memory_bytes", "gauge", "Resident memory.", ("role", "row")),
        Family("process_virtual_memory_bytes", "gauge", "Address space.", ("role", "row")),
        Family("process_start_time_seconds", "gauge", "When the process started, in Unix time.", ("role", "row")),
        Family("process_open_fds", "gauge", "Open file descriptors.", ("role", "row")),
        Family("process_max_fds", "gauge", "Limit of open file descriptors.", ("role", "row")),
    )
}


class TunnelCollector(Collector):
    """Every metric, read when asked for.

    Args:
        counters: the counters.
        schema: what they mean.
        state: the rest.
        processes: how a pid's usage is found.
    """

    def __init__(
        self,
        counters: Counters,
        schema: Schema,
        state: StateBlob,
        processes: Callable[[int], ProcessUsage | None] = usage,
    ) -> None:
        self._counters = counters
        self._schema = schema
        self._state = state
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        snapshot = self._counters.snapshot()
        state = self._state.read()
        services = list(self._services(snapshot))
        yield from _service_metrics(snapshot, services, self._schema)
        yield from _process_metrics(snapshot, self._schema)
        last = state.last_reload if state is not None else None
        yield _metric("config_last_reload_successful", (((), int(last is None or last.ok)),))
        if state is not None:
            yield from _certificate_metrics(state)
            yield from _build_metrics(state)
            yield from _usage_metrics(state, self._processes)

    def _services(self, snapshot: Snapshot) -> Iterator[ServiceSeries]:
        yield from self._schema.services
        yield from (series for series in self._schema.retired if snapshot.total(series.active))


def exposition(collector: Collector, accept: str) -> tuple[bytes, str]:
    """The page and its content type: OpenMetrics where the `Accept` header asks for it, else the text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Undescribed(collector))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Undescribed(Collector):
    """Registering asks a collector for its names, which would cost a scrape; there is nothing to collide with."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        return self._collector.collect()


def _metric(name: str, samples: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    family = FAMILIES[name]
    prefix = "" if name.startswith("process_") else PREFIX
    metric = Metric(prefix + name, family.help, family.kind)
    sample_name = metric.name + ("_total" if family.kind == "counter" else "")
    names = family.labels
    metric.samples = [Sample(sample_name, dict(zip(names, labels, strict=True)), value) for labels, value in samples]
    return metric


def _histogram(
    snapshot: Snapshot, name: str, services: list[ServiceSeries], where: Callable[[ServiceSeries], Histogram]
) -> Metric:
    metric = Metric(PREFIX + name, FAMILIES[name].help, "histogram")
    for series in services:
        cells = where(series)
        counts = accumulate(snapshot.totals[cells.first : cells.first + len(cells.bounds) + 1])
        total = 0
        for bound, total in zip((*cells.bounds, "+Inf"), counts, strict=True):
            labels = {"service": series.name, "le": str(bound)}
            metric.samples.append(Sample(metric.name + "_bucket", labels, total))
        metric.samples.append(Sample(metric.name + "_count", {"service": series.name}, total))
        metric.samples.append(Sample(metric.name + "_sum", {"service": series.name}, snapshot.total_float(cells.sum)))
    return metric


def _service_metrics(snapshot: Snapshot, services: list[ServiceSeries], schema: Schema) -> Iterator[Metric]:
    def by_reason(name: str, where: Callable[[ServiceSeries], dict[CloseReason, int]]) -> Metric:
        return _metric(
            name,
            (
                ((series.name, reason.label), snapshot.total(cell))
                for series in services
                for reason, cell in where(series).items()
            ),
        )

    yield by_reason("connections", lambda series: series.results)
    yield _metric("connections_active", (((series.name,), snapshot.total(series.active)) for series in services))
    yield _metric("connections_limit", (((name,), limit) for name, limit in schema.limits.items()))
    yield _histogram(snapshot, "connection_duration_seconds", services, lambda series: series.duration)
    yield by_reason("connections_rejected", lambda series: series.rejected)
    yield _metric(
        "bytes",
        (
            ((series.name, direction), snapshot.total(cell))
            for series in services
            for direction, cell in (("forward", series.bytes_forward), ("reverse", series.bytes_reverse))
        ),
    )
    yield _metric("handshakes", _handshakes(snapshot, services, schema))
    yield by_reason("handshake_failures", lambda series: series.handshake_failures)
    yield _histogram(snapshot, "handshake_duration_seconds", services, lambda series: series.handshake_duration)
    yield _metric("access_decisions", _decisions(snapshot, services, schema))
    yield _histogram(snapshot, "backend_connect_duration_seconds", services, lambda series: series.connect_duration)
    yield by_reason("backend_connect_failures", lambda series: series.connect_failures)
    yield _metric(
        "ocsp_staple_failures", (((series.name,), snapshot.total(series.staple_failures)) for series in services)
    )
    yield _metric(
        "target_resting_workers",
        (
            ((series.name, target), snapshot.total(cell))
            for series in services
            for target, cell in series.targets_resting.items()
        ),
    )


def _handshakes(
    snapshot: Snapshot, services: list[ServiceSeries], schema: Schema
) -> Iterator[tuple[tuple[str, ...], float]]:
    for series in services:
        expected = schema.expected.get(series.name, frozenset())
        for key, cell in series.handshakes.items():
            version, cipher, group, resumed = key
            count = snapshot.total(cell)
            if count or key in expected:
                yield (series.name, version, cipher, group, "true" if resumed else "false"), count


def _decisions(
    snapshot: Snapshot, services: list[ServiceSeries], schema: Schema
) -> Iterator[tuple[tuple[str, ...], float]]:
    for series in services:
        expected = schema.expected_decisions.get(series.name, ())
        for reason, cell in series.decisions.items():
            count = snapshot.total(cell)
            if count or reason in expected:
                yield (series.name, reason), count


def _process_metrics(snapshot: Snapshot, schema: Schema) -> Iterator[Metric]:
    cells = schema.process
    total = snapshot.total
    yield _metric(
        "config_reloads", ((("success",), total(cells.reloads_ok)), (("failure",), total(cells.reloads_failed)))
    )
    loaded = snapshot.total_float(cells.last_reload_success)
    yield _metric("config_last_reload_success_timestamp_seconds", (((), loaded),))
    for name, cell in (
        ("worker_restarts", cells.worker_restarts),
        ("log_lines_dropped", cells.log_dropped),
        ("log_lines_suppressed", cells.log_suppressed),
    ):
        yield _metric(name, (((), total(cell)),))
    for name, cell in (
        ("workers", cells.workers),
        ("draining", cells.draining),
        ("draining_generations", cells.draining_generations),
    ):
        # The daemon's state, not the sum of its workers': one that drains after a reload is no reason to worry.
        yield _metric(name, (((), snapshot.of_row(SUPERVISOR_ROW, cell)),))
    yield _metric("accept_pauses", (((reason,), total(cell)) for reason, cell in cells.accept_pauses.items()))


def _certificate_metrics(state: TunnelState) -> Iterator[Metric]:
    first: dict[tuple[str, ...], CertificateState] = {}
    loaded: dict[tuple[str, ...], float] = {}
    for each in state.certificates:
        # One file may hold several certificates with one subject: the first to expire is the one that matters.
        key = (each.service, each.file, each.subject, each.role)
        first[key] = min(each, first.get(key, each), key=lambda one: one.not_after)
        loaded[each.service, each.file] = max(each.loaded_at, loaded.get((each.service, each.file), 0.0))
    yield _metric("certificate_not_before_timestamp_seconds", ((key, one.not_before) for key, one in first.items()))
    yield _metric("certificate_not_after_timestamp_seconds", ((key, one.not_after) for key, one in first.items()))
    yield _metric("certificate_loaded_timestamp_seconds", loaded.items())
    staples = {(each.service, each.file): each for each in state.staples}
    yield _metric("ocsp_staple_this_update_timestamp_seconds", ((key, one.this_update) for key, one in staples.items()))
    yield _metric("ocsp_staple_next_update_timestamp_seconds", ((key, one.next_update) for key, one in staples.items()))


def _build_metrics(state: TunnelState) -> Iterator[Metric]:
    yield _metric("build_info", (((state.version, platform.python_version()), 1),))


def _usage_metrics(state: TunnelState, usage_of: Callable[[int], ProcessUsage | None]) -> Iterator[Metric]:
    processes = [("supervisor", str(SUPERVISOR_ROW), state.supervisor_pid)]
    processes += [("worker", str(worker.row), worker.pid) for worker in state.workers]
    if state.admin_pid is not None:
        processes.append(("admin", "", state.admin_pid))
    found = [((role, row), used) for role, row, pid in processes if (used := usage_of(pid)) is not None]
    readers: dict[str, Callable[[ProcessUsage], float | None]] = {
        "process_cpu_seconds": lambda used: used.cpu_s,
        "process_resident_memory_bytes": lambda used: used.resident_bytes,
        "process_virtual_memory_bytes": lambda used: used.virtual_bytes,
        "process_start_time_seconds": lambda used: used.started_at,
        "process_open_fds": lambda used: used.open_fds,
        "process_max_fds": lambda used: used.max_fds,
    }
    for name, read in readers.items():
        yield _metric(name, ((labels, value) for labels, used in found if (value := read(used)) is not None))
