"""The counters: exact totals over processes, counters that survive a death, gauges that do not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tlstunnel.errors import StartupError
from tlstunnel.observe.counters import Counters, Layout


def test_an_increment_in_any_row_is_in_the_total() -> None:
    counters = Counters(Layout(10), rows=3)
    counters.row(0).counters[4] += 2
    counters.row(2).counters[4] += 40
    assert counters.snapshot().total(4) == 42
    assert counters.snapshot().of_row(2, 4) == 40


def test_sums_of_seconds_are_kept_as_floats_in_the_same_memory() -> None:
    counters = Counters(Layout(10), rows=3)
    counters.row(1).floats[7] += 0.25
    counters.row(2).floats[7] += 0.5
    assert counters.snapshot().total_float(7) == 0.75


def test_rows_do_not_overlap() -> None:
    counters = Counters(Layout(600), rows=4)
    for index in range(4):
        for counter in (0, 599):
            counters.row(index).counters[counter] = 10**index
    snapshot = counters.snapshot()
    assert [snapshot.of_row(index, 599) for index in range(4)] == [1, 10, 100, 1000]
    assert snapshot.total(0) == 1111


def test_a_snapshot_does_not_move_with_the_counters() -> None:
    counters = Counters(Layout(1), rows=1)
    row = counters.row(0)
    snapshot = counters.snapshot()
    row.counters[0] += 1
    assert snapshot.total(0) == 0


def test_rows_nobody_was_given_are_not_read() -> None:
    counters = Counters(Layout(1), rows=1000)
    counters.row(3)
    assert len(counters.snapshot()) == 4
    assert counters.snapshot().of_row(500, 0) == 0


def test_a_row_that_does_not_exist_is_refused() -> None:
    with pytest.raises(IndexError, match="row 2 of 2"):
        Counters(Layout(1), rows=2).row(2)


def test_clearing_gauges_leaves_counters_and_other_rows_alone() -> None:
    counters = Counters(Layout(4, gauges=(1, 3)), rows=2)
    for index in range(2):
        for counter in range(4):
            counters.row(index).counters[counter] = 5
    counters.row(1).clear_gauges()
    assert counters.row(1).counters[:4].tolist() == [5, 0, 5, 0]
    assert counters.row(0).counters[:4].tolist() == [5, 5, 5, 5]


def test_growing_keeps_what_was_counted() -> None:
    counters = Counters(Layout(100), rows=2)
    row = counters.row(1)
    row.counters[99] = 7
    counters.grow(Layout(200, gauges=(150,)))
    row.counters[150] = 1
    assert (counters.snapshot().total(99), counters.snapshot().total(150)) == (7, 1)


def test_growing_beyond_the_room_says_to_restart() -> None:
    with pytest.raises(StartupError, match="restart tlstunnel instead of reloading it"):
        Counters(Layout(100), rows=2).grow(Layout(100_000))


PROGRAM = """
import os, sys
from tlstunnel.observe.counters import Counters, Layout
counters = Counters(Layout(8, gauges=(1,)), rows=4)
pids = []
for row in (1, 2, 3):
    own = counters.row(row).counters
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        for _ in range(20000):
            own[0] += row
        own[1] = 9
        os.write(write, b"x")
        os.read(os.pipe()[0], 1)
    assert os.read(read, 1) == b"x"
    pids.append(pid)
for row, pid in enumerate(pids, 1):
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    counters.row(row).clear_gauges()
print(counters.snapshot().total(0), counters.snapshot().total(1))
"""


def test_totals_are_exact_after_every_worker_was_killed() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(20000 * (1 + 2 + 3)), "0"]
