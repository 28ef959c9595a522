"""One connection from accept to the end: what the steps of `setup` work on, and the one way out.

A connection has three ways to end before there is a link: a step raises, which becomes a `Refusal`; its deadline
passes, for which its state has a reason; or tlstunnel stops. All of them come to `_end`, which tells both sides what
can be told and releases what setting up holds. With a link, the link does that. Either way `_report` tells the
observer, once.

What raises by an error of ours, in the steps or in ending itself, comes to `on_crash` (see `relay.reactor`). So every
part of ending may be done again: what it has released, or counted, already is passed over.

Session tickets of a server are not sent at the end of the handshake but with the first bytes for the client: a client
that never reads, and closes with tickets unread, would reset the connection and lose its own data.
"""

from __future__ import annotations

import contextlib
import functools
import math
import select
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tlstunnel._openssl import Engine, TLSError
from tlstunnel.connection import hint, verdict
from tlstunnel.connection.attempt import Attempt
from tlstunnel.connection.dial import Dialer
from tlstunnel.connection.refusal import Refusal, refusal_of
from tlstunnel.connection.routes import Route
from tlstunnel.connection.runtime import ServiceRuntime, describe
from tlstunnel.connection.sessions import TargetEnd
from tlstunnel.connection.starttls.negotiation import Negotiation, Verdict
from tlstunnel.outcome import CloseReason, Stage
from tlstunnel.proxy_protocol import End
from tlstunnel.relay.ends import PlainEnd, TLSEnd
from tlstunnel.relay.linger import Farewell, drop
from tlstunnel.relay.link import Link
from tlstunnel.relay.reactor import try_all
from tlstunnel.tls.firstbytes import NO_ALERT


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Where a connection stands, and what happens to it there.

    Attributes:
        name: for people.
        step: does what can be done at once; whether the state is over. False: it waits for an edge or for trio.
        late: why the connection ends when its deadline passes; None where the step itself looks at the clock.
        gone: why it ends as soon as the client has reset it; None where the step finds that when it reads.
    """

    name: str
    step: Callable[[Connection], bool]
    late: CloseReason | None = CloseReason.HANDSHAKE_TIMEOUT
    gone: CloseReason | None = None

    def __repr__(self) -> str:
        return f"<{self.name}>"


Path = Mapping[State, State]
"""Which state comes after which, in the connections of one service."""

ACCEPTED = State("accepted", lambda _: True)
OVER = State("over", lambda _: False)


_IS_SILENT = (
    "it said nothing for handshake_timeout; does it wait for TLS, or speak another protocol than starttls says?"
)
_IS_INJECTED = "plaintext came where TLS had to begin; someone may have added it"
_AWAITED = object()
"""The answer while trio has not given it."""


class Connection:
    """An accepted socket on its way to being a link: until then, the reactor's handler of its descriptors, and its
    deadline."""

    __slots__ = (
        "_answer", "_path", "_place", "_shake_began", "_started", "_taken", "address", "attempt", "backend", "client",
        "common_name", "deadline", "destination", "dialers", "expected", "family", "hello", "host", "link",
        "negotiation", "pieces", "record", "route", "runtime", "source", "state",
    )  # fmt: skip

    def __init__(
        self, runtime: ServiceRuntime, sock: socket.SocketType, family: int, address: Any, place: int | None
    ) -> None:
        """It has a place of the service's, and `place` where admission counts its address; both are given back."""
        worker = runtime.worker
        reactor = worker.reactor
        self.runtime = runtime
        self.state = ACCEPTED
        self.family, self.address = family, address
        self.host = "" if family == socket.AF_UNIX else address[0]
        self.source: End = None
        self.destination: End = None
        self.common_name = ""
        self.hello: hint.FirstMessage | None = None
        """The client's first message."""
        self.pieces = b""
        """What has been taken of it while it is not whole."""
        self.negotiation: Negotiation | None = None
        """What is said in plaintext before TLS, and perhaps a little after."""
        self.route: Route | None = None
        self.dialers: tuple[Dialer, ...] = runtime.routes.default.dialers
        """Where to: the targets from which one is to be reached."""
        self.attempt: Attempt | None = None
        self.expected = ""
        self.backend: PlainEnd | None = None
        self.link: Link | None = None
        self._answer: Any = None
        self._place = place
        self._taken = True
        self._started = self._shake_began = reactor.now
        if runtime.is_tls_at_once:
            self.route = runtime.routes.default
            engine = runtime.server_engine(self.route)
            self.client: PlainEnd = TLSEnd(sock, worker.scratch, reactor.watch_room, engine, is_server=True)
        else:
            self.client = PlainEnd(sock, worker.scratch, reactor.watch_room)
        self.record = worker.observer.opened(runtime.index, describe(family, address))  # the rest is `start`'s

    # What the steps do with it.

    def hold_place(self, place: int | None) -> None:
        """Own the place that admission counts a client of."""
        self._place = place

    def begin_tls(self, route: Route) -> TLSEnd:
        """From here on the client's end speaks TLS, with this route's certificate."""
        worker = self.runtime.worker
        old = self.client
        engine = self.runtime.server_engine(route)
        client = TLSEnd(old.sock, worker.scratch, worker.reactor.watch_room, engine, is_server=True)
        client.is_readable, client.has_hung_up = True, old.has_hung_up
        self.client, self.route = client, route
        return client

    def client_said(self, hello: hint.FirstMessage) -> None:
        """The client's first message is here, whole."""
        self.hello = hello
        if self.runtime.worker.observer.is_detailed:
            hint.describe(self.record, hello)

    def shaken(self, engine: Engine, *, has_alpn: bool) -> None:
        """The handshake that counts is complete: the client's, in client mode the backend's."""
        record = self.record
        record.version, record.cipher, record.group = engine.version(), engine.cipher(), engine.group()
        record.resumed = engine.is_resumed()
        if has_alpn:
            record.alpn = engine.alpn()
        record.handshake_s = time.monotonic() - self._shake_began
        self.runtime.worker.observer.handshake_done(record)

    def begin_target_tls(self, engine: Engine, expected: str) -> TargetEnd:
        """The handshake with the backend begins; it has to show a certificate for the name `expected`."""
        runtime = self.runtime
        worker = runtime.worker
        dialer, plain = self.dialer, self.backend
        sock = self.target_sock if plain is None else plain.sock
        backend = TargetEnd(sock, worker.scratch, worker.reactor.watch_room, engine, runtime.sessions, dialer.target)
        if plain is None:
            self._hand_over_to(backend)
        else:
            backend.is_readable, backend.has_hung_up = True, plain.has_hung_up
            self.backend = backend
        self.record.with_backend = True
        self.expected = expected
        self._shake_began = time.monotonic()
        if self.negotiation is None:  # else the time has begun with that
            self.deadline = worker.reactor.now + runtime.handshake_s
        return backend

    @property
    def dialer(self) -> Dialer:
        """Of the target that was reached."""
        assert self.attempt is not None  # noqa: S101 - the state before this one is over
        return self.attempt.dialer

    @property
    def target_sock(self) -> socket.SocketType:
        """The socket to the target, until an end owns it."""
        assert self.attempt is not None and self.attempt.sock is not None  # noqa: S101, PT018 - as above
        return self.attempt.sock

    def plain_backend(self) -> PlainEnd:
        """The target's end, in plaintext."""
        worker = self.runtime.worker
        backend = PlainEnd(self.target_sock, worker.scratch, worker.reactor.watch_room)
        self._hand_over_to(backend)
        return backend

    def begin_negotiation(self, negotiation: Negotiation) -> None:
        """The two sides speak about TLS from here on, within handshake_timeout."""
        self.negotiation = negotiation
        self.plain_backend()
        self.record.starttls = str(self.runtime.service.starttls)
        self.deadline = self.runtime.worker.reactor.now + self.runtime.handshake_s

    def _hand_over_to(self, backend: PlainEnd) -> None:
        assert self.attempt is not None  # noqa: S101 - it was reached
        backend.note(self.attempt.edges)
        self.backend, self.attempt.sock = backend, None

    def ask(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Let trio do something, and go on when it is done: see `is_asking` and `take_answer`."""
        self._answer = _AWAITED
        self.runtime.worker.bridge.ask(work, self, self.on_answer)

    @property
    def is_asking(self) -> bool:
        """Whether trio has not answered yet."""
        return self._answer is _AWAITED

    def take_answer(self) -> Any:
        """What trio returned, or what it raised."""
        answer, self._answer = self._answer, None
        return answer

    def send_outside(self, data: bytes) -> None:
        """Send the client something outside any session."""
        with contextlib.suppress(OSError):
            self.client.sock.send(data, socket.MSG_DONTWAIT)

    def say_farewell(self, text: str) -> None:
        """Tell the client why the negotiation ends, in words of its protocol: within TLS, if that stands."""
        negotiation = self.negotiation
        assert negotiation is not None  # noqa: S101 - it has begun
        words = negotiation.farewell(text)
        self.runtime.worker.scratch.plain[: len(words)] = words
        with contextlib.suppress(OSError):
            self.client.send(len(words))

    def join(self) -> None:
        """Join the ends. From here on the link owns them."""
        runtime = self.runtime
        worker = runtime.worker
        reactor = worker.reactor
        backend = self.backend or self.plain_backend()
        self.link = Link(
            reactor,
            self.client,
            backend,
            runtime.limits,
            scratch=worker.scratch,
            cells=worker.observer.row.counters,
            forward_cell=runtime.forward_cell,
            reverse_cell=runtime.reverse_cell,
            ends_at=self._started + runtime.max_lifetime_s,
            on_finished=self._on_link_finished,
            on_closed=_nothing,
        )
        self.hello = self.attempt = self.negotiation = None
        reactor.release(self)
        self.record.live_bytes = self._live_bytes
        self.link.start()

    def _live_bytes(self) -> tuple[int, int]:
        link = self.link
        return (0, 0) if link is None else (link.forward.moved, link.reverse.moved)

    # What moves it on.

    def start(self, path: Path) -> None:
        """Begin setting up, by this path. What is ready already is served at once.

        What is counted as open, or watched, from here on is closed by `_end` and `_report`, whatever is raised.
        """
        self._path = path
        runtime = self.runtime
        worker = runtime.worker
        worker.open_connections.add(self)
        self.deadline = worker.reactor.now + runtime.handshake_s
        worker.reactor.hold(self)
        worker.reactor.watch(self.client.fd, self)
        self._go_on()

    def on_ready(self, fd: int, events: int) -> None:
        if fd == self.client.fd:
            self.client.note(events)
            if events & select.EPOLLERR and self.state.gone is not None:
                self._end(Refusal(self.state.gone))  # it was a reset: a FIN alone may be a half-close
                return
        elif self.backend is not None and fd == self.backend.fd:
            self.backend.note(events)
        elif self.attempt is not None:
            self.attempt.edges |= events  # a target that speaks first may have done so before it has an end
        self._go_on()

    def on_answer(self, answer: Any) -> None:
        """trio has done what it was asked for: what it returned, or what it raised."""
        if self.state is OVER:
            if not isinstance(answer, BaseException):
                answer.close()
            return
        self._answer = answer
        self._go_on()

    def on_deadline(self, now: float) -> None:
        late = self.state.late
        if late is None:
            self.deadline = math.inf
            self._go_on()
        else:
            self._end(self._late(late))

    def _late(self, reason: CloseReason) -> Refusal:
        """Whoever was waited for is to blame; before TLS that may be the backend."""
        negotiation = self.negotiation
        if negotiation is None or negotiation.verdict is not Verdict.GO_ON:
            return Refusal(reason)
        if not negotiation.awaits_backend or self.client.has_pending:
            self.record.with_backend = False
            return Refusal(reason)
        self.say_farewell("the service behind this one does not answer")
        return Refusal(CloseReason.STARTTLS_BACKEND, _IS_SILENT)

    def on_crash(self, error: BaseException) -> None:
        if self.link is not None:
            self.link.on_crash(error)
            self.runtime.worker.reactor.release(self)
        elif self.state is OVER:
            self.abandon()  # it is the end that raised
        else:
            self._end(Refusal(CloseReason.INTERNAL_ERROR, type(error).__name__))

    def abandon(self) -> None:
        self.state = OVER
        reactor = self.runtime.worker.reactor
        ends = [end for end in (self.client, self.backend) if end is not None]
        try_all(
            lambda: reactor.release(self),
            self._drop_attempt,
            *(functools.partial(drop, reactor, end, self) for end in ends),
            *([] if self.link is None else [self.link.abandon]),
            lambda: self._report(CloseReason.INTERNAL_ERROR, ""),
        )

    def drain(self) -> None:
        """tlstunnel stops and time is up."""
        if self.link is not None:
            self.link.finish(CloseReason.DRAINED)
        else:
            self._end(Refusal(CloseReason.HANDSHAKE_DRAINED))

    def _go_on(self) -> None:
        state = self.state
        try:
            while state.step(self):
                state = self.state = self._path[state]
        except Exception as exc:
            # Of a link that has begun, nothing may come through here but an error of ours.
            refusal = None if self.link is not None else self._refusal_of(exc)
            if refusal is None:
                raise
            self._end(refusal)

    def _refusal_of(self, error: Exception) -> Refusal | None:
        """What an exception says of this connection; None for an error of ours."""
        refusal = self._tls_refusal_of(error) if isinstance(error, TLSError) else refusal_of(error)
        negotiation = self.negotiation
        if refusal is None or negotiation is None or negotiation.verdict is not Verdict.START_TLS:
            return refusal
        if refusal.reason is CloseReason.NOT_TLS and negotiation.was_asked:
            # The same as if it had come together with the request for TLS, and no place for an answer in HTTP.
            return Refusal(CloseReason.STARTTLS_INJECTED, _IS_INJECTED)
        return refusal

    def _tls_refusal_of(self, error: TLSError) -> Refusal:
        """What a session that failed says of it."""
        record, route = self.record, self.route
        if isinstance(self.backend, TargetEnd):
            shown = self.backend.shown()
            return verdict.of_backend(error, record, self.expected, shown, is_server=self.runtime.is_server)
        first = None if self.client.at_eof else self.hello
        settings = self.runtime.service.tls if route is None else route.tls
        return verdict.of_client(error, record, None if route is None else route.side, first, settings)

    # The end.

    def _end(self, refusal: Refusal) -> None:
        """End before there was a link: tell both sides what can be told, release everything, report."""
        if self.state is OVER or self.link is not None:
            return
        self.state = OVER
        runtime, record, reason = self.runtime, self.record, refusal.reason
        if refusal.decision is not None:
            runtime.worker.observer.judged(record, refusal.decision.rule, refusal.decision.reason)
        if refusal.alert != NO_ALERT:
            # In a record of its own (RFC 8446 sections 5.1 and 6).
            self.send_outside(bytes((21, 3, 3, 0, 2, 2, refusal.alert)))
        elif runtime.service.http_hint and runtime.is_server and hint.is_http(refusal):
            self.send_outside(hint.HTTP_ANSWER)
        elif reason.stage is Stage.DIAL and runtime.sorry:
            self.send_outside(runtime.sorry)
        if self.hello is not None and reason.stage is Stage.HANDSHAKE:
            hint.describe(record, self.hello)
        detail = hint.complete(reason, refusal.detail, record, self.hello)
        reactor = runtime.worker.reactor
        reactor.release(self)
        self._drop_attempt()
        for end in (self.client, self.backend):
            if end is None:
                continue
            with contextlib.suppress(OSError, TLSError):
                if record.handshake_s >= 0 and end is self.client and not end.is_shut:
                    end.shut()  # after a handshake, close_notify: nothing was promised that is cut now
            Farewell(reactor, end, _nothing)
        self._report(reason, detail)

    def _drop_attempt(self) -> None:
        if self.attempt is not None:
            self.attempt.drop(self.runtime.worker.reactor)

    def _on_link_finished(self, link: Link, reason: CloseReason, detail: str, error: BaseException | None) -> None:
        record = self.record
        record.bytes_forward, record.bytes_reverse = link.forward.moved, link.reverse.moved
        if error is not None:
            self.runtime.worker.reactor.note(error)
        self._report(reason, hint.of_link(reason, detail, record.version))
        # The link knows us and we know it: without this each connection leaves 2.6 KiB, and an old certificate's
        # context, to the collector, which comes by once in thousands of connections.
        self.link = None

    def _report(self, reason: CloseReason, detail: str) -> None:
        self.state = OVER
        record, runtime = self.record, self.runtime
        record.reason = reason
        if detail:
            record.detail = detail
        runtime.worker.open_connections.discard(self)
        runtime.worker.observer.closed(record)
        if self._place is not None:
            runtime.admission.leave(self._place)
            self._place = None
        if self._taken:
            runtime.leave()
            self._taken = False
            runtime.tell_of_room()


def _nothing() -> None:
    """Nobody waits for this descriptor."""
