"""The log: records of connections and messages, filtered, rate-limited where they are noise, never waited for.

    Log.connection, .rejected, .message      what happened
        lines.py                             one line of text or JSON
    _Outbox                                  lines not yet written: bounded; what does not fit is dropped and counted
        sinks.py                             stderr, file, syslog: a write that would wait is refused

A worker's log is batched: lines gather during a turn of the loop and `flush` writes them in a few large writes.
`tick`, about once a second, tries again what could not be written and reports what was left out. Each process has its
own `Log`; all share the descriptors that `open_log` opened before the fork.

What is left out, and how one learns of it:

    below the level         nothing is said
    noise                   connections refused before TLS (stage ADMIT), and in text every one that ended before bytes
                            could move: scanners, strangers, a backend that is down. The first `BURST` per service and
                            reason in `INTERVAL_S` are written, then one line with the number of the others. JSON has
                            a record for every connection that came past admission, so that records can be counted.
    no room to write        one line with the number of lines lost, as soon as there is room again
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Mapping

from tlstunnel.config.model import Log as LogSettings
from tlstunnel.observe.board import Row
from tlstunnel.observe.lines import LEVEL_OF, LEVELS, JSONLines, TextLines, Value
from tlstunnel.observe.noise import INTERVAL_S, Limiter
from tlstunnel.observe.record import ConnectionRecord
from tlstunnel.observe.schema import ProcessSeries
from tlstunnel.observe.sinks import MAX_WRITE, Sink, open_sink
from tlstunnel.outcome import CloseReason, Stage

__all__ = ["INTERVAL_S", "Log", "open_log"]

BURST = 10
"""Lines of one kind in an interval of INTERVAL_S before the rest is only counted."""
MAX_PENDING = 256 * 1024
"""Bytes of lines waiting for a reader that has stopped reading."""


class _Outbox:
    """Lines on their way to a sink."""

    __slots__ = ("_lines", "_sink", "_size", "lost")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._lines: deque[bytes] = deque()
        self._size = 0
        self.lost = 0
        """Lines dropped for want of room, or because the sink failed, since this was last set to 0."""

    def __bool__(self) -> bool:
        return bool(self._lines)

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
        while self._lines:
            taken = 1
            data = self._lines[0]
            if self._sink.batches and len(self._lines) > 1:
                taken, data = self._batch()
            try:
                if not self._sink.write(data):
                    break
            except OSError:
                failed += taken
            for _ in range(taken):
                self._size -= len(self._lines.popleft())
        self.lost += failed
        return failed

    def admit_loss(self, level: str, text: str) -> None:
        """Say how much was lost, if that can be written; else it stays to be said."""
        with contextlib.suppress(OSError):
            if self._sink.write(self._sink.start(level) + text.encode() + b"\n"):
                self.lost = 0

    def _batch(self) -> tuple[int, bytes]:
        taken, size = 0, 0
        for line in self._lines:
            if size + len(line) > MAX_WRITE:
                break
            taken, size = taken + 1, size + len(line)
        return taken, b"".join(self._lines[index] for index in range(taken))


class Log:
    """What one process logs.

    Args:
        sink: where lines go.
        settings: format and level.
        batched: whether lines wait for `flush` instead of being written at once.
        colour: whether levels are coloured where the sink is a terminal.
        wall: Unix time.
        monotonic: the clock of intervals.
    """

    def __init__(
        self,
        sink: Sink,
        settings: LogSettings,
        *,
        batched: bool = False,
        colour: bool = True,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sink = sink
        self._outbox = _Outbox(sink)
        self._threshold = LEVELS[settings.level]
        self._is_json = settings.format == "json"
        self._lines: JSONLines | TextLines = (
            JSONLines() if self._is_json else TextLines(stamps=not sink.stamps, colour=colour and sink.is_terminal)
        )
        self._batched = batched
        self._wall = wall
        self._noise = Limiter(monotonic, BURST)
        self._events = Limiter(monotonic, 1)
        self._row: Row | None = None
        self._series: ProcessSeries | None = None

    def batch(self) -> None:
        """From now on lines wait for `flush`: called in a worker after the fork, which then flushes in every turn."""
        self._batched = True

    def count_on(self, row: Row, series: ProcessSeries) -> None:
        """Count lines lost and suppressed in this row of the board."""
        self._row, self._series = row, series

    @property
    def has_pending(self) -> bool:
        """Whether lines wait for `flush`."""
        return bool(self._outbox)

    def is_enabled(self, level: str) -> bool:
        """Whether lines of this level are written; ask before collecting something expensive."""
        return LEVELS[level] >= self._threshold

    def connection(self, record: ConnectionRecord) -> None:
        """The record of a connection that ended."""
        reason = record.reason or CloseReason.INTERNAL_ERROR
        level = LEVEL_OF[reason]
        if LEVELS[level] < self._threshold:
            return
        if reason.stage is not Stage.LINK and self._is_noise(level, record.service, reason):
            return
        self._put(level, self._lines.connection(level, self._wall(), record))

    def rejected(self, service: str, client: str, reason: CloseReason) -> None:
        """A connection was refused before it had a record."""
        level = LEVEL_OF[reason]
        if LEVELS[level] < self._threshold or self._is_noise(level, service, reason):
            return
        fields = {"service": service, "client": client, "reason": reason.label, "fault": reason.fault.value}
        self.message(level, "rejected", f"{service}: client {client}: refused: {reason.text}", **fields)

    def message(self, level: str, event: str, text: str, **fields: Value) -> None:
        """Something other than a connection's end.

        Args:
            level: debug, info, warning or error.
            event: what kind of thing it is, for machines: one word, from a fixed set.
            text: a sentence for people.
            **fields: the same as keys, for JSON. In text only `traceback` is shown, as lines of its own.
        """
        if LEVELS[level] < self._threshold:
            return
        if self._is_json:
            self._put(level, self._lines.message(level, self._wall(), event, text, fields))
            return
        for line in self._lines.message(level, self._wall(), event, text, fields).splitlines():
            self._put(level, line)

    def occasional(self, level: str, event: str, text: str, **fields: Value) -> None:
        """A message that may come up many times a second (a pause of accepting): one in INTERVAL_S is written
        for each `service` and `reason` among the fields."""
        if LEVELS[level] >= self._threshold:
            subject, kind = str(fields.get("service", "")), str(fields.get("reason", event))
            if self._events.admits(level, subject, kind, text):
                self.message(level, event, text, **fields)
            else:
                self._count(0, 1)

    def tick(self) -> None:
        """Say what was left out and write what is pending. Called about once a second."""
        for limiter in (self._noise, self._events):
            for window, count, seconds in limiter.ended():
                text = f"{count} more in {seconds:.0f} s like this: {window.text}"
                self.message(window.level, "suppressed", text, service=window.subject, reason=window.kind, count=count)
        self.flush()

    def flush(self) -> None:
        """Write pending lines as far as that needs no waiting."""
        if self._outbox:
            failed = self._outbox.flush()
            if failed:
                self._count(failed, 0)
        if self._outbox.lost and not self._outbox:
            text = f"log: nothing took them, lines lost: {self._outbox.lost}"
            fields = {"count": self._outbox.lost}
            self._outbox.admit_loss("warning", self._lines.message("warning", self._wall(), "dropped", text, fields))

    def reopen(self) -> None:
        """Open the file again by its name (SIGUSR1, after a rotation). A failure is logged to the old one."""
        self.flush()
        try:
            self._sink.reopen()
        except OSError as exc:
            self.message("error", "log", f"log: cannot be reopened: {exc.strerror}; the old one stays in use")

    def close(self) -> None:
        """Write what can be written and give the sink back."""
        self.tick()
        self._sink.close()

    def _is_noise(self, level: str, service: str, reason: CloseReason) -> bool:
        """Whether this line is one too many. Counts it if so."""
        if self._is_json and reason.stage is not Stage.ADMIT:
            return False
        if self._noise.admits(level, service, reason.label, f"{service}: {reason.text}"):
            return False
        self._count(0, 1)
        return True

    def _put(self, level: str, line: str) -> None:
        if not self._outbox.put(level, line):
            self._count(1, 0)
        if not self._batched:
            self.flush()

    def _count(self, lost: int, suppressed: int) -> None:
        if self._row is not None and self._series is not None:
            self._row.cells[self._series.log_dropped] += lost
            self._row.cells[self._series.log_suppressed] += suppressed


def open_log(settings: LogSettings, environ: Mapping[str, str] = os.environ) -> Log:
    """The log of a configuration. Called before forking and before privileges are dropped.

    Raises:
        StartupError: the file cannot be opened, or no syslog daemon answers.
    """
    is_dumb = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
    return Log(open_sink(settings.target, environ), settings, colour=not is_dumb)
