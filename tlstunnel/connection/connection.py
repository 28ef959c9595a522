"""One connection from accept to the end: what carries the steps of `establish`, and the one way out.

A connection has three ways to end before there is a link: a step raises, which `_resume` turns into a close reason; its
deadline passes, which `_late` names; or tlstunnel stops. All of them come to `_end`, which tells both sides what can be
told and releases what setting up holds. With a link, the link does that. Either way `_report` tells the observer, once.

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
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import trio

from tlstunnel._openssl import Engine, TLSError
from tlstunnel.connection import hint, verdict
from tlstunnel.connection.dial import Dialer, DialError
from tlstunnel.connection.refusal import Refusal
from tlstunnel.connection.routes import Route
from tlstunnel.connection.runtime import ServiceRuntime, describe
from tlstunnel.connection.sessions import TargetEnd
from tlstunnel.errors import words_of
from tlstunnel.outcome import CloseReason, Stage
from tlstunnel.proxy_protocol import End
from tlstunnel.relay.ends import PlainEnd, TLSEnd
from tlstunnel.relay.linger import Farewell, drop
from tlstunnel.relay.link import Link
from tlstunnel.relay.reactor import try_all
from tlstunnel.tls.context import Context
from tlstunnel.tls.firstbytes import NO_ALERT, HelloError

_MOMENT_S = 0.01
"""Before another try for the ledger's lock, whose holder does not go on."""


class Connection:
    """An accepted socket on its way to being a link. Handler and held of the reactor until then."""

    __slots__ = (
        "_answer", "_backend_edges", "_backend_sock", "_dial_began", "_dial_ends", "_has_place", "_is_dialing",
        "_is_over", "_late", "_place", "_shake_began", "_started", "_steps", "address", "backend", "backend_context",
        "client", "common_name", "deadline", "destination", "dialer", "expected", "family", "hello", "host", "is_late",
        "link", "record", "route", "runtime", "source",
    )  # fmt: skip

    def __init__(
        self, runtime: ServiceRuntime, sock: socket.SocketType, family: int, address: Any, place: int | None
    ) -> None:
        """It has a place of the service's, and `place` where admission counts its address; both are given back."""
        worker = runtime.worker
        reactor = worker.reactor
        self.runtime = runtime
        self.family, self.address = family, address
        self.host = "" if family == socket.AF_UNIX else address[0]
        self.source: End = None
        self.destination: End = None
        self.common_name = ""
        self.route: Route | None = None
        self.hello: hint.FirstMessage | None = None
        self.dialer: Dialer | None = None
        self.expected = ""
        self.backend: PlainEnd | None = None
        self.link: Link | None = None
        self.is_late = False
        self._place = place
        self._backend_sock: socket.SocketType | None = None
        self._answer: Any = None
        self.backend_context: Context | None = None
        self._backend_edges = 0
        self._is_dialing = self._is_over = False
        self._has_place = True
        self._started = self._shake_began = reactor.now
        if runtime.is_tls_at_once:
            engine = runtime.server_engine(runtime.routes.default)
            self.client: PlainEnd = TLSEnd(sock, worker.scratch, reactor.watch_room, engine, is_server=True)
        else:
            self.client = PlainEnd(sock, worker.scratch, reactor.watch_room)
        self.record = worker.observer.opened(runtime.index, describe(family, address))  # the rest is `start`'s

    # What the steps do with it.

    def admit(self) -> Generator[None, None, None]:
        """Ask the service's admission about the client that a PROXY header named.

        Raises:
            Refusal: it is not let in.
        """
        worker, admission = self.runtime.worker, self.runtime.admission
        while admission.is_counting and not worker.ledger.enter():
            yield from self.ask(_a_moment)
        try:
            reason, self._place = admission.admit(self.host, worker.reactor.now)
        finally:
            if admission.is_counting:
                worker.ledger.leave()
        if reason is not None:
            raise Refusal(reason)

    def begin_tls(self, route: Route) -> TLSEnd:
        """From here on the client's end speaks TLS, with this route's certificate."""
        worker = self.runtime.worker
        old = self.client
        engine = self.runtime.server_engine(route)
        client = TLSEnd(old.sock, worker.scratch, worker.reactor.watch_room, engine, is_server=True)
        client.is_readable, client.has_hung_up = True, old.has_hung_up
        self.client = client
        return client

    def note_hello(self, hello: hint.FirstMessage) -> None:
        """The client's first message is here."""
        self.hello = hello
        if self.runtime.worker.observer.is_detailed:
            hint.describe(self.record, hello)

    def note_handshake(self, client: TLSEnd, route: Route) -> None:
        """The client's handshake is complete."""
        engine = client.engine
        if self.record.server_name is None:
            self.record.server_name = engine.server_name() or None
        self._note(engine, has_alpn=route.has_alpn)

    def note_backend_handshake(self, backend: TLSEnd, host: str, dialer: Dialer) -> None:
        """The handshake with the backend is complete. In client mode it is the one that is counted."""
        self.dialer = dialer
        if not self.runtime.is_server:
            self.record.server_name = host
            target_tls = self.runtime.service.target_tls
            self._note(backend.engine, has_alpn=target_tls is not None and bool(target_tls.tls.alpn))

    def _note(self, engine: Engine, *, has_alpn: bool) -> None:
        record = self.record
        record.version, record.cipher, record.group = engine.version(), engine.cipher(), engine.group()
        record.resumed = engine.is_resumed()
        if has_alpn:
            record.alpn = engine.alpn()
        record.handshake_s = time.monotonic() - self._shake_began
        self.runtime.worker.observer.handshake_done(record)

    def begin_handshake(self, expected: str, context: Context | None) -> None:
        """The handshake with the backend begins; it has to show a certificate for this name."""
        self.record.with_backend = True
        self.expected, self.backend_context = expected, context
        self._shake_began = time.monotonic()
        self._wait_until(self.runtime.handshake_s, CloseReason.HANDSHAKE_TIMEOUT)

    def begin_dial(self) -> None:
        """Targets are tried from now on, all of them within connect_timeout."""
        self._dial_began = time.monotonic()
        self._dial_ends = self.runtime.worker.reactor.now + self.runtime.connect_s

    def wait_for_attempt(self, left: int) -> None:
        """A target is tried, and `left` with it are still to be tried: each gets its share of the time that is left."""
        now = self.runtime.worker.reactor.now
        self._is_dialing, self.is_late = True, False
        self._late = CloseReason.BACKEND_CONNECT_TIMEOUT
        share = (self._dial_ends - now) / left if self._dial_ends < math.inf else math.inf
        self.deadline = now + max(share, 0.0)

    @property
    def attempt_s(self) -> float:
        """Seconds left for the target being tried."""
        return self.deadline - self.runtime.worker.reactor.now

    def end_dial(self) -> None:
        """A target was reached."""
        self._is_dialing = False
        self.deadline = math.inf  # what comes next is at once, or sets its own
        self.record.connect_s = time.monotonic() - self._dial_began
        self.runtime.worker.observer.dialed(self.record)

    def ask(self, work: Callable[[], Awaitable[Any]]) -> Generator[None, None, Any]:
        """Let trio do something, and wait for its answer."""
        self._answer = None
        self.runtime.worker.bridge.ask(work, self, self.on_answer)
        while self._answer is None:
            yield
        return self._answer

    @property
    def backend_sock(self) -> socket.SocketType:
        """The socket to the target, until an end owns it."""
        assert self._backend_sock is not None  # noqa: S101
        return self._backend_sock

    def take_backend_sock(self, sock: socket.SocketType) -> None:
        """Own the socket to a target."""
        self._backend_sock, self._backend_edges = sock, 0

    def drop_backend_sock(self) -> None:
        """Close the socket to a target that was not reached."""
        sock = self._backend_sock
        if sock is not None:
            self.runtime.worker.reactor.forget(sock.fileno())
            sock.close()
            self._backend_sock = None

    def plain_backend(self) -> PlainEnd:
        """The target's end, in plaintext."""
        worker = self.runtime.worker
        backend = PlainEnd(self.backend_sock, worker.scratch, worker.reactor.watch_room)
        backend.note(self._backend_edges)
        self.backend, self._backend_sock = backend, None
        return backend

    def tls_backend(self, engine: Engine, dialer: Dialer) -> TargetEnd:
        """The target's end, in TLS."""
        worker = self.runtime.worker
        sock, sessions = self.backend_sock, self.runtime.sessions
        backend = TargetEnd(sock, worker.scratch, worker.reactor.watch_room, engine, sessions, dialer.target)
        backend.note(self._backend_edges)
        self.backend, self._backend_sock = backend, None
        return backend

    def say_alert(self, alert: int) -> None:
        """Refuse the client by a fatal alert in a record of its own (RFC 8446 sections 5.1 and 6), before a session."""
        self.say(bytes((21, 3, 3, 0, 2, 2, alert)))

    def say(self, data: bytes) -> None:
        """A last word to the client, outside any session."""
        with contextlib.suppress(OSError):
            self.client.sock.send(data, socket.MSG_DONTWAIT)

    def link_ends(self, backend: PlainEnd) -> None:
        """Join the ends. From here on the link owns them."""
        runtime = self.runtime
        worker = runtime.worker
        reactor = worker.reactor
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
        self.hello = None
        reactor.release(self)
        self.record.live_bytes = self._live_bytes
        self.link.start()

    def _live_bytes(self) -> tuple[int, int]:
        link = self.link
        return (0, 0) if link is None else (link.forward.moved, link.reverse.moved)

    # What resumes it.

    def start(self, steps: Generator[None, None, None]) -> None:
        """Begin setting up by these steps. What is ready already is served at once.

        What is counted as open, or watched, from here on is closed by `_end` and `_report`, whatever is raised.
        """
        self._steps = steps
        runtime = self.runtime
        worker = runtime.worker
        worker.open_connections.add(self)
        self._wait_until(runtime.handshake_s, CloseReason.HANDSHAKE_TIMEOUT)
        worker.reactor.hold(self)
        worker.reactor.watch(self.client.fd, self)
        self._resume()

    def on_ready(self, fd: int, events: int) -> None:
        if fd == self.client.fd:
            self.client.note(events)
            if self._is_dialing and events & select.EPOLLERR:
                # It reset the connection: nobody waits for the backend any more. (A FIN may be a half-close.)
                self._end(CloseReason.CLIENT_GONE)
                return
        elif self.backend is not None and fd == self.backend.fd:
            self.backend.note(events)
        else:
            self._backend_edges |= events  # a target that speaks first may have done so before it has an end
        self._resume()

    def on_answer(self, answer: Any) -> None:
        """trio has done what was asked for: what it returned, or what it raised."""
        if self._is_over:
            if not isinstance(answer, BaseException):
                answer.close()
            return
        self._answer = answer
        self._resume()

    def on_deadline(self, now: float) -> None:
        if self._is_dialing:
            # Another target may still be tried. Where trio dials, it knows the time itself, and answers.
            self.deadline = math.inf
            if self._backend_sock is not None:
                self.is_late = True
                self._resume()
        else:
            self._end(self._late)

    def on_crash(self, error: BaseException) -> None:
        if self.link is not None:
            self.link.on_crash(error)
            self.runtime.worker.reactor.release(self)
        elif self._is_over:
            self.abandon()  # it is the end that raised
        else:
            self._end(CloseReason.INTERNAL_ERROR, type(error).__name__)

    def abandon(self) -> None:
        self._is_over = True
        reactor = self.runtime.worker.reactor
        ends = [end for end in (self.client, self.backend) if end is not None]
        try_all(
            lambda: reactor.release(self),
            lambda: self._steps.close(),  # noqa: PLW0108 - it may not have come to steps
            self.drop_backend_sock,
            *(functools.partial(drop, reactor, end, self) for end in ends),
            *([] if self.link is None else [self.link.abandon]),
            lambda: self._report(CloseReason.INTERNAL_ERROR, ""),
        )

    def drain(self) -> None:
        """tlstunnel stops and time is up."""
        if self.link is not None:
            self.link.finish(CloseReason.DRAINED)
        else:
            self._end(CloseReason.HANDSHAKE_DRAINED)

    def _resume(self) -> None:
        if self._is_over:
            return
        try:
            next(self._steps)
        except StopIteration:
            pass
        except Exception as exc:
            # Of a link that has begun, nothing may come through here but an error of ours.
            if self.link is not None or not self._end_by(exc):
                raise

    def _end_by(self, error: Exception) -> bool:
        """Say why a step failed, if that was not an error of ours."""
        match error:
            case TLSError():
                self._end_handshake(error)
            case EOFError():
                self._end(CloseReason.HANDSHAKE_EOF)
            case DialError() | Refusal():
                self._end(error.reason, error.detail)
            case HelloError():
                if error.alert != NO_ALERT:
                    self.say_alert(error.alert)
                self._end(error.close_reason, str(error))
            case ConnectionError():
                self._end(CloseReason.HANDSHAKE_RESET)
            case OSError():
                self._end(CloseReason.HANDSHAKE_RESET, words_of(error))
            case _:
                return False
        return True

    def _wait_until(self, timeout_s: float, reason: CloseReason) -> None:
        self.deadline = self.runtime.worker.reactor.now + timeout_s
        self._late = reason

    # The end.

    def _end_handshake(self, error: TLSError) -> None:
        """A handshake failed: find out why."""
        record, runtime = self.record, self.runtime
        if self.backend is None:
            first = None if self.client.at_eof else self.hello
            side = None if self.route is None else self.route.side
            settings = runtime.service.tls if self.route is None else self.route.tls
            reason, detail, decision = verdict.of_client(error, record, side, first, settings)
        else:
            shown = self.backend.shown() if isinstance(self.backend, TargetEnd) else None
            reason, detail, decision = verdict.of_backend(
                error, record, self.backend_context, self.expected, shown, is_server=runtime.is_server
            )
        if decision is not None:
            runtime.worker.observer.judged(record, decision.rule, decision.reason)
        self._hint(reason, detail)
        self._end(reason, detail)

    def _hint(self, reason: CloseReason, detail: str) -> None:
        """Tell a browser what it should have said."""
        runtime = self.runtime
        if reason is CloseReason.NOT_TLS and runtime.is_server and runtime.service.http_hint and hint.is_http(detail):
            self.say(hint.HTTP_ANSWER)

    def _end(self, reason: CloseReason, detail: str = "") -> None:
        """End before there was a link: tell both sides what can be told, release everything, report."""
        if self._is_over or self.link is not None:
            return
        self._is_over = True
        if self.hello is not None and reason.stage is Stage.HANDSHAKE:
            hint.describe(self.record, self.hello)
        detail = hint.complete(reason, detail, self.record, self.hello)
        reactor = self.runtime.worker.reactor
        reactor.release(self)
        self._steps.close()
        self.drop_backend_sock()
        for end in (self.client, self.backend):
            if end is None:
                continue
            with contextlib.suppress(OSError, TLSError):
                if self.record.handshake_s >= 0 and end is self.client and not end.is_shut:
                    end.shut()  # after a handshake, close_notify: nothing was promised that is cut now
            Farewell(reactor, end, _nothing)
        self._report(reason, detail)

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
        self._is_over = True
        record, runtime = self.record, self.runtime
        record.reason = reason
        if detail:
            record.detail = detail
        runtime.worker.open_connections.discard(self)
        runtime.worker.observer.closed(record)
        if self._place is not None:
            runtime.admission.leave(self._place)
            self._place = None
        if self._has_place:
            runtime.leave()
            self._has_place = False
            runtime.tell_of_room()


async def _a_moment() -> BlockingIOError:
    """What `ask` is asked for where there is nothing to know but that time has passed."""
    await trio.sleep(_MOMENT_S)
    return BlockingIOError()


def _nothing() -> None:
    """Nobody waits for this descriptor."""
