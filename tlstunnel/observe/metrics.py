"""The page for Prometheus: the counters and the state, in the names of the contract.

A custom collector reads one snapshot of the counters per scrape. Nothing is counted here and nothing is kept between
scrapes, so this runs in the admin process and never costs the relay anything.

Series that a configuration makes possible exist at 0 from the start, so that `rate()` sees the first event. Two
exceptions keep the page short: handshakes that a service's settings do not allow appear once they have occurred, and
services of an earlier configuration appear for as long as draining workers still have links of theirs.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Any

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Sample

from tlstunnel.observe.counters import SUPERVISOR_ROW, Counters, Snapshot
from tlstunnel.observe.families import Family, shown
from tlstunnel.observe.processes import ProcessUsage, usage
from tlstunnel.observe.series import Histogram, ProcessSeries, Series, ServiceSeries
from tlstunnel.observe.state import CertificateState, StapleState, StateBlob, TunnelState
from tlstunnel.outcome import CloseReason

_Values = Iterable[tuple[tuple[str, ...], float]]
"""Of each series: the values of its labels, and its own."""

_LIMITS = Family(
    "connections_limit{service}",
    "gauge",
    "Connections that may be open at once (max_connections); without a service: over all services.",
    "Missing where there is no limit.",
)
_LAST_RELOAD = Family("config_last_reload_successful", "gauge", "1 unless the last attempt to reload failed.")
_BUILD = Family("build_info{version,python}", "gauge", "Always 1; the labels tell what is running.")
_TABLES = (ServiceSeries, ProcessSeries, CertificateState, StapleState, ProcessUsage)
FAMILIES = (*(family for table in _TABLES for _, family in shown(table)), _LIMITS, _LAST_RELOAD, _BUILD)
"""Every metric that there is."""


class TunnelCollector(Collector):
    """Every metric, read when asked for.

    Args:
        counters: the counters.
        series: what they count.
        state: the rest.
        processes: how a pid's usage is found.
    """

    def __init__(
        self,
        counters: Counters,
        series: Series,
        state: StateBlob,
        processes: Callable[[int], ProcessUsage | None] = usage,
    ) -> None:
        self._counters = counters
        self._series = series
        self._state = state
        self._usage = processes

    def collect(self) -> Iterator[Metric]:
        snapshot, state = self._counters.snapshot(), self._state.read()
        yield from self._of_services(snapshot)
        for name, family in shown(ProcessSeries):
            yield _metric(family, _counted(snapshot, family, getattr(self._series.process, name)))
        last = state.last_reload if state is not None else None
        yield _metric(_LAST_RELOAD, (((), int(last is None or last.ok)),))
        if state is not None:
            yield from _known(CertificateState, _first_to_expire(state))
            yield from _known(StapleState, state.staples)
            yield _metric(_BUILD, (((state.version, platform.python_version()), 1),))
            yield from self._of_processes(state)

    def _of_services(self, snapshot: Snapshot) -> Iterator[Metric]:
        series = self._series
        services = [*series.services, *(each for each in series.retired if snapshot.total(each.active))]
        for name, family in shown(ServiceSeries):
            metric = _metric(family, ())
            for service in services:
                counters, expected = getattr(service, name), series.expected.get(service.name, frozenset())
                if isinstance(counters, Histogram):
                    metric.samples += _buckets(snapshot, metric.name, service.name, counters)
                else:
                    values = _counted(snapshot, family, counters, expected)
                    metric.samples += _samples(family, (((service.name, *key), value) for key, value in values))
            yield metric
            if name == "active":
                yield _metric(_LIMITS, (((name,), limit) for name, limit in series.limits.items()))

    def _of_processes(self, state: TunnelState) -> Iterator[Metric]:
        pids = [("supervisor", str(SUPERVISOR_ROW), state.supervisor_pid)]
        pids += [("worker", str(worker.row), worker.pid) for worker in state.workers]
        if state.admin_pid is not None:
            pids.append(("admin", "", state.admin_pid))
        found = [((role, row), used) for role, row, pid in pids if (used := self._usage(pid)) is not None]
        for name, family in shown(ProcessUsage):
            values = ((labels, getattr(used, name)) for labels, used in found)
            yield _metric(family, ((labels, value) for labels, value in values if value is not None))


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


def _metric(family: Family, values: _Values) -> Metric:
    metric = Metric(family.name, family.help, family.kind)
    metric.samples = _samples(family, values)
    return metric


def _samples(family: Family, values: _Values) -> list[Sample]:
    name, labels = family.sample_name, family.labels
    return [Sample(name, dict(zip(labels, key, strict=True)), value) for key, value in values]


def _counted(
    snapshot: Snapshot, family: Family, counters: int | dict[Any, int], expected: frozenset[Any] = frozenset()
) -> Iterator[tuple[tuple[str, ...], float]]:
    """The values of a family's counters, by the labels after `service`."""
    if isinstance(counters, dict):
        for key, counter in counters.items():
            value = snapshot.total(counter)
            if value or not family.is_sparse or key in expected:
                yield _labels_of(key), value
    elif family.is_float:
        yield (), snapshot.total_float(counters)
    elif family.kind == "gauge" and not family.labels:
        # The daemon's state, not the sum of its workers': one that drains after a reload is no reason to worry.
        yield (), snapshot.of_supervisor(counters)
    else:
        yield (), snapshot.total(counters)


def _labels_of(key: CloseReason | str | tuple[Any, ...]) -> tuple[str, ...]:
    if isinstance(key, CloseReason):
        return (key.label,)
    if isinstance(key, str):
        return (key,)
    return tuple(str(each).lower() if isinstance(each, bool) else each for each in key)


def _buckets(snapshot: Snapshot, name: str, service: str, histogram: Histogram) -> Iterator[Sample]:
    counts = accumulate(snapshot.totals[histogram.first : histogram.first + len(histogram.bounds) + 1])
    total = 0
    for bound, total in zip((*histogram.bounds, "+Inf"), counts, strict=True):
        yield Sample(name + "_bucket", {"service": service, "le": str(bound)}, total)
    yield Sample(name + "_count", {"service": service}, total)
    yield Sample(name + "_sum", {"service": service}, snapshot.total_float(histogram.sum))


def _known(table: type, rows: Iterable[Any]) -> Iterator[Metric]:
    """The metrics of a table whose rows have the labels, too."""
    for name, family in shown(table):
        values = {tuple(getattr(row, label) for label in family.labels): getattr(row, name) for row in rows}
        yield _metric(family, values.items())


def _first_to_expire(state: TunnelState) -> list[CertificateState]:
    """Of several certificates with one subject in one file, the first to expire is the one that matters."""
    first: dict[tuple[str, ...], CertificateState] = {}
    for each in state.certificates:
        key = (each.service, each.file, each.subject, each.role)
        first[key] = min(each, first.get(key, each), key=lambda one: one.not_after)
    return list(first.values())
