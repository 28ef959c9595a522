"""One line of log for one thing that happened: text for people, JSON for machines.

Names in certificates, server names and error texts come from strangers, so nothing they hold may end a line, begin
another, quote its way out of a value, or move a terminal's cursor. In text, a value that is more than plain ASCII
without blanks stands in double quotes, and every character in it that is not printable (line ends, escape sequences,
direction marks) is written as an escape. In JSON the encoder does it, to ASCII. Long values are cut, so that a line
always fits into one write.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping

from tlstunnel.errors import printable
from tlstunnel.observe.record import ConnectionRecord
from tlstunnel.outcome import CloseReason, Fault, Stage

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
LONGEST_VALUE = 256
"""Characters of one value."""
LONGEST_WRITTEN = 480
"""Bytes of one value as it is written, with its escapes: seven of them and all the rest fit into one write."""
LONGEST_TEXT = 2800
"""Bytes of a message and of a traceback, as they are written."""
_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode

_TEXT_FIELDS = (
    "starttls", "server_name", "alpn", "identity", "claimed", "rule", "real_client", "client_versions", "ja4", "detail",
)  # fmt: skip
"""Written where they are known."""
Value = str | int | float | bool | None

# Endings that a public listener sees all day and that ask nothing of the operator.
_EVERYDAY = frozenset(
    (
        CloseReason.NOT_TLS,
        CloseReason.STARTTLS_MALFORMED,
        CloseReason.HANDSHAKE_EOF,
        CloseReason.HANDSHAKE_RESET,
        CloseReason.HANDSHAKE_DRAINED,
    )
)


def _level_of(reason: CloseReason) -> str:
    if reason.fault is Fault.NOBODY or reason in _EVERYDAY:
        return "info"
    if reason is CloseReason.INTERNAL_ERROR or reason.fault is Fault.OPERATOR:
        return "warning" if reason.stage is Stage.ADMIT else "error"
    return "warning"


LEVEL_OF = {reason: _level_of(reason) for reason in CloseReason}
"""At which level a connection's end is logged: errors need the operator, warnings may interest him."""


class Clock:
    """Unix time as RFC 3339 text in UTC with milliseconds. The second's part is kept, since many lines share it."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def __call__(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{int((now - second) * 1000):03d}Z"


class TextLines:
    """Lines for people: what a reader looks for first stands in columns, the rest follows as `key=value`.

    Args:
        stamps: whether a line begins with the time (the journal and syslog have their own).
        colour: whether the level is coloured, for terminals.
    """

    __slots__ = ("_clock", "_levels", "_service_width", "_stamps")

    def __init__(self, *, stamps: bool, colour: bool) -> None:
        self._clock = Clock()
        self._stamps = stamps
        self._service_width = 0
        self._levels = {level: f"{_COLOURS[level]}{level:<7}\x1b[0m" if colour else f"{level:<7}" for level in LEVELS}

    def connection(self, level: str, now: float, record: ConnectionRecord) -> str:
        reason = record.reason or CloseReason.INTERNAL_ERROR
        self._service_width = max(self._service_width, len(record.service))
        ending = reason.label if reason is CloseReason.FINISHED else f"{reason.label} ({reason.text})"
        fields = [
            f"{self._start(level, now)}{record.service:<{self._service_width}}"
            f"  {quoted(record.client):<21} -> {quoted(record.target or '-'):<21}  {ending}"
            f"  bytes_forward={record.bytes_forward} bytes_reverse={record.bytes_reverse} total_s={record.total_s:.3f}"
        ]
        if record.connect_s >= 0:
            fields.append(f"connect_s={record.connect_s:.6f}")
        if record.handshake_s >= 0:
            fields.append(
                f"handshake_s={record.handshake_s:.6f} version={record.version} cipher={record.cipher}"
                f" group={record.group} resumed={'yes' if record.resumed else 'no'}"
            )
        for name in _TEXT_FIELDS:
            value = getattr(record, name)
            if value is not None:  # alpn="" says that none was agreed on
                fields.append(f"{name}={quoted(value)}")
        fault = record.fault(reason)
        if fault is not Fault.NOBODY:
            fields.append(f"fault={fault.value}")
        fields.append(f"id={record.id:016x}")
        return " ".join(fields)

    def message(self, level: str, now: float, event: str, text: str, fields: Mapping[str, Value]) -> str:
        line = f"{self._start(level, now)}{printable(text)}"
        trace = str(fields.get("traceback") or "")
        return "\n".join((line, *(f"{self._start(level, now)}| {printable(each)}" for each in trace.splitlines())))

    def _start(self, level: str, now: float) -> str:
        stamp = f"{self._clock(now)} " if self._stamps else ""
        return f"{stamp}{self._levels[level]} "


class JSONLines:
    """Lines for machines: one object each, with the keys that docs/reference/log.md lists, always all of them."""

    __slots__ = ("_clock",)

    def __init__(self) -> None:
        self._clock = Clock()

    def connection(self, level: str, now: float, record: ConnectionRecord) -> str:
        reason = record.reason or CloseReason.INTERNAL_ERROR
        return _encode(
            {
                "time": self._clock(now),
                "level": level,
                "event": "connection",
                "id": f"{record.id:016x}",
                "service": record.service,
                "reason": reason.label,
                "stage": reason.stage.value,
                "fault": record.fault(reason).value,
                "message": reason.text,
                "detail": _cut(record.detail),
                "client": _cut(record.client),
                "real_client": _cut(record.real_client),
                "target": record.target,
                "starttls": record.starttls,
                "server_name": _cut(record.server_name),
                "version": record.version,
                "cipher": record.cipher,
                "group": record.group,
                "resumed": record.resumed if record.version is not None else None,
                "alpn": _cut(record.alpn),
                "client_versions": record.client_versions,
                "ja4": record.ja4,
                "identity": _cut(record.identity),
                "claimed": _cut(record.claimed),
                "rule": _cut(record.rule),
                "bytes_forward": record.bytes_forward,
                "bytes_reverse": record.bytes_reverse,
                "handshake_s": _seconds(record.handshake_s),
                "connect_s": _seconds(record.connect_s),
                "total_s": _seconds(record.total_s),
            }
        )

    def message(self, level: str, now: float, event: str, text: str, fields: Mapping[str, Value]) -> str:
        head = {"time": self._clock(now), "level": level, "event": event, "message": _shortened(text, LONGEST_WRITTEN)}
        rest = {
            # The end of a traceback says most.
            name: _shortened(value[::-1], LONGEST_TEXT)[::-1]
            if name == "traceback" and isinstance(value, str)
            else value
            for name, value in fields.items()
        }
        return _encode({**head, **rest})


def quoted(text: str) -> str:
    """A value for a text line: as it is where that is unmistakable, else in quotes with escapes."""
    if _PLAIN.fullmatch(text) and len(text) <= LONGEST_VALUE:
        return text
    cut = _cut(text) or ""
    return '"' + printable(cut.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _cut(text: str | None) -> str | None:
    if text is None or (len(text) <= LONGEST_VALUE and text.isascii() and text.isprintable()):
        return text
    return _shortened(text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "...", LONGEST_WRITTEN)


def _shortened(text: str, longest: int) -> str:
    """The text, cut so that it takes at most so many bytes in JSON (and so in text, whose escapes are no longer)."""
    kept = text
    while len(_encode(kept)) > longest:
        kept = kept[: len(kept) * 3 // 4]
    return kept if kept is text else kept + "..."


def _seconds(value: float) -> float | None:
    return round(value, 6) if value >= 0 else None
