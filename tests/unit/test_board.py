"""The board: exact totals over processes, counters that survive a death, gauges that do not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tlstunnel.errors import StartupError
from tlstunnel.observe.counters import Board, Layout


def test_an_increment_in_any_row_is_in_the_total() -> None:
    board = Board(Layout(10), rows=3)
    board.row(0).cells[4] += 2
    board.row(2).cells[4] += 40
    assert board.snapshot().total(4) == 42
    assert board.snapshot().of_row(2, 4) == 40


def test_sums_of_seconds_are_kept_as_floats_in_the_same_memory() -> None:
    board = Board(Layout(10), rows=3)
    board.row(1).floats[7] += 0.25
    board.row(2).floats[7] += 0.5
    assert board.snapshot().total_float(7) == 0.75


def test_rows_do_not_overlap() -> None:
    board = Board(Layout(600), rows=4)
    for index in range(4):
        for cell in (0, 599):
            board.row(index).cells[cell] = 10**index
    snapshot = board.snapshot()
    assert [snapshot.of_row(index, 599) for index in range(4)] == [1, 10, 100, 1000]
    assert snapshot.total(0) == 1111


def test_a_snapshot_does_not_move_with_the_board() -> None:
    board = Board(Layout(1), rows=1)
    row = board.row(0)
    snapshot = board.snapshot()
    row.cells[0] += 1
    assert snapshot.total(0) == 0


def test_rows_nobody_was_given_are_not_read() -> None:
    board = Board(Layout(1), rows=1000)
    board.row(3)
    assert len(board.snapshot()) == 4
    assert board.snapshot().of_row(500, 0) == 0


def test_a_row_that_does_not_exist_is_refused() -> None:
    with pytest.raises(IndexError, match="row 2 of 2"):
        Board(Layout(1), rows=2).row(2)


def test_clearing_gauges_leaves_counters_and_other_rows_alone() -> None:
    board = Board(Layout(4, gauges=(1, 3)), rows=2)
    for index in range(2):
        for cell in range(4):
            board.row(index).cells[cell] = 5
    board.row(1).clear_gauges()
    assert board.row(1).cells[:4].tolist() == [5, 0, 5, 0]
    assert board.row(0).cells[:4].tolist() == [5, 5, 5, 5]


def test_growing_keeps_what_was_counted() -> None:
    board = Board(Layout(100), rows=2)
    row = board.row(1)
    row.cells[99] = 7
    board.grow(Layout(200, gauges=(150,)))
    row.cells[150] = 1
    assert (board.snapshot().total(99), board.snapshot().total(150)) == (7, 1)


def test_growing_beyond_the_room_says_to_restart() -> None:
    with pytest.raises(StartupError, match="restart tlstunnel instead of reloading it"):
        Board(Layout(100), rows=2).grow(Layout(100_000))


PROGRAM = """
import os, sys
from tlstunnel.observe.counters import Board, Layout
board = Board(Layout(8, gauges=(1,)), rows=4)
pids = []
for row in (1, 2, 3):
    cells = board.row(row).cells
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        for _ in range(20000):
            cells[0] += row
        cells[1] = 9
        os.write(write, b"x")
        os.read(os.pipe()[0], 1)
    assert os.read(read, 1) == b"x"
    pids.append(pid)
for row, pid in enumerate(pids, 1):
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    board.row(row).clear_gauges()
print(board.snapshot().total(0), board.snapshot().total(1))
"""


def test_totals_are_exact_after_every_worker_was_killed() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(20000 * (1 + 2 + 3)), "0"]
