"""The log never waits, never tears a line, says what it left out, and writes one JSON record per connection."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.admin_rig import config
from tests.support.logs import ListSink, log_on
from tests.unit.test_log_lines import record
from tlstunnel.observe.counters import Counters
from tlstunnel.observe.log import BURST, INTERVAL_S
from tlstunnel.observe.series import series_for
from tlstunnel.observe.sinks import MAX_PENDING, MAX_WRITE, FileSink, StreamSink
from tlstunnel.outcome import CloseReason, Stage


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


# Never waiting.


def test_a_full_pipe_loses_lines_instead_of_time_and_says_how_many(pipe: tuple[int, int]) -> None:
    read, write = pipe
    log = log_on(StreamSink(write, {}), form="json")
    sent = 3000
    for _ in range(sent):
        log.connection(record(CloseReason.FINISHED))
    os.set_blocking(read, False)
    received = bytearray()

    def drain() -> None:
        while True:
            try:
                received.extend(os.read(read, 1 << 20))
            except BlockingIOError:
                return

    for _ in range(100):
        drain()
        log.flush()
    drain()
    events = [json.loads(line) for line in received.decode().splitlines()]
    lost = [event for event in events if event["event"] == "dropped"]
    assert len(lost) == 1
    assert len(events) - 1 + lost[0]["count"] == sent
    assert 0 < lost[0]["count"] < sent


def test_what_waits_is_bounded(sink: ListSink) -> None:
    sink.takes = False
    log = log_on(sink)
    for _ in range(5000):
        log.connection(record(CloseReason.FINISHED))
    sink.takes = True
    log.flush()
    assert sum(map(len, sink.writes)) < MAX_PENDING + 1000


def test_the_inherited_description_stays_blocking_for_whoever_shares_it(pipe: tuple[int, int]) -> None:
    _, write = pipe
    log_on(StreamSink(write, {})).message("info", "x", "hello")
    assert not fcntl.fcntl(write, fcntl.F_GETFL) & os.O_NONBLOCK


def test_a_full_socket_refuses_instead_of_waiting() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sink = StreamSink(theirs.fileno(), {})
        while sink.write(b"x" * 1000):
            pass
        assert not sink.write(b"y")
        sink.close()


def test_a_full_pipe_is_noticed_even_where_proc_cannot_open_it(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    sink = StreamSink(pipe[1], {})
    writes = 0
    while sink.write(b"x" * MAX_WRITE):
        writes += 1
    assert writes >= 1


def test_a_sink_that_fails_costs_lines_that_are_counted_not_a_crash(sink: ListSink) -> None:
    log = log_on(sink)
    series = series_for(config())
    row = Counters(series.layout, rows=1).row(0)
    log.count_on(row, series.process)
    sink.error = OSError(28, "No space left on device")
    for _ in range(3):
        log.connection(record(CloseReason.FINISHED))
    log.tick()
    assert row.counters[series.process.log_dropped] == 3
    sink.error = None
    log.tick()
    assert sink.lines == ["warning log: nothing took them, lines lost: 3"]
    log.tick()
    assert len(sink.lines) == 1


def test_a_full_disk_is_survived() -> None:
    log = log_on(FileSink(Path("/dev/full")))
    log.message("error", "x", "hello")
    log.tick()


# Whole lines.


def test_batches_are_whole_lines_in_writes_that_are_not_torn(sink: ListSink) -> None:
    log = log_on(sink, batched=True)
    for _ in range(100):
        log.connection(record(CloseReason.FINISHED))
    assert sink.writes == []
    assert log.has_pending
    log.flush()
    assert not log.has_pending
    assert len(sink.writes) < 100
    for write in sink.writes:
        assert len(write) <= MAX_WRITE
        assert write.endswith(b"\n")
    assert len(sink.lines) == 100


def test_a_message_longer_than_a_write_is_cut(sink: ListSink) -> None:
    log_on(sink).message("info", "x", "x" * 100_000)
    assert [len(write) for write in sink.writes] == [MAX_WRITE]
    assert sink.writes[0].endswith(b"\n")


# What is left out.


@pytest.mark.parametrize(("level", "shown"), [("debug", 4), ("info", 4), ("warning", 2), ("error", 1)])
def test_lines_below_the_level_are_not_written(level: str, shown: int, sink: ListSink) -> None:
    log = log_on(sink, level=level)
    log.connection(record(CloseReason.FINISHED))
    log.connection(record(CloseReason.BACKEND_TIMEOUT))
    log.message("info", "x", "hello")
    log.message("error", "x", "oh")
    assert len(sink.lines) == shown
    assert log.is_enabled("error")
    assert log.is_enabled("info") is (level in ("debug", "info"))


def test_json_has_one_record_for_every_connection_that_was_admitted(sink: ListSink) -> None:
    log = log_on(sink, form="json", level="debug")
    reasons = [reason for reason in CloseReason if reason.stage.value != "admit"] * 50
    for reason in reasons:
        log.connection(record(reason, full=False))
    log.tick()
    assert [json.loads(line)["reason"] for line in sink.lines] == [reason.label for reason in reasons]


def test_noise_is_a_few_lines_and_then_a_number(sink: ListSink, clock: FakeClock) -> None:
    log = log_on(sink, monotonic=clock)
    for _ in range(1000):
        log.connection(record(CloseReason.NOT_TLS, full=False))
    log.connection(record(CloseReason.DENIED, full=False))
    assert len(sink.lines) == BURST + 1
    clock.now += INTERVAL_S
    log.tick()
    log.tick()
    said = f"{1000 - BURST} more in {INTERVAL_S:.0f} s like this: orders: {CloseReason.NOT_TLS.text}"
    assert sink.lines[BURST + 1 :] == [f"info    {said}"]
    log.connection(record(CloseReason.NOT_TLS, full=False))
    assert len(sink.lines) == BURST + 3


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_limit_is_one_line_per_interval_service_and_reason_and_the_numbers_add_up(
    form: str, sink: ListSink, clock: FakeClock
) -> None:
    log = log_on(sink, form=form, monotonic=clock)
    for interval in range(1, 3):
        for number in range(500):
            log.rejected("orders", f"192.0.2.7:{number}", CloseReason.REJECT_PER_IP)
        assert len(sink.lines) == 2 * interval - 1
        clock.now += INTERVAL_S
        log.tick()
        assert len(sink.lines) == 2 * interval
    log.rejected("orders", "192.0.2.7:1", CloseReason.REJECT_NETWORK)
    log.rejected("mail", "192.0.2.7:1", CloseReason.REJECT_NETWORK)
    log.tick()
    assert len(sink.lines) == 6
    if form == "json":
        events = [json.loads(line) for line in sink.lines]
        assert sum(event.get("count", 1) for event in events) == 1002
        assert [event["event"] for event in events[:4]] == ["rejected", "suppressed"] * 2


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("reason", [reason for reason in CloseReason if reason.stage is Stage.ADMIT])
def test_behind_a_proxy_limits_are_as_rare_and_wrong_headers_noise_in_either_format(
    form: str, reason: CloseReason, sink: ListSink
) -> None:
    log = log_on(sink, form=form)
    for _ in range(BURST * 3):
        log.connection(record(reason, full=False))
    assert len(sink.lines) == (BURST if reason.label.startswith("proxy_header") else 1)


def test_suppressed_lines_are_counted(sink: ListSink) -> None:
    series = series_for(config())
    row = Counters(series.layout, rows=1).row(0)
    log = log_on(sink)
    log.count_on(row, series.process)
    for _ in range(BURST + 7):
        log.connection(record(CloseReason.HANDSHAKE_EOF, full=False))
    assert row.counters[series.process.log_suppressed] == 7


def test_connections_that_moved_bytes_are_never_noise(sink: ListSink) -> None:
    log = log_on(sink)
    for reason in (CloseReason.BACKEND_TIMEOUT, CloseReason.FINISHED):
        for _ in range(BURST * 3):
            log.connection(record(reason))
    assert len(sink.lines) == BURST * 6


def test_a_backend_that_is_down_does_not_flood_the_log(sink: ListSink) -> None:
    log = log_on(sink)
    for _ in range(BURST * 3):
        log.connection(record(CloseReason.BACKEND_REFUSED))
    assert len(sink.lines) == BURST


def test_an_occasional_message_is_written_once_for_each_service_and_reason(sink: ListSink, clock: FakeClock) -> None:
    log = log_on(sink, monotonic=clock)
    for _ in range(100):
        for service in ("orders", "mail"):
            log.occasional("warning", "accept", f"{service}: not accepting for now", service=service)
    assert len(sink.lines) == 2
    clock.now += INTERVAL_S
    log.tick()
    assert sink.lines[2:] == [
        f"warning 99 more in 10 s like this: {service}: not accepting for now" for service in ("orders", "mail")
    ]
