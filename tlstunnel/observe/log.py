"""The log: records of connections and messages, filtered and rate-limited. Nothing ever waits for it.

    Log.connection, .rejected, .message      what happened
        lines.py                             one line of text or JSON
    sinks.Outbox                             lines not yet written: bounded; what does not fit is dropped and counted
        sinks.Sink                           stderr, file, syslog: a write that would wait is refused

A worker's log is batched: lines gather during a turn of the loop and `flush` writes them in a few large writes.
`tick`, about once a second, tries again what could not be written and reports what was left out. Each process has its
own `Log`; all share the descriptors that `open_log` opened before the fork.

What is left out, and how one learns of it:

    below the level         not at all
    refusals                of limits and networks, which a flood brings by the thousand: the first per service and
                            reason in `INTERVAL_S` is written, then one line with the number of the others.
    noise                   connections with a wrong PROXY header, and in text every one that ended before bytes could
                            move: scanners, strangers, a backend that is down. The same with the first `BURST`. JSON
                            has a record for every connection that came past admission, so that records can be counted.
    no room to write        one line with the number of lines lost, as soon as there is room again
    no room until the end   `finish` waits for the reader for ENDING_S, and counts what it did not take by then. The
                            supervisor reports it, also of a worker that was killed: the worker's row has the number of
                            lines that no line has reported (`ProcessSeries.log_unreported`, `.log_waiting`)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tlstunnel.config.model import Log as LogSettings
from tlstunnel.errors import words_of
from tlstunnel.observe.counters import Row
from tlstunnel.observe.lines import LEVEL_OF, LEVELS, JSONLines, TextLines, Value
from tlstunnel.observe.record import ConnectionRecord
from tlstunnel.observe.series import ProcessSeries
from tlstunnel.observe.sinks import Outbox, Sink, open_sink
from tlstunnel.outcome import CloseReason, Fault, Stage

INTERVAL_S = 10.0
BURST = 10
"""Lines of one kind in an interval of INTERVAL_S before the rest is only counted."""
LIMITS = frozenset(
    (
        CloseReason.REJECT_PER_IP,
        CloseReason.REJECT_CONNECTION_RATE,
        CloseReason.REJECT_HANDSHAKE_RATE,
        CloseReason.REJECT_NETWORK,
    )
)
"""Refusals that say nothing new the second time: one line of each in an interval."""
ENDING_S = 2.0
"""How long a process that ends waits for the log's reader. One that reads at all takes MAX_PENDING in a fraction of it;
one that does not must not hold up the end of a drain for longer."""


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
        self._outbox = Outbox(sink)
        self._threshold = LEVELS[settings.level]
        self._is_json = settings.format == "json"
        self._lines: JSONLines | TextLines = (
            JSONLines() if self._is_json else TextLines(stamps=not sink.stamps, colour=colour and sink.is_terminal)
        )
        self._batched = batched
        self._wall, self._monotonic = wall, monotonic
        self._noise = Limiter(monotonic, BURST)
        self._refusals = Limiter(monotonic, 1)
        self._events = Limiter(monotonic, 1)
        self._row: Row | None = None
        self._series: ProcessSeries | None = None
        self._published = (0, 0)

    def begin_in_child(self, *, batched: bool = False) -> None:
        """In a process just forked: start afresh. What waits is its parent's to write, and what it lost its parent's
        to tell.

        Args:
            batched: lines wait for `flush` from now on, which a worker calls in every turn.
        """
        self._outbox = Outbox(self._sink)
        self._batched = batched
        self._row = self._series = None
        self._published = (0, 0)

    def count_on(self, row: Row, series: ProcessSeries) -> None:
        """Count lines lost and suppressed in this row of the counters, and show there how many nobody was told of."""
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
        if record.with_backend and level == "info" and record.fault(reason) is Fault.BACKEND:
            level = "warning"  # what is everyday from strangers is not from one's own target
        if LEVELS[level] < self._threshold:
            return
        if reason.stage is not Stage.LINK and self._is_noise(level, record.service, reason):
            return
        self._put(level, self._lines.connection(level, self._wall(), record))

    def rejected(self, service: str, client: str, reason: CloseReason) -> None:
        """A connection was refused before it had a record. One line per service and reason in INTERVAL_S."""
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

    def tick(self, *, is_last: bool = False) -> None:
        """Say what was left out and write what is pending. Called about once a second; the last time also for the
        intervals that are not over."""
        for limiter in (self._noise, self._refusals, self._events):
            for window, count, seconds in limiter.ended(everything=is_last):
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
            self._outbox.report_loss("warning", self._lines.message("warning", self._wall(), "dropped", text, fields))
        self._publish_loss()

    def finish(self, within_s: float = ENDING_S) -> int:
        """The process ends: write what waits, and wait for the log's reader, `within_s` at most.

        Returns how many lines were lost without a line that tells of it; 0 if the reader took everything. Nothing is
        waited for where the place does not take lines at all (disk full, reader gone).
        """
        end = self._monotonic() + within_s
        self.tick(is_last=True)
        while self._outbox.is_refused and (left := end - self._monotonic()) > 0:
            self._sink.wait(left)
            self.flush()
        self._count(self._outbox.abandon(), 0)
        self._publish_loss()
        return self._outbox.lost

    def reopen(self) -> None:
        """Open the file again by its name (SIGUSR1, after a rotation). A failure is logged to the old one."""
        self.flush()
        try:
            self._sink.reopen()
        except OSError as exc:
            self.message("error", "log", f"log: cannot be reopened: {words_of(exc)}; the old one stays in use")

    def close(self) -> None:
        """Write what needs no waiting, count the rest as lost, and give the sink back."""
        self.finish(0.0)
        self._sink.close()

    def _is_noise(self, level: str, service: str, reason: CloseReason) -> bool:
        """Whether this line is one too many. Counts it if so."""
        if self._is_json and reason.stage is not Stage.ADMIT:
            return False
        limiter = self._refusals if reason in LIMITS else self._noise
        if limiter.admits(level, service, reason.label, f"{service}: {reason.text}"):
            return False
        self._count(0, 1)
        return True

    def _put(self, level: str, line: str) -> None:
        if not self._outbox.put(level, line):
            self._count(1, 0)
        if not self._batched:
            self.flush()

    def _publish_loss(self) -> None:
        """Publish in our row what is lost and what waits: the supervisor reads it when this process is gone."""
        loss = (self._outbox.lost, len(self._outbox))
        if loss != self._published and self._row is not None and self._series is not None:
            self._published = loss
            self._row.counters[self._series.log_unreported], self._row.counters[self._series.log_waiting] = loss

    def _count(self, lost: int, suppressed: int) -> None:
        if self._row is not None and self._series is not None:
            self._row.counters[self._series.log_dropped] += lost
            self._row.counters[self._series.log_suppressed] += suppressed


def open_log(settings: LogSettings, environ: Mapping[str, str] = os.environ) -> Log:
    """The log of a configuration. Called before forking and before privileges are dropped.

    Raises:
        StartupError: the file cannot be opened, or no syslog daemon answers.
    """
    is_dumb = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
    return Log(open_sink(settings.target, environ), settings, colour=not is_dumb)


@dataclass(slots=True)
class Window:
    """One kind of line since its interval began."""

    level: str
    subject: str
    """The service, or nothing."""
    kind: str
    """A reason's label or an event: together with the subject from a bounded set."""
    text: str
    began: float
    count: int = 0

    def suppressed(self, burst: int) -> int:
        return max(0, self.count - burst)


class Limiter:
    """Lets a few lines of a kind through in every interval and counts the others.

    Args:
        monotonic: the clock.
    """

    __slots__ = ("_burst", "_monotonic", "_windows")

    def __init__(self, monotonic: Callable[[], float], burst: int) -> None:
        self._monotonic = monotonic
        self._burst = burst
        self._windows: dict[tuple[str, str], Window] = {}

    def admits(self, level: str, subject: str, kind: str, text: str) -> bool:
        """Whether this line may be written; counts it if not."""
        window = self._windows.get((subject, kind))
        if window is None:
            window = self._windows[subject, kind] = Window(level, subject, kind, text, self._monotonic())
        window.count += 1
        return window.count <= self._burst

    def ended(self, *, everything: bool = False) -> Iterator[tuple[Window, int, float]]:
        """The windows whose interval is over and that hold something back, how many lines, and over how many seconds.
        Everything: also those whose interval is not over.

        The next line of such a kind begins a new window.
        """
        now = self._monotonic()
        over = [window for window in self._windows.values() if everything or now - window.began >= INTERVAL_S]
        for window in over:
            del self._windows[window.subject, window.kind]
            held_back = window.suppressed(self._burst)
            if held_back:
                yield window, held_back, now - window.began
