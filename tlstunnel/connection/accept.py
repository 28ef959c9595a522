"""Accepting: a batch for each edge of a listening socket, and what happens when the machine says no.

A listener is watched level-triggered: what one batch leaves in the queue is reported again. Two conditions pause it,
which takes it out of the epoll so that a full queue cannot spin: no room (until a connection ends somewhere, in another
worker perhaps: `ledger`), and running out of descriptors or memory (for PAUSE_S). Connections wait in the kernel's
queue meanwhile, as they do with every server that is busy.

Where something is counted over all workers, a batch is accepted and counted under the ledger's lock. What takes longer
comes after it.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable
from typing import Any

from tlstunnel.connection.connection import Connection
from tlstunnel.connection.dial import set_up
from tlstunnel.connection.runtime import ServiceRuntime, describe
from tlstunnel.connection.setup import path_of
from tlstunnel.outcome import CloseReason
from tlstunnel.relay.reactor import Reactor, try_all

BATCH = 32
_STREAM = int(socket.SOCK_STREAM)
PAUSE_S = 0.25
"""After this a paused listener looks again, also one that waits to be told."""
TRIES = 20
"""For the ledger's lock, a turn for each; between them links are served."""
_OUT_OF = {
    errno.EMFILE: "descriptors",
    errno.ENFILE: "descriptors",
    errno.ENOBUFS: "memory",
    errno.ENOMEM: "memory",
}

_Accepted = tuple[socket.SocketType, Any, CloseReason | None, int | None]
"""A socket, its address, why it is refused if it is, and the place of its address."""


class Acceptor:
    """Accepts the connections of one listening socket for one service."""

    __slots__ = (
        "_accept",
        "_family",
        "_is_closed",
        "_is_counted",
        "_is_guarded",
        "_is_paused",
        "_is_waiting",
        "_path",
        "_reactor",
        "_runtime",
        "_say",
        "_sock",
        "_tries",
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
        self._path = path_of(runtime)
        self._is_paused = True
        self._is_closed = False
        self._tries = 0
        self._is_waiting = False
        """Whether it has found no room, and none since."""
        # Behind a proxy the client's own address comes with the header, and is asked about then.
        self._is_guarded = (
            runtime.admission.has_rules and sock.family != socket.AF_UNIX and not runtime.service.accept_proxy_protocol
        )
        self._is_counted = runtime.is_counted or (self._is_guarded and runtime.admission.is_counting)
        self.deadline = 0.0
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            set_up(sock, runtime.service.keepalive)
        self._resume()

    def on_ready(self, fd: int, events: int) -> None:
        runtime = self._runtime
        ledger = runtime.worker.ledger
        if self._is_counted and not ledger.enter():
            self._tries += 1
            if self._tries == TRIES:
                self._tries = 0
                self._pause()  # somebody was stopped in the middle of it, and the supervisor will notice
            return
        self._tries = 0
        batch: list[_Accepted] = []
        failure: BaseException | None = None
        room = 1
        try:
            room = runtime.room(BATCH)
            for _ in range(room):
                if not self._take(batch):
                    break
        except BaseException as exc:  # noqa: BLE001 - raised again, when what was accepted before it is served
            failure = exc
        if self._is_counted:
            try:
                ledger.leave()
            except BaseException as exc:  # noqa: BLE001 - as above
                failure = exc
                try_all(ledger.leave)  # the other workers wait for it
        if room <= 0:
            self._wait_for_room()
            return
        self._is_waiting = False
        for accepted, address, reason, place in batch:
            connection = None
            try:
                connection = self._begin(accepted, address, reason, place)
            except BaseException as exc:  # noqa: BLE001 - as the reactor does
                self._reactor.contain(self, exc)
                self._reactor.guard(self, self._note_failed, address)
            if connection is not None:
                self._reactor.guard(connection, self._start, connection)
            else:
                self._give_back(accepted, place)
        if failure is not None:
            raise failure

    def _take(self, batch: list[_Accepted]) -> bool:
        """Accept one connection, count it, and add it to the batch; whether there was one."""
        runtime = self._runtime
        for _ in range(BATCH):
            try:
                fd, address = self._accept()
            except BlockingIOError:
                return False
            except OSError as exc:
                if exc.errno in _OUT_OF:
                    self._tell(_OUT_OF[exc.errno])
                    self._pause()
                    return False
                if exc.errno == errno.EINVAL:
                    self.close()  # nobody listens on it any more: we are told to drain in a moment
                    return False
                # The connection was gone before we took it (accept(2) lists the errors of this kind): take the next.
                continue
            accepted = socket.SocketType(self._family, _STREAM, 0, fd)
            reason = place = None
            is_counted = False
            try:
                runtime.take()
                is_counted = True
                if self._is_guarded:
                    reason, place = runtime.admission.admit(address[0], self._reactor.now)
                batch.append((accepted, address, reason, place))
            except BaseException:
                accepted.close()
                if is_counted:
                    runtime.leave()
                if place is not None:
                    runtime.admission.leave(place)
                self._note_failed(address)
                raise
            return True
        return False

    def _begin(
        self, accepted: socket.SocketType, address: Any, reason: CloseReason | None, place: int | None
    ) -> Connection | None:
        """What carries a connection from here on; None for one that is refused."""
        runtime = self._runtime
        if reason is not None:
            runtime.worker.observer.rejected(runtime.index, describe(self._family, address), reason)
            return None
        return Connection(runtime, accepted, self._family, address, place)

    def _give_back(self, accepted: socket.SocketType, place: int | None) -> None:
        """Close a connection that was counted and is carried by nobody."""
        runtime = self._runtime
        try_all(accepted.close, runtime.leave)
        if place is not None:
            try_all(lambda: runtime.admission.leave(place))
        try_all(runtime.tell_of_room)

    def _start(self, connection: Connection) -> None:
        connection.start(self._path)

    def _note_failed(self, address: Any) -> None:
        """An error of ours kept this connection from being begun."""
        self._runtime.worker.observer.failed(self._runtime.index, describe(self._family, address))

    def on_crash(self, error: BaseException) -> None:
        """Nothing to end: the connection that was accepted is closed, and the next one may fare better."""

    def abandon(self) -> None:
        """Nothing to let go of."""

    def on_deadline(self, now: float) -> None:
        if self in self._runtime.worker.waiting:
            self.deadline = now + PAUSE_S
            self.retry()
        else:
            self._resume()

    def retry(self) -> None:
        """There may be room now: accept again, or else wait to be told."""
        worker = self._runtime.worker
        worker.ledger.ask()  # before the look, so that a place given back from here on is told of
        if self._runtime.room(1) > 0:
            self._resume()
        else:
            worker.waiting[self] = None

    def close(self) -> None:
        """Accept nothing more. The queue stays for whoever else holds the socket."""
        if not self._is_closed:
            self._is_closed = True
            self._reactor.release(self)
            self._runtime.worker.waiting.pop(self, None)
            if not self._is_paused:
                self._reactor.pause(self._sock.fileno())
            self._sock.close()

    def _wait_for_room(self) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            self._tell("max_connections" if self._runtime.worker.spare > 0 else "descriptors")
        self._pause()
        self.retry()

    def _tell(self, reason: str) -> None:
        self._runtime.worker.observer.accept_paused(reason)
        self._say(self._runtime.service.name, reason)

    def _pause(self) -> None:
        self.deadline = self._reactor.now + PAUSE_S
        self._reactor.hold(self)
        self._reactor.pause(self._sock.fileno())
        self._is_paused = True

    def _resume(self) -> None:
        if self._is_paused and not self._is_closed:
            self._reactor.watch(self._sock.fileno(), self, select.EPOLLIN)
            self._is_paused = False
        self._runtime.worker.waiting.pop(self, None)
        self._reactor.release(self)
