"""The log never waits, never tears a line, says what it left out, and writes one JSON record per connection."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.admin_rig import config
from tests.unit.test_log_lines import record
from tlstunnel.config.model import Log as LogSettings
from tlstunnel.errors import StartupError
from tlstunnel.observe.board import Board
from tlstunnel.observe.log import BURST, INTERVAL_S, Log, open_log
from tlstunnel.observe.outbox import MAX_PENDING
from tlstunnel.observe.schema import schema_for
from tlstunnel.observe.sinks import MAX_WRITE, FileSink, StreamSink, SyslogSink
from tlstunnel.outcome import CloseReason


class ListSink:
    """Keeps each write; refuses when told to."""

    batches = True
    stamps = True
    is_terminal = False

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.takes = True
        self.error: OSError | None = None

    def start(self, level: str) -> bytes:
        return b""

    def write(self, data: bytes) -> bool:
        if self.error is not None:
            raise self.error
        if self.takes:
            self.writes.append(data)
        return self.takes

    def reopen(self) -> None:
        raise AssertionError

    def close(self) -> None:
        self.takes = False

    @property
    def lines(self) -> list[str]:
        return b"".join(self.writes).decode().splitlines()


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


def log_on(sink: Any, *, level: str = "info", form: str = "text", **options: Any) -> Log:
    return Log(sink, LogSettings(level=level, format=form), **options)


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
    schema = schema_for(config())
    row = Board(schema.layout, rows=1).row(0)
    log.count_on(row, schema.process)
    sink.error = OSError(28, "No space left on device")
    for _ in range(3):
        log.connection(record(CloseReason.FINISHED))
    log.tick()
    assert row.cells[schema.process.log_dropped] == 3
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
def test_refusals_are_noise_in_either_format_and_their_number_adds_up(
    form: str, sink: ListSink, clock: FakeClock
) -> None:
    log = log_on(sink, form=form, monotonic=clock)
    for number in range(500):
        log.rejected("orders", f"192.0.2.7:{number}", CloseReason.REJECT_PER_IP)
    clock.now += INTERVAL_S
    log.tick()
    assert len(sink.lines) == BURST + 1
    if form == "json":
        events = [json.loads(line) for line in sink.lines]
        assert sum(event.get("count", 1) for event in events) == 500
        assert events[-1]["event"] == "suppressed"


def test_suppressed_lines_are_counted_on_the_board(sink: ListSink) -> None:
    schema = schema_for(config())
    row = Board(schema.layout, rows=1).row(0)
    log = log_on(sink)
    log.count_on(row, schema.process)
    for _ in range(BURST + 7):
        log.connection(record(CloseReason.HANDSHAKE_EOF, full=False))
    assert row.cells[schema.process.log_suppressed] == 7


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


# Places.


def test_a_rotated_file_is_written_anew_after_reopen(tmp_path: Path) -> None:
    path = tmp_path / "tunnel.log"
    log = open_log(LogSettings(target=f"file:{path}"), {})
    log.message("info", "x", "before")
    path.rename(tmp_path / "tunnel.log.1")
    log.message("info", "x", "between")
    log.reopen()
    log.message("info", "x", "after")
    assert [line.split()[-1] for line in (tmp_path / "tunnel.log.1").read_text().splitlines()] == ["before", "between"]
    assert [line.split()[-1] for line in path.read_text().splitlines()] == ["after"]
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_reopen_that_fails_goes_on_with_the_old_file_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = open_log(LogSettings(target=f"file:{folder / 'tunnel.log'}"), {})
    moved = tmp_path / "moved"
    folder.rename(moved)
    log.reopen()
    assert "the old one stays in use" in (moved / "tunnel.log").read_text()


def test_a_file_that_cannot_be_opened_is_one_line_about_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="No such file or directory; choose another --log-target"):
        open_log(LogSettings(target=f"file:{tmp_path}/none/tunnel.log"), {})


def test_lines_for_the_journal_begin_with_their_priority_and_have_no_time() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        about = os.fstat(theirs.fileno())
        stream = f"{about.st_dev}:{about.st_ino}"
        log = log_on(StreamSink(theirs.fileno(), {"JOURNAL_STREAM": stream}))
        log.message("error", "x", "oh")
        log.message("info", "x", "hello")
        log.close()
        assert ours.recv(1000) == b"<3>error   oh\n<6>info    hello\n"


@pytest.mark.parametrize("stream", ["1:2", "", "nonsense", "a:b"])
def test_another_journal_stream_is_not_ours(stream: str, pipe: tuple[int, int]) -> None:
    log_on(StreamSink(pipe[1], {"JOURNAL_STREAM": stream})).message("info", "x", "hello")
    assert os.read(pipe[0], 100).startswith(b"20")


def test_syslog_gets_a_datagram_per_line_with_priority_and_name(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(tmp_path / "log"))
        log = log_on(SyslogSink(str(tmp_path / "log")))
        log.message("warning", "x", "one")
        log.message("error", "x", "two")
        log.close()
        first, second = daemon.recv(1000).decode(), daemon.recv(1000).decode()
    assert first.startswith("<28>")
    assert first.endswith(f" tlstunnel[{os.getpid()}]: warning one")
    assert second.startswith("<27>")


def test_a_restarted_syslog_daemon_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "log"

    def daemon() -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        made.bind(str(path))
        return made

    first = daemon()
    log = log_on(SyslogSink(str(path)))
    log.message("info", "x", "one")
    first.close()
    path.unlink()
    log.message("info", "x", "lost")
    with daemon() as second:
        log.message("info", "x", "two")
        assert second.recv(1000).decode().endswith("two")
        log.close()
        assert "lines lost: 1" in second.recv(1000).decode()


def test_no_syslog_daemon_is_one_line_about_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="no syslog daemon answers: No such file or directory; choose another"):
        SyslogSink(str(tmp_path / "log"))


@pytest.mark.parametrize(("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour_is_for_terminals_that_want_it(
    environ: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = os.openpty()
    keep = os.dup(2)
    os.dup2(theirs, 2)
    try:
        open_log(LogSettings(), environ).message("info", "x", "hello")
    finally:
        os.dup2(keep, 2)
        os.close(keep)
    assert (b"\x1b[" in os.read(ours, 1000)) is coloured
    os.close(ours)
    os.close(theirs)


def test_two_processes_share_a_pipe_without_tearing_lines(pipe: tuple[int, int]) -> None:
    read, write = pipe
    children = []
    for _ in range(2):
        child = os.fork()
        if not child:
            log = log_on(StreamSink(write, {}), form="json", batched=True)
            for _ in range(40):
                for _ in range(10):
                    log.connection(record(CloseReason.FINISHED))
                while log.has_pending:
                    log.flush()
            os._exit(0)
        children.append(child)
    received = bytearray()
    while received.count(b"\n") < 800:
        received.extend(os.read(read, 1 << 16))
    for child in children:
        os.waitpid(child, 0)
    assert all(json.loads(line)["event"] == "connection" for line in received.splitlines())
