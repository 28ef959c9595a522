"""A log on a sink of the test."""

from __future__ import annotations

from typing import Any

from tlstunnel.config.model import Log as LogSettings
from tlstunnel.observe.log import Log


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


def log_on(sink: Any, *, level: str = "info", form: str = "text", **options: Any) -> Log:
    return Log(sink, LogSettings(level=level, format=form), **options)
