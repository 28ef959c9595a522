"""What a supervisor and a worker say to each other, over a stream socket between them.

Towards the worker go pickled values: it trusts the process that made it. From the worker comes JSON, which can only be
data: whoever takes over a worker can send the supervisor words, not objects.
"""

from __future__ import annotations

import json
import pickle
import socket
import struct
from dataclasses import dataclass
from typing import Any

from tlstunnel.tls.ocsp import Staples
from tlstunnel.tls.store import Material

_HEAD = struct.Struct("!I")
MAX_REPORT = 64 * 1024
"""Bytes of one message from a worker; more is not from one of ours."""
MAX_ORDER = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Drain:
    """Accept nothing more, finish what is open within each service's drain_timeout, end. Or cut it now."""

    is_now: bool = False


@dataclass(frozen=True, slots=True)
class Renew:
    """Use this material from now on; one for each service, in order."""

    materials: tuple[Material, ...]


@dataclass(frozen=True, slots=True)
class Staple:
    """Send these proofs to clients from now on; one for each service, in order, None where nothing changes."""

    staples: tuple[Staples | None, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """Answer, to show that the loops turn."""

    number: int


@dataclass(frozen=True, slots=True)
class Reopen:
    """Open the log file again."""


Order = Drain | Renew | Staple | Ping | Reopen


def frame(payload: bytes) -> bytes:
    """A payload behind its length."""
    return _HEAD.pack(len(payload)) + payload


def order_bytes(order: Order) -> bytes:
    """An order as it goes to a worker."""
    return frame(pickle.dumps(order, protocol=pickle.HIGHEST_PROTOCOL))


def report_bytes(kind: str, **values: Any) -> bytes:
    """A report as it goes to the supervisor."""
    return frame(json.dumps({"kind": kind, **values}).encode())


class ChannelError(ValueError):
    """What came over a channel is not of its form."""


class Unframer:
    """Cuts a stream back into payloads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are complete now. Raises ChannelError for one that is too long."""
        self._buffer += data
        payloads = []
        while len(self._buffer) >= _HEAD.size:
            (size,) = _HEAD.unpack_from(self._buffer)
            if size > self._limit:
                raise ChannelError(f"message of {size} bytes")
            if len(self._buffer) < _HEAD.size + size:
                break
            payloads.append(bytes(self._buffer[_HEAD.size : _HEAD.size + size]))
            del self._buffer[: _HEAD.size + size]
        return payloads


def parse_order(payload: bytes) -> Order:
    """In the worker, what the supervisor sent."""
    order: Order = pickle.loads(payload)  # noqa: S301 - from the process that made us, see above
    return order


def parse_report(payload: bytes) -> dict[str, Any]:
    """In the supervisor, what a worker sent. Raises ChannelError."""
    try:
        report = json.loads(payload)
    except (ValueError, RecursionError):
        raise ChannelError("not JSON") from None
    if not isinstance(report, dict) or not isinstance(report.get("kind"), str):
        raise ChannelError("not a report")
    return report


def pair() -> tuple[socket.socket, socket.socket]:
    """The supervisor's and the worker's end."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
