"""Counters in shared memory, one row of them for each process that counts.

The supervisor makes a `Counters` before it forks. The memory is an anonymous file (memfd), so it needs no name and no
permission, and it outlives any worker: a count is only lost together with the whole daemon. Workers inherit it; the
admin process, which may not be forked from a memory with keys in it, is handed its descriptor.

    header   how many rows have been handed out
    row 0    the supervisor's own counters
    row 1..  one for each worker slot; the worker that replaces a dead one goes on counting in its row

Every counter is eight bytes, aligned, and is written by exactly one process (the one that owns the row), so an
increment is a plain load and store (about 65 ns from Python) and needs no lock. Readers in other processes add the rows
up; they see each counter either before or after an increment. A counter is known by its place in a row, and `series`
says what it counts. Most are int64; a few are float64 (sums of seconds), and the same memory is offered under both
types.

Counters only grow. Gauges (open connections) describe a living process, so when one dies its gauges must be cleared by
the supervisor: `Row.clear_gauges`.

A row has room for more counters than the first configuration needs, because a reload may bring more services: the
series then grow at their end and everything already counted stays where it is. Unused room costs address space, not
memory: pages that nobody touches do not exist.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tlstunnel.errors import StartupError

COUNTER_BYTES = 8
SUPERVISOR_ROW = 0
SPARE = 4
"""A row can grow to this many times the counters of the first configuration."""
MIN_COUNTERS = 32 * 1024
"""And to at least so many, some eighty services: a daemon that was started with one may be given many by reloads, and
services that a reload removed keep their counters."""

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Layout:
    """What must be known of the series: how many counters a row has and which of them are gauges."""

    size: int
    gauges: tuple[int, ...] = ()


class Row:
    """One process's counters. `counters` and `floats` are the same memory as int64 and as float64."""

    __slots__ = ("_all", "counters", "floats", "index")

    def __init__(self, every: Counters, index: int, view: memoryview) -> None:
        self._all = every
        self.index = index
        self.counters = view.cast("q")
        self.floats = view.cast("d")

    def clear_gauges(self) -> None:
        """Set this row's gauges to zero: its process is gone and has nothing open any more."""
        for gauge in self._all.layout.gauges:
            self.counters[gauge] = 0


class Snapshot:
    """The rows as they were at one moment, for adding up. A copy: nothing in it moves."""

    __slots__ = ("_floats", "_rows", "totals")

    def __init__(self, rows: Sequence[bytes]) -> None:
        self._rows = [memoryview(row).cast("q") for row in rows]
        self._floats = [memoryview(row).cast("d") for row in rows]
        self.totals: list[int] = [sum(column) for column in zip(*self._rows, strict=True)]

    def __len__(self) -> int:
        return len(self._rows)

    def of_row(self, row: int, counter: int) -> int:
        """One row's value; 0 for a row that has not been handed out."""
        return self._rows[row][counter] if row < len(self._rows) else 0

    def of_supervisor(self, counter: int) -> int:
        """The supervisor's value: of a gauge that describes the daemon."""
        return self.of_row(SUPERVISOR_ROW, counter)

    def total(self, counter: int) -> int:
        return self.totals[counter]

    def each_total(self, counters: Mapping[_Key, int]) -> dict[_Key, int]:
        """The totals of a family, by the same keys."""
        return {key: self.totals[counter] for key, counter in counters.items()}

    def total_float(self, counter: int) -> float:
        return sum(row[counter] for row in self._floats)


class Counters:
    """Rows of counters in memory shared with every process forked after this was made.

    Args:
        layout: the counters of the first configuration.
        rows: the supervisor's and one for each worker that may live at the same time, drained generations included.
        file: in a process that shows another's counters: its `fd` there.
    """

    __slots__ = ("_capacity", "_counters", "_header", "_memory", "_stride", "_view", "fd", "layout", "rows")

    def __init__(self, layout: Layout, rows: int, file: int | None = None) -> None:
        page = mmap.PAGESIZE
        self.layout = layout
        self.rows = rows
        if file is None:
            self._stride = -(-max(layout.size * SPARE, MIN_COUNTERS) * COUNTER_BYTES // page) * page
            file = os.memfd_create("tlstunnel-counters", os.MFD_CLOEXEC)
            os.ftruncate(file, page + rows * self._stride)
        else:
            self._stride = (os.fstat(file).st_size - page) // rows
        self.fd = file
        self._capacity = self._stride // COUNTER_BYTES
        self._memory = mmap.mmap(file, page + rows * self._stride)
        self._view = memoryview(self._memory)
        self._header = self._view[:page].cast("q")
        self._counters = self._view[page:].cast("q")

    def __del__(self) -> None:
        os.close(self.fd)

    def row(self, index: int) -> Row:
        """A row to write to. Called by the supervisor before it forks the row's owner, so that readers see the row."""
        if not 0 <= index < self.rows:
            raise IndexError(f"row {index} of {self.rows}")
        self._header[0] = max(self._header[0], index + 1)
        return Row(self, index, self._slice(index, self._capacity))

    def grow(self, layout: Layout) -> None:
        """Use the layout of series that extend the present ones.

        Raises:
            StartupError: the rows have no room for it; only a restart makes more.
        """
        if layout.size > self._capacity:
            raise StartupError(
                f"metrics: the new configuration needs {layout.size} counters and there is room for {self._capacity}; "
                "restart tlstunnel instead of reloading it"
            )
        self.layout = layout

    @property
    def rows_used(self) -> int:
        """How many rows have been handed out so far."""
        return self._header[0]

    def total(self, counter: int) -> int:
        """The sum of one counter over all rows, as it is now."""
        capacity = self._capacity
        return sum(self._counters[counter : self._header[0] * capacity : capacity])

    def snapshot(self) -> Snapshot:
        """A copy of all rows handed out so far."""
        return Snapshot([bytes(self._slice(index, self.layout.size)) for index in range(self._header[0])])

    def _slice(self, index: int, counters: int) -> memoryview:
        start = mmap.PAGESIZE + index * self._stride
        return self._view[start : start + counters * COUNTER_BYTES]
