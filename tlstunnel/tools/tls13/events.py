"""Where a connection can be, and what it tells the one who drives it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class State(Enum):
    """Where a connection is; the names are those of RFC 8446 appendix A."""

    START = auto()
    WAIT_SH = auto()
    WAIT_EE = auto()
    WAIT_CERT_CR = auto()
    WAIT_CERT = auto()
    WAIT_CV = auto()
    WAIT_EOED = auto()
    WAIT_FINISHED = auto()
    CONNECTED = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class HandshakeComplete:
    """Both Finished messages are right: the peer is who it proved to be, and data may flow."""


@dataclass(frozen=True, slots=True)
class ApplicationData:
    """Data came. `is_early` marks 0-RTT data, which an attacker may replay (RFC 8446 section 8)."""

    data: bytes
    is_early: bool = False


@dataclass(frozen=True, slots=True)
class PeerKeysUpdated:
    """The peer moved to its next traffic secret."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The peer sent close_notify: it will send no more."""


@dataclass(frozen=True, slots=True)
class TicketReceived:
    """The server gave a ticket; it is now the last of `Client.sessions`."""


Event = HandshakeComplete | ApplicationData | PeerKeysUpdated | Closed | TicketReceived
