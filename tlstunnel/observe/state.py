"""What the supervisor tells the admin process: a JSON document in shared memory, replaced as a whole.

`counters` has what is counted; this is the rest (names, addresses, processes, certificates, the last reload), which
changes a few times an hour. The supervisor writes, the admin process reads, and neither waits for the other.

The mapping holds two places and says which of them is current. A writer fills the other place and then switches, so a
reader sees the old document or the new one. Only a reader that is overtaken twice while it copies could see a mixture;
the checksum tells, and it reads again. The checksum also makes this independent of the order in which a machine lets
other processors see stores.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import struct
import zlib
from typing import Any

from tlstunnel.observe.families import gauge

_CURRENT = struct.Struct("q")
_BEATS_AT = 8
_PLACE = struct.Struct("qII")
_RETRIES = 100
PLACE_BYTES = 4 << 20
"""Room for thousands of services and certificates; pages that were never written do not exist."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """A service as it runs now."""

    name: str
    mode: str
    listeners: tuple[str, ...]
    """The addresses really bound, so port 0 is resolved."""
    targets: tuple[str, ...]
    """As written in the configuration: the labels of target health."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """A living worker process."""

    pid: int
    row: int
    """Its row of the counters, never 0."""
    generation: int
    """Which configuration it runs; counts from 1."""
    started_at: float
    """Unix time."""
    draining: bool = False
    answers: bool = True
    """Whether it has begun, and answers the supervisor's pings."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CertificateState:
    """A certificate that is loaded. Times are Unix times."""

    # fmt: off
    service: str
    file: str
    subject: str
    not_before: float = gauge(
        "certificate_not_before_timestamp_seconds{service,file,subject,role}",
        "Since when a loaded certificate, CA or CRL is good, in Unix time.",
        "With the end it tells the length of a life, by which alerts decide what is soon.")
    not_after: float = gauge(
        "certificate_not_after_timestamp_seconds{service,file,subject,role}",
        "When a loaded certificate, CA or CRL expires, in Unix time.", "`role` is `certificate`, `ca` or `crl`.")
    loaded_at: float = gauge(
        "certificate_loaded_timestamp_seconds{service,file}", "When a certificate file was last loaded, in Unix time.")
    role: str = "certificate"
    """"certificate" (shown to peers), "ca" (trusted) or "crl" (not_before and not_after are its updates)."""
    names: tuple[str, ...] = ()
    """Subject alternative names, the first few."""
    # fmt: on


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StapleState:
    """A certificate's OCSP response, where one is to be stapled. Times are Unix times, 0 when there is none."""

    # fmt: off
    service: str
    file: str
    """Of the certificate."""
    this_update: float = gauge(
        "ocsp_staple_this_update_timestamp_seconds{service,file}",
        "Since when the stapled OCSP response of a certificate is good, in Unix time; 0 without one.")
    next_update: float = gauge(
        "ocsp_staple_next_update_timestamp_seconds{service,file}",
        "Until when the stapled OCSP response of a certificate is good, in Unix time; 0 without one.",
        "Only where `ocsp_staple` asks for one.")
    # fmt: on


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReloadState:
    """The last attempt to reload."""

    at: float
    """Unix time."""
    ok: bool
    errors: tuple[str, ...] = ()
    """Every problem found, one line each."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TunnelState:
    """The daemon as a whole."""

    version: str
    supervisor_pid: int
    started_at: float
    """Unix time."""
    phase: str = "starting"
    """"starting", "ready", "draining" or "stopped"."""
    is_serving: bool = True
    """Whether some worker serves: has begun, does not drain, and answers."""
    admin_pid: int | None = None
    generation: int = 1
    source: str = ""
    """The configuration file, or "command line"."""
    services: tuple[ServiceState, ...] = ()
    workers: tuple[WorkerState, ...] = ()
    certificates: tuple[CertificateState, ...] = ()
    staples: tuple[StapleState, ...] = ()
    last_reload: ReloadState | None = None

    @property
    def is_ready(self) -> bool:
        """Listening, and accepting new connections."""
        return self.phase == "ready" and self.is_serving

    @property
    def answering(self) -> int:
        """How many workers serve, without those that drain."""
        return sum(worker.answers and not worker.draining for worker in self.workers)


class StateBlob:
    """The shared document, in an anonymous file. Made by the supervisor.

    Args:
        file: in the process that reads it: its `fd` there.
    """

    __slots__ = ("_memory", "fd")

    def __init__(self, file: int | None = None) -> None:
        size = mmap.PAGESIZE + 2 * PLACE_BYTES
        if file is None:
            file = os.memfd_create("tlstunnel-state", os.MFD_CLOEXEC)
            os.ftruncate(file, size)
        self.fd = file
        self._memory = mmap.mmap(file, size)

    def __del__(self) -> None:
        os.close(self.fd)

    def publish(self, state: TunnelState) -> None:
        """Replace the document. Supervisor only.

        Raises:
            ValueError: it has no room (thousands of certificates); the old one stays.
        """
        text = json.dumps(dataclasses.asdict(state), separators=(",", ":")).encode()
        if len(text) > PLACE_BYTES - _PLACE.size:
            raise ValueError(f"the state takes {len(text)} bytes and its place has {PLACE_BYTES}")
        turn = _CURRENT.unpack_from(self._memory)[0] + 1
        start = self._place(turn)
        self._memory[start + _PLACE.size : start + _PLACE.size + len(text)] = text
        _PLACE.pack_into(self._memory, start, turn, len(text), zlib.crc32(text))
        _CURRENT.pack_into(self._memory, 0, turn)

    def read(self) -> TunnelState | None:
        """The current document; None before the first one."""
        for _ in range(_RETRIES):
            turn = _CURRENT.unpack_from(self._memory)[0]
            if turn == 0:
                return None
            start = self._place(turn)
            written, length, checksum = _PLACE.unpack_from(self._memory, start)
            text = self._memory[start + _PLACE.size : start + _PLACE.size + min(length, PLACE_BYTES)]
            if written == turn and zlib.crc32(text) == checksum:
                return state_from(json.loads(text))
        raise RuntimeError("the state changes faster than it can be read")

    def beat(self) -> None:
        """In the admin process, once a second: its loop turns."""
        _CURRENT.pack_into(self._memory, _BEATS_AT, self.beats + 1)

    @property
    def beats(self) -> int:
        """How often it has turned, all admin processes taken together."""
        beats: int = _CURRENT.unpack_from(self._memory, _BEATS_AT)[0]
        return beats

    @staticmethod
    def _place(turn: int) -> int:
        return mmap.PAGESIZE + (turn & 1) * PLACE_BYTES


_LISTS = {"services": ServiceState, "workers": WorkerState, "certificates": CertificateState, "staples": StapleState}


def state_from(document: dict[str, Any]) -> TunnelState:
    """The value back from its JSON form."""
    lists = {name: tuple(_value(kind, each) for each in document[name]) for name, kind in _LISTS.items()}
    last = document["last_reload"]
    return TunnelState(**{**document, **lists, "last_reload": last and _value(ReloadState, last)})


def _value(kind: type, document: dict[str, Any]) -> Any:
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in document.items()})
