"""A worker's report of its connections: in the counters, and in the log.

This module alone applies the counting rules (`outcome.py` states them): the code that sets a connection up reports what
happened, and this module decides what that counts as. Every method is called at most once per connection, together
about three microseconds. Bytes are not reported here: the relay adds them to the counters while they move.

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
from tlstunnel.observe.series import GROUP_NAMES, Series
from tlstunnel.outcome import CloseReason, Stage


class RecordLog(Protocol):
    """Where records go."""

    def is_enabled(self, level: str) -> bool:
        """Whether lines of this level are written."""

    def connection(self, record: ConnectionRecord) -> None:
        """Write the record of a connection that ended."""

    def rejected(self, service: str, client: str, reason: CloseReason) -> None:
        """Log a connection that was refused; many of them make few lines."""


class Observer:
    """One worker's view of its connections.

    Args:
        series: those of the worker's configuration.
        row: the worker's row of the counters.
        log: where records are written.
    """

    __slots__ = ("_counters", "_floats", "_identifiers", "_log", "_services", "is_detailed", "open", "process", "row")

    def __init__(self, series: Series, row: Row, log: RecordLog) -> None:
        self.row = row
        self.open: dict[int, ConnectionRecord] = {}
        """The connections open now, by id, oldest first."""
        self.process = series.process
        self.is_detailed = log.is_enabled("debug")
        """Whether records of successful connections, too, say what the client offered."""
        self._services = series.services
        self._counters = row.counters
        self._floats = row.floats
        self._log = log
        self._identifiers = Identifiers()

    def byte_counters(self, service_index: int) -> tuple[int, int]:
        """Where in `row.counters` the relay adds forward and reverse bytes as they move."""
        counters = self._services[service_index].bytes
        return counters["forward"], counters["reverse"]

    def place_counters(self, service_index: int) -> tuple[int, int]:
        """Where in `row.counters` places of max_connections are counted: the service's, the daemon's."""
        return self._services[service_index].taken, self.process.taken

    def opened(self, service_index: int, client: str) -> ConnectionRecord:
        """A connection was accepted and will be set up. Its record must reach `closed`, whatever happens."""
        service = self._services[service_index]
        record = ConnectionRecord(self._identifiers.next(), service_index, service.name, client)
        self._counters[service.active] += 1
        self.open[record.id] = record
        return record

    def failed(self, service_index: int, client: str) -> None:
        """A connection was accepted and could not even be begun, by an error of ours."""
        self.closed(self.opened(service_index, client))

    def rejected(self, service_index: int, client: str, reason: CloseReason) -> None:
        """A connection was refused right after accept, without `opened`: limits and networks (stage ADMIT)."""
        service = self._services[service_index]
        self._counters[service.results[reason]] += 1
        self._counters[service.rejected[reason]] += 1
        self._log.rejected(service.name, client, reason)

    def handshake_done(self, record: ConnectionRecord) -> None:
        """The TLS handshake succeeded: version, cipher, group, resumed and handshake_s of the record are set.

        The group gets its usual name where OpenSSL has one of its own.
        """
        service = self._services[record.service_index]
        if record.group in GROUP_NAMES:
            record.group = GROUP_NAMES[record.group]
        self._counters[service.handshake(record.version, record.cipher, record.group, record.resumed)] += 1
        service.handshake_duration.observe(self._counters, self._floats, record.handshake_s)

    def judged(self, record: ConnectionRecord, rule: str, reason: str) -> None:
        """The access rules decided: `rule` in words, `reason` one of series.DECISIONS. Also of a handshake that this
        ended."""
        record.rule = rule
        self._counters[self._services[record.service_index].decisions[reason]] += 1

    def dialed(self, record: ConnectionRecord) -> None:
        """A backend was reached: connect_s of the record is set."""
        self._services[record.service_index].connect_duration.observe(self._counters, self._floats, record.connect_s)

    def dial_failed(self, service_index: int, reason: CloseReason) -> None:
        """One target could not be reached and another one is tried. (The last failure is reported by `closed`.)"""
        self._counters[self._services[service_index].connect_failures[reason]] += 1

    def target_rests(self, service_index: int, target: str, resting: bool) -> None:
        """A target is, or is no longer, left out because it failed."""
        counter = self._services[service_index].targets_resting.get(target)
        if counter is not None:
            self._counters[counter] = int(resting)

    def accept_paused(self, reason: str) -> None:
        """Accepting stopped for a while; `reason` is one of series.PAUSE_REASONS."""
        self._counters[self.process.accept_pauses[reason]] += 1

    def closed(self, record: ConnectionRecord) -> None:
        """The connection ended with `record.reason`; bytes and detail of the record are set. Logs it and counts it."""
        if record.id not in self.open:
            return  # Closed before: every way of ending may come here, the first one counts.
        record.live_bytes = None
        reason = record.reason or CloseReason.INTERNAL_ERROR
        record.reason = reason
        record.total_s = time.monotonic() - record.opened_at
        service = self._services[record.service_index]
        counters = self._counters
        # Nothing from here to the end of the counters can fail half-way: it is counted whole or not at all.
        del self.open[record.id]
        counters[service.active] -= 1
        counters[service.results[reason]] += 1
        service.duration.observe(counters, self._floats, record.total_s)
        stage = reason.stage
        if stage is not Stage.LINK:
            if stage is Stage.HANDSHAKE:
                counters[service.handshake_failures[reason]] += 1
            elif stage is Stage.DIAL:
                counters[service.connect_failures[reason]] += 1
            else:
                counters[service.rejected[reason]] += 1
        self._log.connection(record)
