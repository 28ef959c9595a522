"""A process's end: the log's reader is waited for, within a bound, and what it does not take is counted and told."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.admin_rig import config
from tests.unit.test_log_lines import record
from tlstunnel.config.model import Log as LogSettings
from tlstunnel.daemon.processes.workforce import GRACE_S
from tlstunnel.observe.counters import Counters, Row
from tlstunnel.observe.log import ENDING_S, Log
from tlstunnel.observe.series import ProcessSeries, series_for
from tlstunnel.observe.sinks import MAX_PENDING, FileSink, StreamSink, SyslogSink
from tlstunnel.outcome import CloseReason
from tlstunnel.relay.linger import LINGER_S


class Reader:
    """A sink whose reader takes nothing until it has been waited for; the clock moves only while it is."""

    batches = True
    stamps = True
    is_terminal = False

    def __init__(self, *, wakes_after: int | None, nap_s: float = 0.5) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        self.written = b""
        self._wakes_after, self._nap_s = wakes_after, nap_s

    def start(self, level: str) -> bytes:
        return b""

    def write(self, data: bytes) -> bool:
        if self._wakes_after is None or len(self.waits) < self._wakes_after:
            return False
        self.written += data
        return True

    def wait(self, within_s: float) -> None:
        self.waits.append(within_s)
        self.now += min(within_s, self._nap_s)

    def reopen(self) -> None:
        raise AssertionError

    def close(self) -> None:
        self._wakes_after = None


def log_on(sink: Any, clock: Callable[[], float] | None = None) -> tuple[Log, Row, ProcessSeries]:
    """A worker's log, with the row it counts in."""
    series = series_for(config())
    row = Counters(series.layout, rows=1).row(0)
    log = Log(sink, LogSettings(format="json"), **({} if clock is None else {"monotonic": clock}))
    log.begin_in_child(batched=True)
    log.count_on(row, series.process)
    return log, row, series.process


def fill(log: Log, lines: int) -> None:
    for _ in range(lines):
        log.connection(record(CloseReason.FINISHED))
    log.flush()


def test_a_reader_that_comes_back_in_time_gets_every_line() -> None:
    reader = Reader(wakes_after=3)
    log, row, series = log_on(reader, lambda: reader.now)
    fill(log, 50)
    assert row.counters[series.log_waiting] == 50
    assert log.finish() == 0
    assert reader.written.count(b"\n") == 50
    assert (
        row.counters[series.log_waiting],
        row.counters[series.log_unreported],
        row.counters[series.log_dropped],
    ) == (0, 0, 0)


def test_a_reader_that_is_stuck_is_waited_for_so_long_and_no_longer_and_the_loss_is_counted() -> None:
    reader = Reader(wakes_after=None)
    log, row, series = log_on(reader, lambda: reader.now)
    fill(log, 50)
    assert log.finish() == 50
    assert reader.now == 1000.0 + ENDING_S
    assert (
        row.counters[series.log_waiting],
        row.counters[series.log_unreported],
        row.counters[series.log_dropped],
    ) == (0, 50, 50)


def test_lines_that_found_no_room_before_the_end_are_among_the_lost() -> None:
    reader = Reader(wakes_after=None)
    log, row, series = log_on(reader, lambda: reader.now)
    sent = 2 * MAX_PENDING // 500
    fill(log, sent)
    assert 0 < row.counters[series.log_waiting] < sent
    assert log.finish() == sent == row.counters[series.log_dropped]


def test_a_reader_that_comes_back_is_told_what_it_missed() -> None:
    reader = Reader(wakes_after=1)
    log, row, series = log_on(reader, lambda: reader.now)
    fill(log, 2 * MAX_PENDING // 500)
    missed = row.counters[series.log_dropped]
    assert log.finish() == 0
    assert f'"count":{missed}'.encode() in reader.written.splitlines()[-1]


def test_where_nothing_is_waiting_nobody_is_waited_for() -> None:
    reader = Reader(wakes_after=0)
    log, _, _ = log_on(reader, lambda: reader.now)
    fill(log, 3)
    assert log.finish() == 0
    assert reader.waits == []


def test_lines_held_back_as_noise_are_told_at_the_end_too() -> None:
    reader = Reader(wakes_after=0)
    log, _, _ = log_on(reader, lambda: reader.now)
    for _ in range(1 + 7):
        log.rejected("orders", "192.0.2.7:1", CloseReason.REJECT_PER_IP)
    log.finish()
    assert b'"count":7' in reader.written.splitlines()[-1]


def test_a_reader_that_is_gone_is_not_waited_for() -> None:
    read, write = os.pipe()
    sink = StreamSink(write, {})
    os.close(read)
    os.close(write)
    log, row, series = log_on(sink)
    fill(log, 5)
    assert log.finish(within_s=3600.0) == 5 == row.counters[series.log_dropped]
    log.close()


def test_a_full_disk_is_not_waited_for() -> None:
    log, _, _ = log_on(FileSink(Path("/dev/full")))
    fill(log, 5)
    assert log.finish(within_s=3600.0) == 5
    log.close()


def test_a_pipe_that_is_read_late_takes_everything() -> None:
    """The reader begins when the writer already waits for it: both would hang if the wait did not end by reading."""
    read, write = os.pipe()
    sink = StreamSink(write, {})
    os.close(write)
    log, _, _ = log_on(sink)
    fill(log, 300)
    assert log.has_pending
    received = bytearray()

    def drain() -> None:
        while data := os.read(read, 1 << 16):
            received.extend(data)

    late = threading.Thread(target=drain)
    late.start()
    assert log.finish(within_s=3600.0) == 0
    log.close()
    late.join()
    os.close(read)
    assert received.count(b"\n") == 300


def test_a_syslog_socket_that_is_blocked_and_read_late_takes_everything(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(path)
        log, _, _ = log_on(SyslogSink(path))
        fill(log, 100)
        assert log.has_pending
        received: list[bytes] = []
        late = threading.Thread(target=lambda: received.extend(daemon.recv(1 << 16) for _ in range(100)))
        late.start()
        assert log.finish(within_s=3600.0) == 0
        late.join()
        assert len(received) == 100
        log.close()


def test_a_syslog_socket_that_stays_blocked_costs_the_bound_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(path)
        log, row, series = log_on(SyslogSink(path))
        fill(log, 100)
        waiting = row.counters[series.log_waiting]
        assert 0 < waiting < 100
        assert log.finish(within_s=0.05) == waiting == row.counters[series.log_dropped]
        log.close()


def test_a_child_writes_nothing_of_its_parents_and_counts_nothing_in_its_row() -> None:
    reader = Reader(wakes_after=None)
    log, row, series = log_on(reader, lambda: reader.now)
    fill(log, 9)
    log.begin_in_child()
    assert not log.has_pending
    assert log.finish() == 0
    assert row.counters[series.log_waiting] == 9, "the parent's row is the parent's"


@pytest.mark.parametrize("before_s", [LINGER_S + 0.5])
def test_a_worker_that_waits_for_the_reader_ends_before_it_would_be_killed_as_hanging(before_s: float) -> None:
    assert before_s + ENDING_S < GRACE_S
