"""Lines on their way to a sink: bounded, in whole lines, in few large writes where the sink takes those."""

from __future__ import annotations

import contextlib
from collections import deque

from tlstunnel.observe.sinks import MAX_WRITE, Sink

MAX_PENDING = 256 * 1024
"""Bytes of lines waiting for a reader that has stopped reading."""


class Outbox:
    """Lines on their way to a sink."""

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

    def admit_loss(self, level: str, text: str) -> None:
        """Say how much was lost, if that can be written; else it stays to be said."""
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
