"""One connection's record: filled in while it lives, logged and counted when it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from tlstunnel.outcome import CloseReason, Fault, Stage

_COUNT_BITS = 40
_NEVER = -1.0


class ConnectionRecord:
    """What is known of one connection. The code that sets it up fills in what it learns; `None` and "" mean not known.

    Plain slots and no methods with effects, because one is made for every connection: about a microsecond.
    Texts that a peer chose (names, identities) are stored as they came; the log escapes them.
    """

    __slots__ = (
        "alpn", "bytes_forward", "bytes_reverse", "cipher", "claimed", "client", "client_versions", "connect_s",
        "detail", "group", "handshake_s", "id", "identity", "ja4", "live_bytes", "opened_at", "real_client", "reason",
        "resumed", "rule", "server_name", "service", "service_index", "starttls", "target", "total_s", "version",
        "with_backend",
    )  # fmt: skip

    def __init__(self, identifier: int, service_index: int, service: str, client: str) -> None:
        self.id = identifier
        """64 bits: which worker, which of its connections. Written as 16 hexadecimal digits."""
        self.service_index = service_index
        self.service = service
        self.client = client
        """The peer of the accepted socket, `ADDRESS:PORT`; "unix" for a unix socket."""
        self.opened_at = time.monotonic()
        self.real_client: str | None = None
        """Who the client is according to an accepted PROXY protocol header."""
        self.starttls: str | None = None
        """The protocol that was spoken before TLS, with the client in server mode, else with the backend."""
        self.server_name: str | None = None
        self.version: str | None = None
        """As OpenSSL says it: `TLSv1.3`."""
        self.cipher: str | None = None
        self.group: str | None = None
        self.resumed = False
        self.alpn: str | None = None
        self.client_versions: str | None = None
        """The TLS versions that the client offered, most wanted first: `1.3,1.2`; of failures, and for debug."""
        self.ja4: str | None = None
        """Its JA4 fingerprint, from the same ClientHello."""
        self.identity: str | None = None
        self.claimed: str | None = None
        """Whose a certificate says it is that was not verified, so anybody's."""
        self.rule: str | None = None
        """The access rule that decided."""
        self.target: str | None = None
        """The backend, once one was chosen."""
        self.bytes_forward = 0
        self.bytes_reverse = 0
        self.live_bytes: Callable[[], tuple[int, int]] | None = None
        """Returns how many bytes went forward and reverse so far; None before and after relaying."""
        self.handshake_s = _NEVER
        """Seconds from the end of accepting to the end of the TLS handshake; negative if there was none."""
        self.connect_s = _NEVER
        """Seconds to reach the backend; negative if it was not reached."""
        self.total_s = _NEVER
        """Seconds from accept to the end; negative while it is open."""
        self.reason: CloseReason | None = None
        """None while it is open."""
        self.with_backend = False
        """Whether the last handshake that began was one with the backend."""
        self.detail: str | None = None
        """What OpenSSL or the system said, for people."""

    def fault(self, reason: CloseReason) -> Fault:
        """Whose doing this ending was: in a handshake with the backend, the backend's where else it is the client's."""
        is_backends = self.with_backend and reason.stage is Stage.HANDSHAKE and reason.fault is Fault.CLIENT
        return Fault.BACKEND if is_backends else reason.fault


class Identifiers:
    """Makes the ids of one worker's connections: 24 random bits for the worker, then a count, so they sort by age."""

    __slots__ = ("_next",)

    def __init__(self, worker: int | None = None) -> None:
        tag = int.from_bytes(os.urandom(3), "big") if worker is None else worker
        self._next = tag << _COUNT_BITS

    def next(self) -> int:
        self._next += 1
        return self._next
