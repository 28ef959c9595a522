"""The attempt to reach a backend: its targets in order, one at a time, all within connect_timeout.

Each target gets its share of the time that is left. One that fails is passed over from then on, for a while that grows
(`Dialer.rest`). A literal address is connected to by the reactor; a name is left to trio, which keeps the time itself.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from tlstunnel.connection.dial import Dialer, dial_error
from tlstunnel.connection.refusal import RefusedError
from tlstunnel.connection.runtime import ServiceRuntime
from tlstunnel.observe.record import ConnectionRecord
from tlstunnel.outcome import CloseReason
from tlstunnel.relay.reactor import EDGES, EDGES_AND_ROOM, Handler, Reactor


class Caller(Handler, Protocol):
    """The connection that wants a backend: handler of the socket's descriptor."""

    runtime: ServiceRuntime
    record: ConnectionRecord

    def ask(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Let trio do something."""

    @property
    def is_asking(self) -> bool:
        """Whether trio has not answered yet."""

    def take_answer(self) -> Any:
        """What trio returned, or what it raised."""


class Attempt:
    """Owns the socket to a target until an end does.

    Attributes:
        dialer: of the target that is being tried, or was reached.
        sock: the socket to it; None while trio connects, and when an end has it.
        edges: what the reactor has said of that socket.
        deadline: until when the target may take, where it is the reactor that waits; in time.monotonic.
    """

    __slots__ = ("_began", "_ends_at", "_is_resolving", "_left", "_order", "deadline", "dialer", "edges", "sock")

    def __init__(self, runtime: ServiceRuntime, dialers: tuple[Dialer, ...]) -> None:
        self._order = runtime.dial_order(dialers)
        self._left = len(self._order)
        self._is_resolving = False
        self._began = time.monotonic()
        self._ends_at = runtime.worker.reactor.now + runtime.connect_s
        self.dialer = self._order[0]
        self.sock: socket.SocketType | None = None
        self.edges = 0
        self.deadline = math.inf

    def is_reached(self, connection: Caller) -> bool:
        """Go on for this connection; whether a target is reached. If not, an edge, trio or the deadline is waited for.

        Raises:
            RefusedError: the last target failed.
        """
        while True:
            try:
                if self.sock is not None:
                    is_reached = self._is_connected(connection.runtime.worker.reactor)
                elif self._is_resolving:
                    is_reached = self._has_answer(connection)
                else:
                    is_reached = self._begin(connection)
                break
            except RefusedError as exc:
                self._pass_over(connection.runtime, exc)
        if is_reached:
            runtime, record = connection.runtime, connection.record
            runtime.wake(self.dialer)
            self.deadline = math.inf
            record.connect_s = time.monotonic() - self._began
            runtime.worker.observer.dialed(record)
        return is_reached

    def drop(self, reactor: Reactor) -> None:
        """Close the socket to a target that was not reached, or is not wanted any more."""
        sock = self.sock
        if sock is not None:
            reactor.forget(sock.fileno())
            sock.close()
            self.sock = None

    def _begin(self, connection: Caller) -> bool:
        reactor = connection.runtime.worker.reactor
        dialer = self.dialer = self._order[-self._left]
        connection.record.target = dialer.text
        share_s = (self._ends_at - reactor.now) / self._left if self._ends_at < math.inf else math.inf
        begun = dialer.begin()
        if begun is None:
            self._is_resolving = True
            connection.ask(dialer.slowly(max(share_s, 0.0)))
            return False
        self.edges = 0
        self.sock, is_connected = begun
        # On loopback the connection is there when the call returns, although the call says it is in progress.
        if is_connected or dialer.is_there(self.sock):
            reactor.watch(self.sock.fileno(), connection)
            return True
        self.deadline = reactor.now + max(share_s, 0.0)
        reactor.watch(self.sock.fileno(), connection, EDGES_AND_ROOM)
        return False

    def _is_connected(self, reactor: Reactor) -> bool:
        assert self.sock is not None  # noqa: S101 - the caller has looked
        if self.dialer.check(self.sock):
            return True
        if reactor.now >= self.deadline:
            raise RefusedError(CloseReason.BACKEND_CONNECT_TIMEOUT, f"{self.dialer.text}: not accepted in time")
        return False

    def _has_answer(self, connection: Caller) -> bool:
        if connection.is_asking:
            return False
        answer = connection.take_answer()
        self._is_resolving = False
        if isinstance(answer, OSError):
            raise dial_error(self.dialer.target, answer)
        if isinstance(answer, BaseException):
            try:
                raise answer
            finally:
                del answer  # or its traceback would keep it, and all that was held there, for the collector
        self.edges = 0
        self.sock = answer
        connection.runtime.worker.reactor.watch(answer.fileno(), connection, EDGES)
        return True

    def _pass_over(self, runtime: ServiceRuntime, error: RefusedError) -> None:
        """This target failed: the next one is tried.

        Raises:
            RefusedError: there is none.
        """
        self.drop(runtime.worker.reactor)
        self.deadline = math.inf
        runtime.rest(self.dialer, len(self._order))
        self._left -= 1
        if not self._left:
            raise error
        runtime.worker.observer.dial_failed(runtime.index, error.refusal.reason)
