"""One connection, from accept to the link, top to bottom.

Theory of operation. Setting up is a generator: it yields whenever it must wait, and whoever can go on resumes it, the
reactor on an edge and the bridge with an answer from trio. So it reads like a task and costs like a callback.
It knows three ways to end: it hands both ends to a `Link`; it fails with something that `_resume` turns into a close
reason; or its deadline passes, which `_late` names. All of them come to `_end`, which releases what setting up
holds, and to `_report`, which tells the observer, once.

    server mode   [PROXY header] - ClientHello ... handshake - identity - dial - link
    client mode   dial - handshake with the backend - identity - link

The server's session tickets are not sent at the end of the handshake but with the first bytes for the client: a
client that never reads, and closes with tickets unread, would reset the connection and lose its own data.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Generator
from typing import Any

from tlstunnel._openssl import TLSError
from tlstunnel.address import TCPAddress
from tlstunnel.config.model import ClientAuth
from tlstunnel.outcome import CloseReason
from tlstunnel.relay.ends import PlainEnd, TLSEnd
from tlstunnel.relay.farewell import Farewell
from tlstunnel.relay.link import Link
from tlstunnel.relay.reactor import EDGES_AND_ROOM
from tlstunnel.server.dial import Dialer, DialError, dial_error
from tlstunnel.server.runtime import ServiceRuntime, describe
from tlstunnel.tls.peer import UnusableCertificateError, identity
from tlstunnel.tls.policy import decide
from tlstunnel.tls.reasons import classify

Steps = Generator[None, None, None]


class Refusal(Exception):
    """Setting up ends here, for this reason."""

    def __init__(self, reason: CloseReason, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(reason, detail)


class Connection:
    """An accepted socket on its way to being a link. Handler and held of the reactor until then."""

    __slots__ = (
        "_answer",
        "_backend_sock",
        "_is_over",
        "_late",
        "_started",
        "_steps",
        "backend",
        "client",
        "deadline",
        "link",
        "record",
        "runtime",
    )

    def __init__(self, runtime: ServiceRuntime, sock: socket.SocketType, family: int, address: Any) -> None:
        worker = runtime.worker
        reactor = worker.reactor
        self.runtime = runtime
        self.record = worker.observer.opened(runtime.index, describe(family, address))
        self.backend: PlainEnd | None = None
        self.link: Link | None = None
        self._backend_sock: socket.SocketType | None = None
        self._answer: Any = None
        self._is_over = False
        self._started = reactor.now
        if runtime.is_server:
            self.client: PlainEnd = TLSEnd(
                sock, worker.scratch, reactor.watch_room, runtime.server_engine(), is_server=True
            )
            self._steps: Steps = self._serve()
            self._wait_until(runtime.handshake_s, CloseReason.HANDSHAKE_TIMEOUT)
        else:
            self.client = PlainEnd(sock, worker.scratch, reactor.watch_room)
            self._steps = self._originate()
            self._wait_until(runtime.connect_s, CloseReason.BACKEND_CONNECT_TIMEOUT)
        runtime.open += 1
        worker.open_connections.add(self)
        reactor.watch(self.client.fd, self)
        reactor.hold(self)

    # Setting up, top to bottom.

    def _serve(self) -> Steps:
        """Server mode: TLS from the client, plaintext to the backend."""
        client = self.client
        assert isinstance(client, TLSEnd)  # noqa: S101
        while not (client.is_readable and client.handshake()):
            yield
        self._shaken(client)
        self._identify_client(client)
        yield from self._dial()
        assert self._backend_sock is not None  # noqa: S101
        worker = self.runtime.worker
        backend = PlainEnd(self._backend_sock, worker.scratch, worker.reactor.watch_room)
        self._link(backend)

    def _originate(self) -> Steps:
        """Client mode: plaintext from the client, TLS to the backend."""
        runtime = self.runtime
        dialer = yield from self._dial()
        assert self._backend_sock is not None  # noqa: S101
        engine: Any = runtime.client_engine()
        worker = runtime.worker
        backend = TLSEnd(self._backend_sock, worker.scratch, worker.reactor.watch_room, engine, is_server=False)
        self.backend, self._backend_sock = backend, None
        self._name_server(engine, dialer)
        self._wait_until(runtime.handshake_s, CloseReason.HANDSHAKE_TIMEOUT)
        self._started = runtime.worker.reactor.now
        backend.begin()
        while not (backend.is_readable and backend.handshake()):
            yield
        self._shaken(backend)
        self._check_backend(backend)
        self._link(backend)

    def _dial(self) -> Generator[None, None, Dialer]:
        """Reach a backend: the targets in order, all within connect_timeout. Leaves it in `_backend_sock`."""
        runtime, record = self.runtime, self.record
        observer = runtime.worker.observer
        started = time.monotonic()
        self._wait_until(runtime.connect_s, CloseReason.BACKEND_CONNECT_TIMEOUT)
        failure: DialError | None = None
        for dialer in runtime.dial_order():
            if failure is not None:
                observer.dial_failed(runtime.index, failure.reason)
            record.target = str(dialer.target)
            try:
                yield from self._dial_one(dialer)
            except DialError as exc:
                self._drop_backend_sock()
                failure = exc
                continue
            record.connect_s = time.monotonic() - started
            observer.dialed(record)
            return dialer
        assert failure is not None  # noqa: S101 - a service has a target
        raise failure

    def _dial_one(self, dialer: Dialer) -> Steps:
        reactor = self.runtime.worker.reactor
        begun = dialer.begin()
        if begun is None:
            yield from self._dial_slowly(dialer)
            return
        self._backend_sock, is_connected = begun
        # On loopback the connection is there when the call returns, although the call says it is in progress.
        if is_connected or dialer.is_there(self._backend_sock):
            reactor.watch(self._backend_sock.fileno(), self)
            return
        reactor.watch(self._backend_sock.fileno(), self, EDGES_AND_ROOM)
        while not dialer.check(self._backend_sock):
            yield

    def _dial_slowly(self, dialer: Dialer) -> Steps:
        runtime = self.runtime
        reactor = runtime.worker.reactor
        self._answer = None
        runtime.worker.bridge.ask(dialer.slowly(self.deadline - reactor.now), self._on_answer)
        while self._answer is None:
            yield
        answer, self._answer = self._answer, None
        if isinstance(answer, OSError):
            raise dial_error(dialer.target, answer)
        self._backend_sock = answer
        reactor.watch(answer.fileno(), self)

    def _shaken(self, end: TLSEnd) -> None:
        """The handshake is complete: note what was negotiated."""
        record, engine = self.record, end.engine
        record.version, record.cipher, record.group = engine.version(), engine.cipher(), engine.group()
        record.resumed = engine.is_resumed()
        if self.runtime.service.tls.alpn:
            record.alpn = engine.alpn()
        record.handshake_s = time.monotonic() - self._started
        self.runtime.worker.observer.handshake_done(record)

    def _identify_client(self, client: TLSEnd) -> None:
        """Who the client is and whether it may: also on a resumed session."""
        service, record = self.runtime.service, self.record
        if service.client_auth is ClientAuth.NONE:
            return
        certificate = client.engine.peer_certificate()
        who = None
        if certificate is not None:
            try:
                who = identity(certificate)
            except UnusableCertificateError as exc:
                raise Refusal(CloseReason.BAD_CERTIFICATE, str(exc)) from None
            record.identity = str(who)
        decision = decide(service.policy, who)
        record.rule = decision.rule
        if not decision.allowed:
            raise Refusal(CloseReason.DENIED, f"{who or 'no certificate'}: {decision.rule}")

    def _name_server(self, engine: Any, dialer: Dialer) -> None:
        """Which name the backend's certificate must carry, which to send, and which session to resume."""
        backend_tls = self.runtime.service.backend_tls
        assert backend_tls is not None  # noqa: S101
        target = dialer.target
        name = backend_tls.server_name or (target.host if isinstance(target, TCPAddress) else "localhost")
        is_ip = TCPAddress(name, 1).is_literal
        # An IP address is verified but never sent as SNI (RFC 6066 section 3).
        host = name.partition("%")[0] if is_ip else name.rstrip(".")
        engine.expect(host, is_ip=is_ip, send_name=None if is_ip else host)
        self.record.server_name = host
        session = self.runtime.sessions.get(target)
        if session is not None:
            engine.resume(session)

    def _check_backend(self, backend: TLSEnd) -> None:
        backend_tls = self.runtime.service.backend_tls
        assert backend_tls is not None  # noqa: S101
        certificate = backend.engine.peer_certificate()
        if certificate is None:
            raise Refusal(CloseReason.BAD_CERTIFICATE, "backend showed no certificate")
        try:
            who = identity(certificate)
        except UnusableCertificateError as exc:
            raise Refusal(CloseReason.BAD_CERTIFICATE, str(exc)) from None
        self.record.identity = str(who)
        if backend_tls.verify is not None:
            decision = decide(backend_tls.verify, who)
            self.record.rule = decision.rule
            if not decision.allowed:
                raise Refusal(CloseReason.DENIED, f"{who or 'no certificate'}: {decision.rule}")

    def _link(self, backend: PlainEnd) -> None:
        """Join the ends. From here on the link owns them."""
        runtime = self.runtime
        worker = runtime.worker
        reactor = worker.reactor
        self.backend, self._backend_sock = backend, None
        self.link = Link(
            reactor,
            self.client,
            backend,
            runtime.limits,
            scratch=worker.scratch,
            cells=worker.observer.row.cells,
            forward_cell=runtime.forward_cell,
            reverse_cell=runtime.reverse_cell,
            ends_at=self._started + runtime.max_lifetime_s,
            on_finished=self._on_link_finished,
            on_closed=_nothing,
        )
        reactor.release(self)
        self.record.live_bytes = self._live_bytes
        self.link.start()

    def _live_bytes(self) -> tuple[int, int]:
        link = self.link
        return (0, 0) if link is None else (link.forward.moved, link.reverse.moved)

    # What resumes it.

    def start(self) -> None:
        """Begin. What is ready already is served at once."""
        self._resume()

    def on_ready(self, fd: int, events: int) -> None:
        if fd == self.client.fd:
            self.client.note(events)
        elif self.backend is not None and fd == self.backend.fd:
            self.backend.note(events)
        self._resume()

    def _on_answer(self, answer: Any) -> None:
        if self._is_over:
            if not isinstance(answer, Exception):
                answer.close()
            return
        self._answer = answer
        try:
            self._resume()
        except Exception as exc:  # noqa: BLE001 - as the reactor does: our own bug ends one connection
            self.on_crash(exc)

    def on_deadline(self, now: float) -> None:
        self._end(self._late)

    def on_crash(self, error: Exception) -> None:
        self.runtime.worker.on_crash(error)
        self._end(CloseReason.INTERNAL_ERROR, type(error).__name__)

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
        except TLSError as exc:
            self._end(*classify(exc.reasons, exc.verify_code))
        except EOFError:
            self._end(CloseReason.HANDSHAKE_EOF)
        except DialError as exc:
            self._end(exc.reason, exc.detail)
        except Refusal as exc:
            self._end(exc.reason, exc.detail)
        except ConnectionError:
            self._end(CloseReason.HANDSHAKE_RESET)
        except OSError as exc:
            self._end(CloseReason.HANDSHAKE_RESET, exc.strerror or str(exc))

    def _wait_until(self, timeout_s: float, reason: CloseReason) -> None:
        self.deadline = self.runtime.worker.reactor.now + timeout_s
        self._late = reason

    # The end.

    def _end(self, reason: CloseReason, detail: str = "") -> None:
        """End before there was a link: tell both sides what can be told, release everything, report."""
        if self._is_over or self.link is not None:
            return
        self._is_over = True
        worker = self.runtime.worker
        reactor = worker.reactor
        reactor.release(self)
        self._steps.close()
        self._drop_backend_sock()
        for end in (self.client, self.backend):
            if end is None:
                continue
            with contextlib.suppress(OSError, TLSError):
                if self.record.handshake_s >= 0 and end is self.client and not end.is_shut:
                    end.shut()  # after a handshake, close_notify: nothing was promised that is cut now
            Farewell(reactor, end, _nothing)
        self._report(reason, detail)

    def _drop_backend_sock(self) -> None:
        sock, self._backend_sock = self._backend_sock, None
        if sock is not None:
            self.runtime.worker.reactor.forget(sock.fileno())
            sock.close()

    def _on_link_finished(self, link: Link, reason: CloseReason, detail: str, error: Exception | None) -> None:
        record = self.record
        record.bytes_forward, record.bytes_reverse = link.forward.moved, link.reverse.moved
        if error is not None:
            self.runtime.worker.on_crash(error)
        self._report(reason, detail)

    def _report(self, reason: CloseReason, detail: str) -> None:
        self._is_over = True
        record, runtime = self.record, self.runtime
        record.reason = reason
        if detail:
            record.detail = detail
        runtime.worker.open_connections.discard(self)
        runtime.worker.observer.closed(record)
        runtime.leave()


def _nothing() -> None:
    """Nobody waits for this descriptor."""
