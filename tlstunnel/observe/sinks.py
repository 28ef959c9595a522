"""Where log lines go: stderr, a file, or syslog, behind a queue. A write never waits.

The log's reader may stop reading (a full pipe, a stopped journal). The tunnel then goes on, and lines are lost and
counted. So no descriptor is written to in a way that can block:

    socket (the journal's stderr, syslog)   send with MSG_DONTWAIT
    pipe, terminal                          opened once more through /proc, non-blocking: O_NONBLOCK on the inherited
                                            description would also change it for other processes, a shell for one
    where /proc cannot do that              poll first; a pipe that polls writable takes PIPE_BUF bytes (pipe(7))
    file                                    written as it is: the page cache takes it; a named pipe in its place is
                                            opened non-blocking, and needs its reader first (fifo(7))

Several processes share one stderr. A write of whole lines, of at most `MAX_WRITE` bytes, is not torn apart by the
others' (pipe(7), and O_APPEND for files).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from tlstunnel.errors import StartupError, words_of

MAX_WRITE = select.PIPE_BUF
MAX_PENDING = 256 * 1024
"""Bytes of lines waiting for a reader that has stopped reading."""
SYSLOG_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3}
"""Levels as syslog(3) and sd-daemon(3) number them."""
_FACILITY_DAEMON = 3
_FILE_MODE = 0o640


class Sink:
    """One place for lines: a descriptor.

    Attributes:
        batches: whether several lines may go into one write.
        stamps: whether the place notes the time of a line itself.
    """

    batches = True
    stamps = False
    is_terminal = False

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def start(self, level: str) -> bytes:
        """What a line of this level begins with."""
        return b""

    def write(self, data: bytes) -> bool:
        """Write whole lines, at most MAX_WRITE bytes; False if they would have to wait.

        Raises:
            OSError: the place takes nothing more (disk full, reader gone).
        """
        try:
            return self._write(data) > 0
        except BlockingIOError:
            return False

    def _write(self, data: bytes) -> int:
        return os.write(self._fd, data)

    def wait(self, within_s: float) -> None:
        """Wait until a write may be worth another try, so long at most: at a process's end, when nothing else is to
        be done."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll(within_s * 1000)

    def reopen(self) -> None:
        """Open the place again by its name, after a rotation; nothing to do where it has none.

        Raises:
            OSError: that failed; the place open so far stays in use.
        """

    def close(self) -> None:
        """Give back what was opened; nothing is written afterwards."""
        os.close(self._fd)


class StreamSink(Sink):
    """A descriptor that was inherited, normally stderr; the program that gave it rotates what is behind it.

    Args:
        fd: the descriptor. It is left open and unchanged.
        environ: where systemd says that stderr is the journal; then lines begin with their priority (sd-daemon(3)).
    """

    def __init__(self, fd: int = 2, environ: Mapping[str, str] = os.environ) -> None:
        mode = os.fstat(fd).st_mode
        self.is_terminal = os.isatty(fd)
        self.stamps = _is_journal(fd, environ)
        self._socket: socket.socket | None = None
        self._poll: select.poll | None = None
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
            super().__init__(self._socket.fileno())
        else:
            super().__init__(os.dup(fd) if stat.S_ISREG(mode) else self._open_again(fd))

    def start(self, level: str) -> bytes:
        return b"<%d>" % SYSLOG_PRIORITY[level] if self.stamps else b""

    def _write(self, data: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        if self._poll is not None and not self._poll.poll(0):
            return 0
        return super()._write(data)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        else:
            super().close()

    def _open_again(self, fd: int) -> int:
        try:
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            self._poll = select.poll()
            again = os.dup(fd)
            self._poll.register(again, select.POLLOUT)
            return again


class FileSink(Sink):
    """A file, appended to, made if missing.

    It is opened before privileges are dropped. For `reopen` in a worker the new file must be writable by the worker's
    user: let logrotate create it (`create 0640 USER GROUP`).

    Raises:
        StartupError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            super().__init__(self._open())
        except OSError as exc:
            why = words_of(exc)
            if exc.errno == errno.ENXIO:
                why = "nobody reads this pipe, or it is a socket"
            raise StartupError(f"{path}: cannot be opened for the log: {why}; choose another --log-target") from exc

    def reopen(self) -> None:
        fresh = self._open()
        os.dup2(fresh, self._fd, inheritable=False)
        os.close(fresh)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(self._path, flags, _FILE_MODE)


class SyslogSink(Sink):
    """The local syslog daemon's datagram socket, in the form that syslog(3) writes (RFC 3164 section 4).

    Args:
        path: the socket.
    """

    batches = False
    stamps = True

    def __init__(self, path: str = "/dev/log") -> None:
        self._path = path
        try:
            self._socket = self._connected()
        except OSError as exc:
            raise StartupError(
                f"{path}: no syslog daemon answers: {words_of(exc)}; choose another --log-target"
            ) from exc
        super().__init__(self._socket.fileno())

    def start(self, level: str) -> bytes:
        now = time.localtime()
        month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[now.tm_mon - 1]
        priority = _FACILITY_DAEMON << 3 | SYSLOG_PRIORITY[level]
        stamp = f"{month} {now.tm_mday:2} {now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02}"
        return f"<{priority}>{stamp} tlstunnel[{os.getpid()}]: ".encode()

    def _write(self, data: bytes) -> int:
        line = data.removesuffix(b"\n")
        try:
            return self._socket.send(line, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise
        except OSError:
            # The daemon was restarted: its socket has the same name and is another one.
            self.reopen()
            return self._socket.send(line, socket.MSG_DONTWAIT)

    def reopen(self) -> None:
        fresh = self._connected()
        self._socket.close()
        self._socket, self._fd = fresh, fresh.fileno()

    def close(self) -> None:
        self._socket.close()

    def _connected(self) -> socket.socket:
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            fresh.connect(self._path)
        except OSError:
            fresh.close()
            raise
        return fresh


class Outbox:
    """Lines on their way to a sink: bounded, in whole lines, in few large writes where the sink takes those."""

    __slots__ = ("_lines", "_sink", "_size", "is_refused", "lost")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._lines: deque[bytes] = deque()
        self._size = 0
        self.lost = 0
        """Lines dropped for want of room, or because the sink failed, since this was last set to 0."""
        self.is_refused = False
        """Whether the sink's last answer was that it would have to wait."""

    def __len__(self) -> int:
        return len(self._lines)

    def put(self, level: str, text: str) -> bool:
        """Queue a line; False if there was no room. What a line cannot hold in one write is cut off."""
        line = (self._sink.start(level) + text.encode("utf-8", "backslashreplace"))[: MAX_WRITE - 1] + b"\n"
        if self._size + len(line) > MAX_PENDING:
            self.lost += 1
            return False
        self._lines.append(line)
        self._size += len(line)
        return True

    def flush(self) -> int:
        """Write what can be written now. Returns how many lines were lost to errors of the sink."""
        failed = 0
        self.is_refused = False
        while self._lines:
            taken = 1
            data = self._lines[0]
            if self._sink.batches and len(self._lines) > 1:
                taken, data = self._batch()
            try:
                if not self._sink.write(data):
                    self.is_refused = True
                    break
            except OSError:
                failed += taken
            for _ in range(taken):
                self._size -= len(self._lines.popleft())
        self.lost += failed
        return failed

    def report_loss(self, level: str, text: str) -> None:
        """Write the line that reports the loss, if that can be written; else it stays to be reported."""
        self.is_refused = False
        with contextlib.suppress(OSError):
            if self._sink.write(self._sink.start(level) + text.encode() + b"\n"):
                self.lost = 0
            else:
                self.is_refused = True

    def abandon(self) -> int:
        """Give up what waits: it is lost. Returns how many lines that were."""
        given_up = len(self._lines)
        self._lines.clear()
        self._size = 0
        self.lost += given_up
        return given_up

    def _batch(self) -> tuple[int, bytes]:
        taken, size = 0, 0
        for line in self._lines:
            if size + len(line) > MAX_WRITE:
                break
            taken, size = taken + 1, size + len(line)
        return taken, b"".join(self._lines[index] for index in range(taken))


def open_sink(target: str, environ: Mapping[str, str] = os.environ) -> Sink:
    """The sink of a log target: `stderr`, `syslog` or `file:PATH` (checked when the configuration was read).

    Raises:
        StartupError: the file cannot be opened or no syslog daemon answers.
    """
    if target == "syslog":
        return SyslogSink()
    if target.startswith("file:"):
        return FileSink(Path(target.removeprefix("file:")))
    return StreamSink(environ=environ)


def _is_journal(fd: int, environ: Mapping[str, str]) -> bool:
    """Whether the descriptor is the journal's: $JOURNAL_STREAM holds its device and inode (systemd.exec(5))."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    with contextlib.suppress(ValueError):
        found = os.fstat(fd)
        return (found.st_dev, found.st_ino) == (int(device), int(inode))
    return False
