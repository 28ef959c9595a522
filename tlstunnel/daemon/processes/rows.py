"""The rows of the counters: handed out to living workers and taken back.

Two workers must never share a row, so the replacement of a slot whose old worker still drains gets another. With a row
goes a channel on which the admin process asks its worker for open connections.
"""

from __future__ import annotations

import socket

from tlstunnel.connection.ledger import Ledger
from tlstunnel.errors import StartupError, words_of
from tlstunnel.observe import listing
from tlstunnel.observe.counters import Counters, Row

MAX_ROWS = 512
"""Workers that may live at the same time, those of old generations included. Rows nobody used cost no memory."""


class Rows:
    """Hands out rows; row 0 is the supervisor's own.

    Raises:
        StartupError: the machine has no room for what connections are counted by.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self.ledger = Ledger(counters)
        self._free: list[int] = []
        self._next = 1
        self.admin_ends: dict[int, socket.socket] = {}
        self.worker_ends: dict[int, socket.socket] = {}

    def acquire(self) -> Row:
        """The lowest row that no worker uses, so that few are ever touched.

        Raises:
            StartupError: too many workers live.
        """
        if self._free:
            index = min(self._free)
            self._free.remove(index)
        elif self._next == self._counters.rows:
            raise StartupError(
                f"{self._counters.rows - 1} workers live, most of them draining; wait until some have ended, "
                "or lower drain_timeout"
            )
        else:
            index = self._next
            self._next += 1
        return self._counters.row(index)

    def release(self, row: Row) -> None:
        """Its worker has ended: its counters stay, its gauges describe nothing any more."""
        row.clear_gauges()
        self.ledger.clear(row.index)
        self._free.append(row.index)

    def open_channels(self, more: int) -> None:
        """Make the listing channels of all rows used so far and of some more, before the admin process is forked.

        Raises:
            StartupError: there are no descriptors for them.
        """
        for index in range(1, min(self._next + more, self._counters.rows)):
            if index not in self.admin_ends:
                try:
                    self.admin_ends[index], self.worker_ends[index] = listing.channel_pair()
                except OSError as exc:
                    reason = words_of(exc)
                    raise StartupError(f"cannot start the admin process: {reason}; raise LimitNOFILE=") from exc

    def close_in_child(self, keep: socket.socket | None) -> None:
        """In a worker: close every channel but its own end of its own."""
        for end in (*self.admin_ends.values(), *self.worker_ends.values()):
            if end is not keep:
                end.close()
