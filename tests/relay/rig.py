"""A link on real sockets, real engines and the real reactor, turned by the test: no threads, no trio.

A rig joins a near end of some kind with a plain one. Each end has a peer (tests.support.wire_peers) behind it:

    near_peer  <--socket-->  near end | link | far end  <--socket-->  far_peer

The near end is the client's end where it is a TLS server or plain, the backend's where it is a TLS client.
"""

from __future__ import annotations

import functools
import math
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support import certificates
from tests.support.wire_peers import HandPeer, PlainPeer, TLSPeer, client_context, server_context
from tlstunnel import _openssl
from tlstunnel._openssl import Scratch
from tlstunnel.config.model import CertificateFiles, TLSSettings
from tlstunnel.outcome import CloseReason
from tlstunnel.relay.ends import PlainEnd, TLSEnd
from tlstunnel.relay.link import Limits, Link
from tlstunnel.relay.reactor import Reactor
from tlstunnel.tls import context as contexts
from tlstunnel.x509.material import load_ca, load_credential
from tlstunnel.x509.passphrase import PassphraseSource

PATIENCE_S = 30.0
"""Only a hang reaches it."""
SCRATCH = Scratch()


@dataclass(frozen=True)
class Kind:
    """What the near end is."""

    version: str = ""
    is_server: bool = True

    def __str__(self) -> str:
        if not self.version:
            return "plain"
        return f"{'server' if self.is_server else 'client'}-{self.version}"


PLAIN = Kind()
TLS_KINDS = [Kind(version, is_server) for is_server in (True, False) for version in ("1.3", "1.2")]
KINDS = [PLAIN, *TLS_KINDS]


@functools.cache
def our_context(version: str, *, is_server: bool) -> contexts.Context:
    """Our own side's context, for localhost and the test CA."""
    settings = TLSSettings(min_version=version, max_version=version)
    ca = load_ca(certificates.ca().certificate)
    if not is_server:
        return contexts.client_context(settings, ca)
    pair = certificates.server("localhost", "127.0.0.1")
    files = CertificateFiles(certificate=pair.certificate, key=pair.key)
    return contexts.server_context(settings, [load_credential(files, PassphraseSource({}))])


def connected(buffers: int = 0) -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection on loopback, with buffers of about this size if any is given."""
    with socket.socket() as listener:
        if buffers:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        one = socket.socket()
        if buffers:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        one.connect(listener.getsockname())
        other, _ = listener.accept()
    for sock in (one, other):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one, other


def adopt(sock: socket.socket) -> socket.SocketType:
    """As the daemon holds it: the plain C object, and a socket that the kernel believes blocking."""
    family, kind, protocol = sock.family, sock.type, sock.proto
    return socket.SocketType(family, kind, protocol, sock.detach())


class Rig:
    """See the module."""

    def __init__(self, kind: Kind, *, limits: Limits | None = None, buffers: int = 0, by_hand: bool = False) -> None:
        self.kind = kind
        self.reactor = Reactor()
        self.ended: list[tuple[CloseReason, str]] = []
        self.errors: list[BaseException] = []
        self.reactor.on_error = self.errors.append
        self.closed = 0
        self.cells = [0, 0]
        near, near_peer = connected(buffers)
        far, far_peer = connected(buffers)
        self.far_peer = PlainPeer(far_peer)
        self.far: PlainEnd = PlainEnd(adopt(far), SCRATCH, self.reactor.watch_room)
        self.near: PlainEnd
        self.near_peer: PlainPeer
        if kind.version:
            context = our_context(kind.version, is_server=kind.is_server)
            engine = _openssl.Engine(context.raw, SCRATCH, is_server=kind.is_server)
            self.near = TLSEnd(adopt(near), SCRATCH, self.reactor.watch_room, engine, is_server=kind.is_server)
            if by_hand:
                self.near_peer = HandPeer(near_peer, is_server=not kind.is_server)
            else:
                theirs = (client_context if kind.is_server else server_context)(kind.version)
                self.near_peer = TLSPeer(near_peer, theirs, is_server=not kind.is_server)
        else:
            self.near = PlainEnd(adopt(near), SCRATCH, self.reactor.watch_room)
            self.near_peer = PlainPeer(near_peer)
        client, backend = (self.near, self.far) if kind.is_server else (self.far, self.near)
        self.reactor.watch(self.near.fd, self)
        self.reactor.watch(self.far.fd, self)
        self.link = Link(
            self.reactor,
            client,
            backend,
            limits or Limits(idle_s=math.inf, half_close_s=math.inf, is_strict=False),
            scratch=SCRATCH,
            cells=self.cells,
            forward_cell=0,
            reverse_cell=1,
            ends_at=math.inf,
            on_finished=self._on_finished,
            on_closed=self._on_closed,
        )

    # The reactor's handler until the link takes over.

    def on_ready(self, fd: int, events: int) -> None:
        (self.near if fd == self.near.fd else self.far).note(events)

    def on_crash(self, error: BaseException) -> None:
        raise error

    def abandon(self) -> None: ...

    def start(self) -> Rig:
        """Shake hands and begin the link."""
        if isinstance(self.near, TLSEnd):
            self.shake(self.near)
        self.link.start()
        return self

    def shake(self, end: TLSEnd) -> None:
        """Complete the handshake of the near end."""
        if not end.is_server:
            end.engine.expect("localhost", is_ip=False, send_name="localhost")
            end.begin()
        done = False

        def step() -> bool:
            nonlocal done
            done = done or (end.is_readable and (size := end.take()) > 0 and end.handshake(size))
            return done

        self.until(step)
        peer = self.near_peer
        self.until(lambda: peer.is_over or not isinstance(peer, TLSPeer) or peer.is_shaken)

    def _on_finished(self, link: Link, reason: CloseReason, detail: str, error: BaseException | None) -> None:
        self.ended.append((reason, detail))
        if error is not None:
            self.errors.append(error)

    def _on_closed(self) -> None:
        self.closed += 1

    @property
    def reason(self) -> CloseReason | None:
        """Why it ended, if it has; never twice, never by an error of ours."""
        assert not self.errors, self.errors
        assert len(self.ended) <= 1
        return self.ended[0][0] if self.ended else None

    def until(self, holds: Callable[[], object]) -> None:
        """Turn everything until it holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            moved = self.near_peer.pump()
            moved = self.far_peer.pump() or moved
            # When nothing moves, wait for the kernel rather than spin.
            self.reactor.turn(0.0 if moved else 0.002)
            self.reactor.sweep()
            assert time.monotonic() < deadline, f"hangs: {self.state()}"

    def turns(self, count: int = 50) -> None:
        """Turn everything this often: as long as it takes until nothing moves and then some."""
        for _ in range(count):
            self.near_peer.pump()
            self.far_peer.pump()
            self.reactor.turn(0.0)

    def state(self) -> str:
        """For whoever has to find out why it hangs."""
        ends = [
            f"{name}: readable={end.is_readable} writable={end.is_writable} pending={end.has_pending} eof={end.at_eof}"
            f" shut={end.is_shut}"
            for name, end in (("near", self.near), ("far", self.far))
        ]
        peers = [
            f"{name}: received={peer.received} idle={peer.is_idle} eof={peer.has_eof} cut={peer.is_cut}"
            f" reset={peer.was_reset} alert={peer.alert}"
            for name, peer in (("near peer", self.near_peer), ("far peer", self.far_peer))
        ]
        flows = f"forward {self.link.forward.state} reverse {self.link.reverse.state} ended {self.ended}"
        return "; ".join([*ends, *peers, flows])

    @property
    def from_near(self) -> int:
        """Bytes that the link says it moved from the near end to the far one."""
        return (self.link.forward if self.kind.is_server else self.link.reverse).moved

    @property
    def to_near(self) -> int:
        """Bytes that the link says it moved from the far end to the near one."""
        return (self.link.reverse if self.kind.is_server else self.link.forward).moved

    def close(self) -> None:
        """Release what is left."""
        self.link.finish(CloseReason.DRAINED)
        self.near_peer.close()
        self.far_peer.close()
        self.until(lambda: self.closed == 2)
        assert not self.reactor.held
        self.reactor.close()


@contextmanager
def rig(kind: Kind, **options: object) -> Iterator[Rig]:
    """A rig, started, and released whatever happens."""
    made = Rig(kind, **options)  # type: ignore[arg-type]
    try:
        yield made.start()
    finally:
        made.close()
