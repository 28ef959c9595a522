"""The counters: cells in shared memory, one row for each process that counts.

The supervisor makes a `Counters` before it forks. The memory is an anonymous file (memfd), so it needs no name and no
permission, and it outlives any worker: a counter is only lost together with the whole daemon. Workers inherit it; the
admin process, which may not be forked from a memory with keys in it, is handed its descriptor.

    header   how many rows have been handed out
    row 0    the supervisor's own counters
    row 1..  one for each worker slot; whoever replaces a dead worker goes on counting in its row

Every cell is eight bytes, aligned, and is written by exactly one process (the one that owns the row), so an increment
is a plain load and store (about 65 ns from Python) and needs no lock. Readers in other processes add the rows up; they
see each cell either before or after an increment. `series` says which cell means what. Most cells are
int64; a few are float64 (sums of seconds), and the same memory is offered under both types.

Counters only grow. Gauges (open connections) describe a living process, so when one dies its gauges must be cleared by
the supervisor: `Row.clear_gauges`.

A row has room for more cells than the first configuration needs, because a reload may bring more services: the schema
then grows at its end and everything already counted stays where it is. Unused room costs address space, not memory:
pages that nobody touches do not exist.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass

from tlstunnel.errors import StartupError

CELL_BYTES = 8
SUPERVISOR_ROW = 0
SPARE = 4
"""A row can grow to this many times the cells of the first configuration."""
MIN_CELLS = 32 * 1024
"""And to at least so many, some eighty services: a daemon that was started with one may be given many by reloads, and
services that a reload removed keep their cells."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the counters must know of a schema: how many cells a row has and which of them are gauges."""

    cells: int
    gauges: tuple[int, ...] = ()


class Row:
    """One process's counters. `cells` and `floats` are the same memory as int64 and as float64."""

    __slots__ = ("_counters", "cells", "floats", "index")

    def __init__(self, counters: Counters, index: int, view: memoryview) -> None:
        self._counters = counters
        self.index = index
        self.cells = view.cast("q")
        self.floats = view.cast("d")

    def clear_gauges(self) -> None:
        """Set this row's gauges to zero: its process is gone and has nothing open any more."""
        for gauge in self._counters.layout.gauges:
            self.cells[gauge] = 0


class Snapshot:
    """The rows as they were at one moment, for adding up. A copy: nothing in it moves."""

    __slots__ = ("_floats", "_rows", "totals")

    def __init__(self, rows: Sequence[bytes]) -> None:
        self._rows = [memoryview(row).cast("q") for row in rows]
        self._floats = [memoryview(row).cast("d") for row in rows]
        self.totals: list[int] = [sum(column) for column in zip(*self._rows, strict=True)]

    def __len__(self) -> int:
        return len(self._rows)

    def of_row(self, row: int, cell: int) -> int:
        """One row's value; 0 for a row that has not been handed out."""
        return self._rows[row][cell] if row < len(self._rows) else 0

    def total(self, cell: int) -> int:
        return self.totals[cell]

    def total_float(self, cell: int) -> float:
        return sum(row[cell] for row in self._floats)


class Counters:
    """Rows of cells in memory shared with every process forked after this was made.

    Args:
        layout: the cells of the first configuration.
        rows: the supervisor's and one for each worker that may live at the same time, drained generations included.
        file: in a process that shows another's counters: its `fd` there.
    """

    __slots__ = ("_capacity", "_cells", "_header", "_memory", "_stride", "_view", "fd", "layout", "rows")

    def __init__(self, layout: Layout, rows: int, file: int | None = None) -> None:
        page = mmap.PAGESIZE
        self.layout = layout
        self.rows = rows
        if file is None:
            self._stride = -(-max(layout.cells * SPARE, MIN_CELLS) * CELL_BYTES // page) * page
            file = os.memfd_create("tlstunnel-counters", os.MFD_CLOEXEC)
            os.ftruncate(file, page + rows * self._stride)
        else:
            self._stride = (os.fstat(file).st_size - page) // rows
        self.fd = file
        self._capacity = self._stride // CELL_BYTES
        self._memory = mmap.mmap(file, page + rows * self._stride)
        self._view = memoryview(self._memory)
        self._header = self._view[:page].cast("q")
        self._cells = self._view[page:].cast("q")

    def __del__(self) -> None:
        os.close(self.fd)

    def row(self, index: int) -> Row:
        """A row to write to. Called by the supervisor before it forks the row's owner, so that readers see the row."""
        if not 0 <= index < self.rows:
            raise IndexError(f"row {index} of {self.rows}")
        self._header[0] = max(self._header[0], index + 1)
        return Row(self, index, self._slice(index, self._capacity))

    def grow(self, layout: Layout) -> None:
        """Use a schema that was extended from the present one.

        Raises:
            StartupError: the rows have no room for it; only a restart makes more.
        """
        if layout.cells > self._capacity:
            raise StartupError(
                f"metrics: the new configuration needs {layout.cells} cells and a row has room for {self._capacity}; "
                "restart tlstunnel instead of reloading it"
            )
        self.layout = layout

    @property
    def rows_used(self) -> int:
        """How many rows have been handed out so far."""
        return self._header[0]

    def total(self, cell: int) -> int:
        """The sum of one cell over all rows, as it is now."""
        capacity = self._capacity
        return sum(self._cells[cell : self._header[0] * capacity : capacity])

    def snapshot(self) -> Snapshot:
        """A copy of all rows handed out so far."""
        cells = self.layout.cells
        return Snapshot([bytes(self._slice(index, cells)) for index in range(self._header[0])])

    def _slice(self, index: int, cells: int) -> memoryview:
        start = mmap.PAGESIZE + index * self._stride
        return self._view[start : start + cells * CELL_BYTES]
