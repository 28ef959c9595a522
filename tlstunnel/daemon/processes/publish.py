"""What the supervisor publishes: the state for the admin process, gauges, one line for the service manager."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Any

from tlstunnel._version import VERSION
from tlstunnel.config.model import OCSPStaple
from tlstunnel.daemon.processes.children import Child
from tlstunnel.daemon.processes.generation import Generation
from tlstunnel.observe.counters import Row
from tlstunnel.observe.series import targets_of
from tlstunnel.observe.state import (
    CertificateState,
    ReloadState,
    ServiceState,
    StapleState,
    StateBlob,
    TunnelState,
    WorkerState,
)
from tlstunnel.tls.ocsp import Staples
from tlstunnel.tls.store import Material

_OWN_ROOTS = 20
"""A bundle of more CAs than this is a whole trust store, and when its members expire is its distributor's business."""

_MAX_CERTIFICATES = 4000
"""How many are shown: the state has room for so many, and nobody reads more."""


class Publisher:
    """Publishes the state. `Reloads` sets `last_reload`, `Stapling` sets `fetched`."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self.blob = StateBlob()
        self.last_reload: ReloadState | None = None
        self.fetched: Staples = {}
        self._started_at = time.time()

    def publish(self, generation: Generation, workers: Collection[Child], *, phase: str, admin_pid: int | None) -> None:
        """Publish how things stand."""
        process, counters = generation.series.process, self._row.counters
        counters[process.workers] = len(workers)
        lingering = {child.generation for child in workers if child.is_draining} - {generation.number}
        counters[process.draining_generations] = len(lingering)
        counters[process.draining] = phase == "draining"
        self.blob.publish(
            TunnelState(
                version=VERSION,
                supervisor_pid=os.getpid(),
                started_at=self._started_at,
                phase=phase,
                is_serving=any(child.answers and not child.is_draining for child in workers),
                admin_pid=admin_pid,
                generation=generation.number,
                source=generation.config.source,
                services=_services(generation),
                workers=tuple(_worker(child) for child in workers),
                certificates=_certificates(generation),
                staples=_staples(generation, self.fetched),
                last_reload=self.last_reload,
            )
        )

    def status_text(self, generation: Generation, workers: Collection[Child]) -> str:
        """`3 services, 17 connections, next certificate expires 2026-12-01`."""
        parts = [
            _count(len(generation.config.services), "service"),
            _count(open_now(generation, workers), "connection"),
        ]
        expiries = [state.not_after for state in _certificates(generation) if state.role == "certificate"]
        if expiries:
            parts.append(f"next certificate expires {datetime.fromtimestamp(min(expiries), UTC):%Y-%m-%d}")
        return ", ".join(parts)


def open_now(generation: Generation, workers: Collection[Child]) -> int:
    """How many connections these workers have open, by what they count."""
    return sum(child.row.counters[each.active] for child in workers for each in generation.series.every_service)


def _worker(child: Child) -> WorkerState:
    return WorkerState(
        pid=child.pid,
        row=child.row.index,
        generation=child.generation,
        started_at=child.started_at,
        draining=child.is_draining,
        answers=child.answers,
    )


def _services(generation: Generation) -> tuple[ServiceState, ...]:
    return tuple(
        ServiceState(
            name=service.name,
            mode=service.mode.value,
            listeners=tuple(listener.bound for listener in generation.listeners.services[service.name]),
            targets=targets_of(service),
        )
        for service in generation.config.services
    )


def _certificates(generation: Generation) -> tuple[CertificateState, ...]:
    states: list[CertificateState] = []
    for service, material in zip(generation.config.services, generation.inventory.materials, strict=True):
        states += _certificates_of(service.name, material, generation.loaded_at)
    return tuple(states[:_MAX_CERTIFICATES])


def _certificates_of(service: str, material: Material, loaded_at: float) -> Iterator[CertificateState]:
    def state(file: str, subject: str, begin: datetime, end: datetime, **more: Any) -> CertificateState:
        return CertificateState(
            service=service,
            file=file,
            subject=subject,
            not_before=begin.timestamp(),
            not_after=end.timestamp(),
            loaded_at=loaded_at,
            **more,
        )

    target = () if material.target_credential is None else (material.target_credential,)
    for each in (*material.credentials, *(each for sni in material.sni for each in sni), *target):
        yield state(each.source, each.subject, each.not_before, each.not_after, names=each.names[:8])
    for bundle in (material.client_ca, material.target_ca):
        if bundle is not None and len(bundle.subjects) <= _OWN_ROOTS:
            for subject, begin, end in zip(bundle.subjects, bundle.begins, bundle.expiries, strict=True):
                yield state(bundle.source, subject, begin, end, role="ca")
    for crl in (*material.crls, *material.target_crls):
        if crl.next_update is not None:
            yield state(crl.source, crl.issuer, crl.this_update, crl.next_update, role="crl")


def _staples(generation: Generation, fetched: Staples) -> tuple[StapleState, ...]:
    states = []
    for service, material in zip(generation.config.services, generation.inventory.materials, strict=True):
        if service.ocsp_staple is OCSPStaple.OFF:
            continue
        given = fetched if service.ocsp_staple is OCSPStaple.AUTO else dict(material.staples)
        for credential in material.shown():
            staple = given.get(credential.certificate_der)
            since, until = (0.0, 0.0) if staple is None else (staple.since, staple.until)
            states.append(
                StapleState(service=service.name, file=credential.source, this_update=since, next_update=until)
            )
    return tuple(states[:_MAX_CERTIFICATES])


def cut_text(number: int) -> str:
    """`3 connections were cut`."""
    return f"{_count(number, 'connection')} {'was' if number == 1 else 'were'} cut"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
