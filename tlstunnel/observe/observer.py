"""What a worker tells of its connections: it counts them, and writes them to the log.

One owner of the counting rules (`outcome.py` states them): whoever sets connections up reports what happened, and this
module decides what that counts as. Every method is called at most once per connection, together about three
microseconds; bytes are not reported here, the relay adds them to the counters itself while they move.

    accepted ---- opened ---- [handshake_done] ---- [judged] ---- [dialed] ---- closed
          \\---- rejected (not worth a record: refused before anything was set up)

`closed` is the one way out. It counts the connection's end once in connections_total and, by the stage of its reason,
once in the counter of that stage.
"""

from __future__ import annotations

import time
from typing import Protocol

from tlstunnel.observe.counters import Row
from tlstunnel.observe.record import ConnectionRecord, Identifiers
from tlstunnel.observe.series import GROUP_NAMES, Schema
from tlstunnel.outcome import CloseReason, Stage


class RecordLog(Protocol):
    """Where records go."""

    def is_enabled(self, level: str) -> bool:
        """Whether lines of this level are written."""

    def connection(self, record: ConnectionRecord) -> None:
        """Write the record of a connection that ended."""

    def rejected(self, service: str, client: str, reason: CloseReason) -> None:
        """Note a connection that was refused; many of them make few lines."""


class Observer:
    """One worker's view of its connections.

    Args:
        schema: the series of the worker's configuration.
        row: the worker's row of the counters.
        log: where records are written.
    """

    __slots__ = ("_cells", "_floats", "_identifiers", "_log", "_services", "is_detailed", "open", "process", "row")

    def __init__(self, schema: Schema, row: Row, log: RecordLog) -> None:
        self.row = row
        self.open: dict[int, ConnectionRecord] = {}
        """The connections open now, by id, oldest first."""
        self.process = schema.process
        self.is_detailed = log.is_enabled("debug")
        """Whether records of successful connections, too, say what the client offered."""
        self._services = schema.services
        self._cells = row.cells
        self._floats = row.floats
        self._log = log
        self._identifiers = Identifiers()

    def byte_cells(self, service_index: int) -> tuple[int, int]:
        """The cells of `row.cells` to which the relay adds forward and reverse bytes as they move."""
        series = self._services[service_index]
        return series.bytes_forward, series.bytes_reverse

    def place_cells(self, service_index: int) -> tuple[int, int]:
        """The cells of `row.cells` in which places of max_connections are counted: the service's, the daemon's."""
        return self._services[service_index].taken, self.process.taken

    def opened(self, service_index: int, client: str) -> ConnectionRecord:
        """A connection was accepted and will be set up. Its record must reach `closed`, whatever happens."""
        series = self._services[service_index]
        record = ConnectionRecord(self._identifiers.next(), service_index, series.name, client)
        self._cells[series.active] += 1
        self.open[record.id] = record
        return record

    def failed(self, service_index: int, client: str) -> None:
        """A connection was accepted and could not even be begun, by an error of ours."""
        self.closed(self.opened(service_index, client))

    def rejected(self, service_index: int, client: str, reason: CloseReason) -> None:
        """A connection was refused right after accept, without `opened`: limits and networks (stage ADMIT)."""
        series = self._services[service_index]
        self._cells[series.results[reason]] += 1
        self._cells[series.rejected[reason]] += 1
        self._log.rejected(series.name, client, reason)

    def handshake_done(self, record: ConnectionRecord) -> None:
        """The TLS handshake succeeded: version, cipher, group, resumed and handshake_s of the record are set.

        The group gets its usual name where OpenSSL has one of its own.
        """
        series = self._services[record.service_index]
        if record.group in GROUP_NAMES:
            record.group = GROUP_NAMES[record.group]
        self._cells[series.handshake_cell(record.version, record.cipher, record.group, record.resumed)] += 1
        series.handshake_duration.observe(self._cells, self._floats, record.handshake_s)

    def judged(self, record: ConnectionRecord, rule: str, reason: str) -> None:
        """The access rules decided: `rule` in words, `reason` one of schema.DECISIONS. Also of a handshake that this
        ended."""
        record.rule = rule
        self._cells[self._services[record.service_index].decisions[reason]] += 1

    def dialed(self, record: ConnectionRecord) -> None:
        """A backend was reached: connect_s of the record is set."""
        self._services[record.service_index].connect_duration.observe(self._cells, self._floats, record.connect_s)

    def dial_failed(self, service_index: int, reason: CloseReason) -> None:
        """One target could not be reached and another one is tried. (The last failure is reported by `closed`.)"""
        self._cells[self._services[service_index].connect_failures[reason]] += 1

    def target_rests(self, service_index: int, target: str, resting: bool) -> None:
        """A target is, or is no longer, left out because it failed."""
        cell = self._services[service_index].targets_resting.get(target)
        if cell is not None:
            self._cells[cell] = int(resting)

    def accept_paused(self, reason: str) -> None:
        """Accepting stopped for a while; `reason` is one of schema.PAUSE_REASONS."""
        self._cells[self.process.accept_pauses[reason]] += 1

    def closed(self, record: ConnectionRecord) -> None:
        """The connection ended with `record.reason`; bytes and detail of the record are set. Logs it and counts it."""
        if record.id not in self.open:
            return  # Closed before: every way of ending may come here, the first one counts.
        record.live_bytes = None
        reason = record.reason or CloseReason.INTERNAL_ERROR
        record.reason = reason
        record.total_s = time.monotonic() - record.opened_at
        series = self._services[record.service_index]
        cells = self._cells
        # Nothing from here to the end of the counters can fail half-way: it is counted whole or not at all.
        del self.open[record.id]
        cells[series.active] -= 1
        cells[series.results[reason]] += 1
        series.duration.observe(cells, self._floats, record.total_s)
        stage = reason.stage
        if stage is not Stage.LINK:
            if stage is Stage.HANDSHAKE:
                cells[series.handshake_failures[reason]] += 1
            elif stage is Stage.DIAL:
                cells[series.connect_failures[reason]] += 1
            else:
                cells[series.rejected[reason]] += 1
        self._log.connection(record)
