"""Where the log goes: files, the journal, syslog, terminals, and a pipe that several processes share."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.logs import ListSink, log_on
from tests.unit.test_log_lines import record
from tlstunnel.config.model import Log as LogSettings
from tlstunnel.errors import StartupError
from tlstunnel.observe.log import open_log
from tlstunnel.observe.sinks import StreamSink, SyslogSink
from tlstunnel.outcome import CloseReason


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


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
    with pytest.raises(StartupError, match="no such file or directory; choose another --log-target"):
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
    with pytest.raises(StartupError, match="no syslog daemon answers: no such file or directory; choose another"):
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
