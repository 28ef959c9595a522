"""What the supervisor shows of itself: the state for the admin process, gauges, one line for the service manager."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime

from tlstunnel._version import VERSION
from tlstunnel.observe.board import Board, Row
from tlstunnel.observe.state import ReloadState, StateBlob, TunnelState, WorkerState
from tlstunnel.supervisor.children import Child
from tlstunnel.supervisor.generation import Generation


class Showing:
    """Publishes. `last_reload` is set by whoever reloads."""

    def __init__(self, board: Board, row: Row) -> None:
        self._board, self._row = board, row
        self.blob = StateBlob()
        self.last_reload: ReloadState | None = None
        self._started_at = time.time()

    def show(self, generation: Generation, children: Iterable[Child], *, phase: str, admin_pid: int | None) -> None:
        """Publish how things stand."""
        workers = tuple(children)
        series = generation.schema.process
        self._row.cells[series.workers] = len(workers)
        lingering = {child.generation for child in workers} - {generation.number}
        self._row.cells[series.draining_generations] = len(lingering)
        self.blob.publish(
            TunnelState(
                version=VERSION,
                supervisor_pid=os.getpid(),
                started_at=self._started_at,
                phase=phase,
                admin_pid=admin_pid,
                generation=generation.number,
                source=generation.config.source,
                services=generation.service_states(),
                workers=tuple(_worker(child) for child in workers),
                certificates=generation.certificate_states(),
                last_reload=self.last_reload,
            )
        )

    def status_text(self, generation: Generation) -> str:
        """`3 services, 17 connections, next certificate expires 2026-12-01`."""
        services = generation.config.services
        snapshot = self._board.snapshot()
        connections = sum(snapshot.total(series.active) for series in generation.schema.services)
        parts = [_count(len(services), "service"), _count(connections, "connection")]
        expiries = [state.not_after for state in generation.certificate_states() if state.role == "certificate"]
        if expiries:
            parts.append(f"next certificate expires {datetime.fromtimestamp(min(expiries), UTC):%Y-%m-%d}")
        return ", ".join(parts)


def _worker(child: Child) -> WorkerState:
    return WorkerState(
        pid=child.pid,
        row=child.row.index,
        generation=child.generation,
        started_at=child.started_at,
        draining=child.is_draining,
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
