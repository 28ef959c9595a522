"""The status document that `/status` answers, from counters and state. docs/reference/admin.md tells of it.

Times are RFC 3339 in UTC; durations are seconds; days are whole ones, negative once the moment is past.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tlstunnel import lifetime
from tlstunnel.observe.counters import Counters, Snapshot
from tlstunnel.observe.processes import ProcessUsage, usage
from tlstunnel.observe.series import Series, ServiceSeries
from tlstunnel.observe.state import CertificateState, ServiceState, TunnelState, WorkerState
from tlstunnel.outcome import CloseReason, Stage


def status_document(
    counters: Counters,
    series: Series,
    state: TunnelState,
    *,
    now: float | None = None,
    processes: Callable[[int], ProcessUsage | None] = usage,
) -> dict[str, Any]:
    """Everything a person wants to know first, as JSON-ready values."""
    now = time.time() if now is None else now
    snapshot = counters.snapshot()
    services = {each.name: each for each in series.services}
    process = series.process
    last = state.last_reload
    return {
        "version": state.version,
        "phase": state.phase,
        "ready": state.is_ready,
        "source": state.source,
        "generation": state.generation,
        "draining_generations": snapshot.of_supervisor(process.draining_generations),
        "started_at": moment(state.started_at),
        "uptime_s": round(now - state.started_at, 3),
        "services": [
            _service(snapshot, each, services[each.name], series.limits.get(each.name))
            for each in state.services
            if each.name in services
        ],
        "workers_answering": state.answering,
        "workers": [_worker(snapshot, series, each, processes) for each in state.workers],
        "worker_restarts": snapshot.total(process.worker_restarts),
        "accept_pauses": snapshot.each_total(process.accept_pauses),
        "certificates": [_certificate(each, now) for each in state.certificates],
        "reloads": snapshot.each_total(process.reloads),
        "last_reload": last and {"at": moment(last.at), "ok": last.ok, "errors": list(last.errors)},
    }


def moment(unix: float) -> str:
    """Unix time as RFC 3339 text in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix))


def _service(snapshot: Snapshot, state: ServiceState, service: ServiceSeries, limit: int | None) -> dict[str, Any]:
    endings = snapshot.each_total(service.results)
    resting = snapshot.each_total(service.targets_resting)
    return {
        "name": state.name,
        "mode": state.mode,
        "listeners": list(state.listeners),
        "targets": [{"address": target, "resting_workers": resting.get(target, 0)} for target in state.targets],
        "connections": {
            "active": snapshot.total(service.active),
            "ended": sum(endings.values()),
            "limit": limit,
            "rejected": sum(endings[reason] for reason in service.rejected),
        },
        "handshakes": {
            "succeeded": sum(snapshot.each_total(service.handshakes).values()),
            "failed": sum(snapshot.each_total(service.handshake_failures).values()),
        },
        "bytes": snapshot.each_total(service.bytes),
        "endings": {reason.label: count for reason, count in endings.items() if count and not _is_trouble(reason)},
        "trouble": {reason.label: count for reason, count in endings.items() if count and _is_trouble(reason)},
    }


def _is_trouble(reason: CloseReason) -> bool:
    return reason.stage is not Stage.LINK or reason.fault.value != "nobody"


def _worker(
    snapshot: Snapshot, series: Series, state: WorkerState, processes: Callable[[int], ProcessUsage | None]
) -> dict[str, Any]:
    used = processes(state.pid)
    return {
        "pid": state.pid,
        "row": state.row,
        "generation": state.generation,
        "draining": state.draining,
        "answers": state.answers,
        "started_at": moment(state.started_at),
        "connections": sum(snapshot.of_row(state.row, each.active) for each in series.every_service),
        "cpu_s": used and used.cpu_s,
        "resident_bytes": used and used.resident_bytes,
    }


def _certificate(state: CertificateState, now: float) -> dict[str, Any]:
    return {
        "service": state.service,
        "role": state.role,
        "file": state.file,
        "subject": state.subject,
        "names": list(state.names),
        "not_before": moment(state.not_before),
        "not_after": moment(state.not_after),
        "days_left": lifetime.days_left(datetime.fromtimestamp(state.not_after, UTC), datetime.fromtimestamp(now, UTC)),
        "loaded_at": moment(state.loaded_at),
    }
