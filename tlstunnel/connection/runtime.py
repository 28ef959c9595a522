"""What a worker keeps for each service while it runs: contexts, dialers, limits, how many connections are open."""

from __future__ import annotations

import select
import socket
from typing import Any, Protocol

from tlstunnel._openssl import Engine, Scratch
from tlstunnel.config.model import Failover, Mode, Service
from tlstunnel.connection.admission import Admission
from tlstunnel.connection.bridge import Bridge
from tlstunnel.connection.dial import Dialer
from tlstunnel.connection.ledger import PER_CONNECTION, Ledger
from tlstunnel.connection.routes import Route, Routes
from tlstunnel.connection.sessions import Sessions
from tlstunnel.connection.starttls.modes import SERVER
from tlstunnel.observe.observer import Observer
from tlstunnel.relay.link import Limits
from tlstunnel.relay.reactor import Reactor
from tlstunnel.tls.store import Material, ServiceContexts

_SORRY = "the service behind this one cannot be reached now"


class Waiting(Protocol):
    """Who accepts nothing until there is room."""

    def retry(self) -> None:
        """There may be some."""


class Worker:
    """What all services of a worker share. It is the reactor's handler of the ledger's descriptor."""

    __slots__ = (
        "_descriptors", "bridge", "ledger", "max_connections", "observer", "open_connections",
        "reactor", "scratch", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        reactor: Reactor,
        bridge: Bridge,
        observer: Observer,
        ledger: Ledger,
        *,
        max_connections: int | None,
        capacity: int,
    ) -> None:
        """`max_connections` are those of the whole daemon; `capacity` of them this worker has descriptors for."""
        self.reactor, self.bridge, self.observer = reactor, bridge, observer
        self.ledger = ledger
        self._descriptors = capacity * PER_CONNECTION
        self.scratch = Scratch()
        self.open_connections: set[Any] = set()
        self.max_connections = max_connections
        self.waiting: dict[Waiting, None] = {}
        reactor.watch(ledger.told, self, select.EPOLLIN | select.EPOLLET)

    @property
    def spare(self) -> int:
        """For how many connections more there are descriptors, a client's and a backend's for each. Those whose last
        words are still being heard have theirs, too."""
        used = PER_CONNECTION * len(self.open_connections) + self.reactor.farewells
        return (self._descriptors - used) // PER_CONNECTION

    def on_ready(self, fd: int, events: int) -> None:
        """Some worker has given a place back."""
        for each in list(self.waiting):
            each.retry()

    def on_crash(self, error: BaseException) -> None:
        """Nothing to end: whoever waits looks again by himself."""

    def abandon(self) -> None:
        """Nothing to let go of."""


class ServiceRuntime:
    """One service in one worker."""

    __slots__ = (
        "_cells", "_next_target", "_taken", "_taken_of_all", "admission", "connect_s", "contexts", "dialers",
        "fallback", "forward_cell", "handshake_s", "index", "is_counted", "is_server", "is_tls_at_once", "limits",
        "max_lifetime_s", "must_look_first", "reverse_cell", "routes", "service", "sessions", "sorry", "worker",
    )  # fmt: skip

    def __init__(self, worker: Worker, index: int, service: Service, contexts: ServiceContexts) -> None:
        self.worker, self.index, self.service, self.contexts = worker, index, service, contexts
        self.is_server = service.mode is Mode.SERVER
        timeouts = service.timeouts
        self.handshake_s = timeouts.handshake_s
        self.connect_s = timeouts.connect_s
        self.max_lifetime_s = timeouts.max_lifetime_s
        self.limits = Limits(
            idle_s=timeouts.idle_s,
            half_close_s=timeouts.half_close_s,
            is_strict=service.strict_close,
        )
        targets = [*service.targets, *service.fallback_target, *(each for sni in service.sni for each in sni.targets)]
        self.dialers: dict[object, Dialer] = {
            each: Dialer(each, service.source_address, service.keepalive) for each in targets
        }
        self.fallback = tuple(self.dialers[each] for each in service.fallback_target)
        self.routes = Routes(service, contexts, self.dialers)
        self.must_look_first = service.accept_proxy_protocol or self.routes.is_needed or service.starttls is not None
        self.sorry = b""
        """What a client that waits for a greeting hears where no target can be reached."""
        if service.starttls is not None and self.is_server:
            self.sorry = SERVER[service.starttls](service.starttls_required).farewell(_SORRY)
        self.is_tls_at_once = self.is_server and not self.must_look_first
        self._cells = worker.observer.row.counters
        self._taken, self._taken_of_all = worker.observer.place_counters(index)
        self.admission = Admission(service, worker.ledger, self._taken, worker.observer.row.index)
        self._next_target = 0
        self.forward_cell, self.reverse_cell = worker.observer.byte_counters(index)
        self.is_counted = service.max_connections is not None or worker.max_connections is not None
        """Whether there may be no place: whoever takes one then holds the ledger's lock."""
        self.sessions = Sessions()

    def renew(self, material: Material) -> None:
        """Use this material for sessions from now on; sessions made under the old trust are not resumed.

        Raises:
            ContextError: OpenSSL refuses something; what was in use stays.
        """
        self.contexts.renew(material)
        self.routes = Routes(self.service, self.contexts, self.dialers)
        self.sessions.forget()

    def room(self, most: int) -> int:
        """How many connections more may be accepted now, as far as this asks: none when max_connections are open, of
        this service or of all together, or when descriptors run out."""
        worker = self.worker
        room = min(most, worker.spare)
        if self.service.max_connections is not None:
            room = min(room, self.service.max_connections - worker.ledger.total(self._taken))
        if worker.max_connections is not None:
            room = min(room, worker.max_connections - worker.ledger.total(self._taken_of_all))
        return room

    def take(self) -> None:
        """A connection takes a place."""
        self._cells[self._taken] += 1
        self._cells[self._taken_of_all] += 1

    def leave(self) -> None:
        """A connection's place is free again; `tell_of_room` has to follow."""
        self._cells[self._taken] -= 1
        self._cells[self._taken_of_all] -= 1

    def tell_of_room(self) -> None:
        """Tell whoever waits for a place, in this worker or another, that one is free."""
        ledger = self.worker.ledger
        if ledger.is_asked:
            ledger.tell()

    def dial_order(self, dialers: tuple[Dialer, ...]) -> tuple[Dialer, ...]:
        """The targets in the order in which to try them: those that rest come last, as a last hope."""
        if len(dialers) == 1:
            return dialers
        if self.service.failover is Failover.ROUND_ROBIN:
            self._next_target = start = (self._next_target + 1) % len(dialers)
            dialers = dialers[start:] + dialers[:start]
        now = self.worker.reactor.now
        return tuple(sorted(dialers, key=lambda dialer: dialer.rests_until > now))

    def rest(self, dialer: Dialer, alternatives: int) -> None:
        """A target failed: try others before it for a while, longer each time."""
        if alternatives > 1:
            dialer.rest(self.worker.reactor.now)
            self.worker.observer.target_rests(self.index, dialer.text, True)

    def wake(self, dialer: Dialer) -> None:
        """A target was reached."""
        if dialer.rests_until:
            dialer.wake()
            self.worker.observer.target_rests(self.index, dialer.text, False)

    def server_engine(self, route: Route) -> Engine:
        """A TLS session in which we are the server."""
        side = route.side
        assert side is not None  # noqa: S101 - a route of a service in server mode has one
        engine = Engine(side.base.raw, self.worker.scratch, is_server=True)
        if side.current is not side.base:
            engine.switch(side.current.raw)
        return engine

    def client_engine(self) -> Engine:
        """A TLS session in which we are the client."""
        context = self.contexts.target
        assert context is not None  # noqa: S101 - a service with target_tls has one
        return Engine(context.raw, self.worker.scratch, is_server=False)


def describe(family: int, address: Any) -> str:
    """A client's address as people write it; "unix" for a unix socket."""
    if family == socket.AF_UNIX:
        return "unix"
    if family == socket.AF_INET6:
        host = address[0]
        # A dual-stack listener sees IPv4 clients as ::ffff:192.0.2.1; people know them without it.
        return f"{host[7:]}:{address[1]}" if host.startswith("::ffff:") else f"[{host}]:{address[1]}"
    return f"{address[0]}:{address[1]}"
