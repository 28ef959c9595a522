"""Accepting: a batch for each edge of a listening socket, and what happens when the machine says no.

A listener is watched level-triggered: what one batch leaves in the queue is reported again. Two conditions pause it,
which takes it out of the epoll so that a full queue cannot spin: max_connections (until a connection ends), and running
out of descriptors or memory (for PAUSE_S). Connections wait in the kernel's queue meanwhile, as they do with every
server that is busy.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable

from tlstunnel.relay.reactor import Reactor
from tlstunnel.server.connection import Connection
from tlstunnel.server.establish import steps
from tlstunnel.server.runtime import ServiceRuntime, describe

BATCH = 32
_STREAM = int(socket.SOCK_STREAM)
PAUSE_S = 0.25
_OUT_OF = {
    errno.EMFILE: "descriptors",
    errno.ENFILE: "descriptors",
    errno.ENOBUFS: "memory",
    errno.ENOMEM: "memory",
}


class Acceptor:
    """Accepts the connections of one listening socket for one service."""

    __slots__ = (
        "_accept",
        "_family",
        "_is_closed",
        "_is_guarded",
        "_is_paused",
        "_reactor",
        "_runtime",
        "_say",
        "_sock",
        "deadline",
    )

    def __init__(self, runtime: ServiceRuntime, sock: socket.socket, say: Callable[[str, str], None]) -> None:
        self._runtime = runtime
        self._reactor: Reactor = runtime.worker.reactor
        self._sock = sock
        self._family = int(sock.family)  # asked of the socket itself it is made an enum's member each time
        self._say = say
        # The method beneath `socket.accept`: it gives the descriptor without making the wrapper object twice.
        self._accept = sock._accept  # type: ignore[attr-defined]
        self._is_paused = True
        self._is_closed = False
        # Behind a proxy the client's own address comes with the header, and is asked about then.
        self._is_guarded = (
            runtime.admission.has_rules and sock.family != socket.AF_UNIX and not runtime.service.accept_proxy_protocol
        )
        self.deadline = 0.0
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            # Accepted sockets inherit both from the listener, which saves two calls for each.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._resume()

    def on_ready(self, fd: int, events: int) -> None:
        runtime, family = self._runtime, self._family
        for _ in range(BATCH):
            if runtime.is_full:
                self._pause("max_connections")
                runtime.wait_for_room(self._resume)
                return
            try:
                fd, address = self._accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in _OUT_OF:
                    self._pause(_OUT_OF[exc.errno])
                    self.deadline = self._reactor.now + PAUSE_S
                    self._reactor.hold(self)
                    return
                if exc.errno == errno.EINVAL:
                    self.close()  # nobody listens on it any more: we are told to drain in a moment
                    return
                # The connection was gone before we took it (accept(2) lists the errors of this kind): take the next.
                continue
            accepted = socket.SocketType(family, _STREAM, 0, fd)
            key = None
            if self._is_guarded:
                reason, key = runtime.admission.admit(address[0], self._reactor.now)
                if reason is not None:
                    runtime.worker.observer.rejected(runtime.index, describe(family, address), reason)
                    accepted.close()
                    continue
            try:
                connection = Connection(runtime, accepted, family, address, key)
            except BaseException:
                accepted.close()
                if key is not None:
                    runtime.admission.leave(key)
                raise
            connection.start(steps(connection))

    def on_crash(self, error: Exception) -> None:
        self._runtime.worker.on_crash(error)

    def on_deadline(self, now: float) -> None:
        self._reactor.release(self)
        self._resume()

    def close(self) -> None:
        """Accept nothing more. The queue stays for whoever else holds the socket."""
        if not self._is_closed:
            self._is_closed = True
            self._reactor.release(self)
            if not self._is_paused:
                self._reactor.pause(self._sock.fileno())
            self._sock.close()

    def _pause(self, reason: str) -> None:
        self._is_paused = True
        self._reactor.pause(self._sock.fileno())
        self._runtime.worker.observer.accept_paused(reason)
        self._say(self._runtime.service.name, reason)

    def _resume(self) -> None:
        if self._is_paused and not self._is_closed:
            self._is_paused = False
            self._reactor.watch(self._sock.fileno(), self, select.EPOLLIN)
