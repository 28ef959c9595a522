"""A log on a sink of the test."""

from __future__ import annotations

from typing import Any

from tlstunnel.config.model import Log as LogSettings
from tlstunnel.observe.log import Log
from tlstunnel.observe.sinks import Sink


class ListSink(Sink):
    """Keeps each write; refuses when told to."""

    stamps = True

    def __init__(self) -> None:
        super().__init__(-1)
        self.writes: list[bytes] = []
        self.takes = True
        self.error: OSError | None = None

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


def log_on(sink: Sink, *, level: str = "info", form: str = "text", **options: Any) -> Log:
    return Log(sink, LogSettings(level=level, format=form), **options)
