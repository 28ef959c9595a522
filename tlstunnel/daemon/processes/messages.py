"""The messages between the supervisor and a worker, over a stream socket.

Orders to a worker are pickled values: it trusts the process that made it. Reports from a worker are JSON, read into one
of five values and nothing else: an attacker who takes over a worker can send the supervisor words, not objects, and
every word is checked here (`parse_report`).
"""

from __future__ import annotations

import json
import pickle
import socket
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tlstunnel.tls.ocsp import Staples
from tlstunnel.tls.store import Material

_HEAD = struct.Struct("!I")
MAX_REPORT = 16 * 1024
"""Bytes of one message from a worker; more is not from one of ours."""
MAX_ORDER = 64 * 1024 * 1024
MAX_REASON = 1000
"""Characters of a worker's reason that are repeated."""


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
    """Staple these for clients from now on; one for each service, in order, None where nothing changes."""

    staples: tuple[Staples | None, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """Answer, to show that the loops turn."""


@dataclass(frozen=True, slots=True)
class Reopen:
    """Open the log file again."""


Order = Drain | Renew | Staple | Ping | Reopen


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker accepts."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The loops turn: the answer to `Ping`."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """Sessions from now on use the material of the last `Renew`."""


@dataclass(frozen=True, slots=True)
class Drained:
    """Nothing is open any more, and the worker ends."""

    cut: int
    """Connections it had to cut."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker ends because of an error; before `Ready` it could not even begin."""

    reason: str
    """One printable line."""


Report = Ready | Pong | Renewed | Drained | Failed


def frame(payload: bytes) -> bytes:
    """A payload behind its length."""
    return _HEAD.pack(len(payload)) + payload


def order_bytes(order: Order) -> bytes:
    """An order as it goes to a worker."""
    return frame(pickle.dumps(order, protocol=pickle.HIGHEST_PROTOCOL))


def report_bytes(report: Report) -> bytes:
    """A report as it goes to the supervisor: short enough that a socket takes it whole or not at all."""
    return frame(json.dumps({"kind": type(report).__name__, **asdict(report)}).encode())


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


def parse_report(payload: bytes) -> Report:
    """In the supervisor, what a worker sent: the one place where a worker's bytes are read. Raises ChannelError."""
    try:
        said = json.loads(payload)
        read = _READ[said["kind"]]
        return read(said)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        raise ChannelError("not a report") from None


def _drained(said: dict[str, Any]) -> Drained:
    cut = said["cut"]
    if type(cut) is not int or not 0 <= cut < 1 << 32:
        raise ValueError
    return Drained(cut)


def _failed(said: dict[str, Any]) -> Failed:
    return Failed(one_line(said["reason"]))


def one_line(text: str) -> str:
    """A text cut and without anything that could break a line or command a terminal."""
    printable = (char if char.isprintable() else " " for char in text[:MAX_REASON])
    return " ".join("".join(printable).split())


_READ: dict[str, Callable[[dict[str, Any]], Report]] = {
    "Ready": lambda _: Ready(),
    "Pong": lambda _: Pong(),
    "Renewed": lambda _: Renewed(),
    "Drained": _drained,
    "Failed": _failed,
}


def pair() -> tuple[socket.socket, socket.socket]:
    """The supervisor's and the worker's end."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
