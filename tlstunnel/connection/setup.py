"""How a connection is set up, from accept to the link, top to bottom.

Each function is a generator: it yields whenever it must wait, and `Connection` resumes it when it can go on. So it
reads like a task and costs like a callback. It ends by joining two ends (`connection.link_ends`), or by raising; what
it raises, `Connection` turns into a close reason.

    server mode       [PROXY header] - [server name] - handshake - identity - dial - [PROXY header, TLS] - link
    client mode       [PROXY header] - dial - [PROXY header] - handshake with the backend - identity - link
    passthrough       [PROXY header] - server name - dial - [PROXY header] - link

What must be known before TLS begins (a PROXY header, the server name) is looked at with MSG_PEEK and stays in the
socket, whose buffer the kernel bounds. Where nothing must be known the first message is taken: one that comes in pieces
is kept until it is whole, as much as `tls.firstbytes` allows, for as long as handshake_timeout does.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator
from typing import Any, TypeVar, cast

from tlstunnel import proxy_protocol
from tlstunnel.access.policy import decide, refusal
from tlstunnel.address import TCPAddress
from tlstunnel.config.model import ClientAuth, Mode
from tlstunnel.connection import hint
from tlstunnel.connection.authorize import FALLBACK, identify, judge, note, require_alpn
from tlstunnel.connection.connection import Connection
from tlstunnel.connection.dial import Dialer, DialError, dial_error
from tlstunnel.connection.proxy_header import check_trust, header_for, read_header
from tlstunnel.connection.refusal import Refusal
from tlstunnel.connection.routes import Route
from tlstunnel.outcome import CloseReason
from tlstunnel.relay.ends import TLSEnd
from tlstunnel.relay.reactor import EDGES_AND_ROOM
from tlstunnel.tls import clienthello
from tlstunnel.tls.clienthello import ClientHello
from tlstunnel.tls.firstbytes import HelloError

Steps = Generator[None, None, None]
_Found = TypeVar("_Found")

MAX_LOOK = 72 * 1024
"""As much as a ClientHello or a PROXY protocol header may need (`tls.firstbytes`, `proxy_protocol`)."""

UNRECOGNIZED_NAME, NO_APPLICATION_PROTOCOL = 112, 120
"""Alerts (RFC 6066 section 3, RFC 7301 section 3.2)."""


def steps(connection: Connection) -> Steps:
    """The steps of this connection's mode."""
    runtime = connection.runtime
    mode = runtime.service.mode
    if mode is Mode.SERVER:
        if not runtime.must_look_first:
            return _serve_at_once(connection)
        return _serve(connection)
    return _originate(connection) if mode is Mode.CLIENT else _pass_through(connection)


def _serve_at_once(connection: Connection) -> Steps:
    """Server mode where nothing has to be known before the handshake: the client's end is in TLS from the start."""
    route = connection.runtime.routes.default
    client = connection.client
    assert isinstance(client, TLSEnd)  # noqa: S101
    yield from _accept_tls(connection, route, client)


def _serve(connection: Connection) -> Steps:
    runtime = connection.runtime
    if runtime.service.accept_proxy_protocol:
        yield from _hear_proxy(connection)
    route = runtime.routes.default
    if runtime.routes.is_needed:
        route = yield from _find_route(connection)
    yield from _accept_tls(connection, route, connection.begin_tls(route))


def _accept_tls(connection: Connection, route: Route, client: TLSEnd) -> Steps:
    """TLS from the client, then on to the route's target."""
    runtime = connection.runtime
    service = runtime.service
    connection.route = route
    if connection.hello is None:
        yield from _meet(connection, client)
    elif route.tls.alpn_required:
        _require_alpn(connection)
    yield from _shake(connection, client)
    connection.note_handshake(client, route)
    record = connection.record
    if record.server_name is None and record.resumed and record.version != "TLSv1.3":
        record.server_name = _name_in(connection.hello)
    dialers = route.dialers
    if service.client_auth is not ClientAuth.NONE:
        who = identify(client)
        if who is None and runtime.fallback:
            dialers = runtime.fallback
            note(connection, FALLBACK)
        else:
            judge(connection, route.policy, who)
            # Of several the target could take another for the one that was meant (`access.policy`): it is told none.
            connection.common_name = who.common_names[0] if who is not None and len(who.common_names) == 1 else ""
    dialer = yield from _dial(connection, dialers)
    if service.target_tls is None:
        connection.link_ends(connection.plain_backend())
    else:
        yield from _begin_target_tls(connection, dialer)


def _originate(connection: Connection) -> Steps:
    """Plaintext from the client, TLS to the backend."""
    if connection.runtime.service.accept_proxy_protocol:
        yield from _hear_proxy(connection)
    dialer = yield from _dial(connection, connection.runtime.routes.default.dialers)
    yield from _begin_target_tls(connection, dialer)


def _pass_through(connection: Connection) -> Steps:
    """TLS goes through untouched; only the server name is read."""
    if connection.runtime.service.accept_proxy_protocol:
        yield from _hear_proxy(connection)
    route = yield from _find_route(connection)
    yield from _dial(connection, route.dialers)
    connection.link_ends(connection.plain_backend())


# Before TLS.


def _look(connection: Connection, parse: Callable[[memoryview], _Found | None]) -> Generator[None, None, _Found]:
    """Peek at what has arrived until `parse` has found what it wants.

    Raises:
        EOFError: the client closed first.
        ConnectionResetError: it reset the connection first.
    """
    client, wire = connection.client, connection.runtime.worker.scratch.wire
    while True:
        if client.is_readable:
            try:
                size = client.sock.recv_into(wire, MAX_LOOK, socket.MSG_DONTWAIT | socket.MSG_PEEK)
            except BlockingIOError:
                size = -1
            if size >= 0:
                found = parse(wire[:size]) if size else None
                if found is not None:
                    return found
                if size == 0 or client.has_hung_up:
                    # What came before a reset can still be looked at, and hides it.
                    if client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                        raise ConnectionResetError
                    raise EOFError
            client.is_readable = False  # more of it brings another edge
        yield


def _hear_proxy(connection: Connection) -> Steps:
    """Read the PROXY protocol header of a proxy that we trust, and forget that there is one."""
    service, record = connection.runtime.service, connection.record
    check_trust(connection, service)
    header = yield from _look(connection, read_header)
    connection.client.sock.recv_into(connection.runtime.worker.scratch.wire, header.size, socket.MSG_DONTWAIT)
    if isinstance(header.source, proxy_protocol.Endpoint):
        connection.host = header.source.host
        connection.source, connection.destination = header.source, header.destination
        record.real_client = str(TCPAddress(header.source.host, header.source.port))
    if not header.is_local:  # the proxy's own health check is nobody's client
        # A client the proxy does not know stands under the proxy's own address (section 2.1 of the specification).
        yield from connection.admit()


def _find_route(connection: Connection) -> Generator[None, None, Route]:
    """The route of the server name that the client asks for.

    What cannot be read is OpenSSL's to judge, with the service's own certificate: so the answer to it is the same as
    where no name is looked for. In passthrough mode nobody else would answer.
    """
    runtime = connection.runtime
    read = hint.first_hello if runtime.is_server else clienthello.parse
    first = cast("hint.FirstMessage", (yield from _look(connection, read)))
    hello = first if isinstance(first, ClientHello) else None
    if hello is not None:
        connection.record.server_name = hello.server_name
    connection.note_hello(first)
    route = runtime.routes.default if hello is None else runtime.routes.find(hello.server_name)
    if route is None or not (route.side or route.dialers):
        connection.say_alert(UNRECOGNIZED_NAME)
        raise Refusal(CloseReason.UNRECOGNIZED_NAME, hint.wanted(hello) if hello is not None else "")
    return route


def _require_alpn(connection: Connection) -> None:
    """Refuse a client that offers no application protocol where one is required: OpenSSL asks only about offers.

    Raises:
        Refusal: it offers none.
    """
    hello = _read(connection.hello)
    if hello is not None and not hello.alpn:
        connection.say_alert(NO_APPLICATION_PROTOCOL)
        raise Refusal(CloseReason.NO_SHARED_ALPN, "client offers none")


def _name_in(first: hint.FirstMessage | None) -> str | None:
    """The server name in a client's first message: of a session that is resumed in TLS 1.2, OpenSSL does not say."""
    hello = _read(first)
    return None if hello is None else hello.server_name


def _read(first: hint.FirstMessage | None) -> ClientHello | None:
    """A client's first message, if it can be read: what OpenSSL is to judge is not refused here."""
    try:
        return clienthello.parse(first) if isinstance(first, bytes) else first
    except HelloError:
        return None


def _meet(connection: Connection, client: TLSEnd) -> Steps:
    """Begin a handshake with the client's first message, of which the record keeps a copy.

    OpenSSL is given it whole, as nearly always it comes: so what is said of a bad one does not depend on its pieces.
    """
    wire = connection.runtime.worker.scratch.wire
    pieces = b""
    while True:
        while not client.is_readable:
            yield
        size = client.take()
        if size:
            came = memoryview(pieces + wire[:size]) if pieces else wire[:size]
            first = hint.first_message(came)
            if first is not None:
                break
            pieces = bytes(came)
    connection.note_hello(first)
    if connection.route is not None and connection.route.tls.alpn_required:
        _require_alpn(connection)
    if pieces:
        wire[: len(came)] = came
    client.handshake(len(came))


def _shake(connection: Connection, end: TLSEnd) -> Steps:
    """Go on with a handshake until it is complete."""
    while not (end.is_readable and (size := end.take()) and end.handshake(size)):
        if end.is_readable:
            connection.runtime.worker.reactor.again(connection)  # there is more than one step takes, or an EOF
        yield


# The backend.


def _dial(connection: Connection, dialers: tuple[Dialer, ...]) -> Generator[None, None, Dialer]:
    """Reach a backend: the targets in order, all within connect_timeout, and introduce the client to it."""
    runtime, record = connection.runtime, connection.record
    observer = runtime.worker.observer
    order = runtime.dial_order(dialers)
    connection.begin_dial()
    failure: DialError | None = None
    for number, dialer in enumerate(order):
        if failure is not None:
            observer.dial_failed(runtime.index, failure.reason)
        record.target = dialer.text
        connection.wait_for_attempt(len(order) - number)
        try:
            yield from _dial_one(connection, dialer)
        except DialError as exc:
            connection.drop_backend_sock()
            runtime.rest(dialer, len(order))
            failure = exc
            continue
        runtime.wake(dialer)
        connection.end_dial()
        _introduce(connection, dialer)
        return dialer
    raise failure or DialError(CloseReason.BACKEND_UNREACHABLE, "no target")


def _introduce(connection: Connection, dialer: Dialer) -> None:
    introduction = header_for(connection)
    if introduction:
        try:
            # The socket is new: its send buffer takes a header whole.
            connection.backend_sock.send(introduction)
        except OSError as exc:
            raise dial_error(dialer.target, exc) from None


def _dial_one(connection: Connection, dialer: Dialer) -> Steps:
    reactor = connection.runtime.worker.reactor
    begun = dialer.begin()
    if begun is None:
        _expect_client(connection)
        answer = yield from connection.ask(dialer.slowly(connection.attempt_s))
        if isinstance(answer, OSError):
            raise dial_error(dialer.target, answer)
        if isinstance(answer, BaseException):
            try:
                raise answer
            finally:
                del answer  # or its traceback would keep it, and all that was held there, for the collector
        connection.take_backend_sock(answer)
        reactor.watch(answer.fileno(), connection)
        return
    sock, is_connected = begun
    connection.take_backend_sock(sock)
    # On loopback the connection is there when the call returns, although the call says it is in progress.
    if is_connected or dialer.is_there(sock):
        reactor.watch(sock.fileno(), connection)
        return
    reactor.watch(sock.fileno(), connection, EDGES_AND_ROOM)
    _expect_client(connection)
    while not dialer.check(sock):
        if connection.is_late:
            raise DialError(CloseReason.BACKEND_CONNECT_TIMEOUT, f"{dialer.text}: not accepted in time")
        yield


def _expect_client(connection: Connection) -> None:
    """Nobody waits for a client whose reset came with its last message. (`Connection.on_ready` sees a later one.)"""
    client = connection.client
    if client.has_hung_up and client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise Refusal(CloseReason.CLIENT_GONE)


def _begin_target_tls(connection: Connection, dialer: Dialer) -> Steps:
    """TLS to the backend: name and rules are verified in the handshake, before our certificate is shown, and the rules
    once more after it: a resumed session shows no certificate."""
    runtime = connection.runtime
    target_tls = runtime.service.target_tls
    assert target_tls is not None  # noqa: S101 - the caller knows that TLS is wanted
    context = runtime.contexts.target
    engine: Any = runtime.client_engine()
    backend = connection.tls_backend(engine, dialer)
    target = dialer.target
    name = target_tls.server_name or (target.host if isinstance(target, TCPAddress) else "localhost")
    is_ip = TCPAddress(name, 1).is_literal
    # An IP address is verified but never sent as SNI (RFC 6066 section 3).
    host = name.partition("%")[0] if is_ip else name.rstrip(".")
    judge = None if context is None or context.judge is None else context.is_good
    engine.expect(host, is_ip=is_ip, send_name=None if is_ip else host, judge=judge)
    session = runtime.sessions.take(target)
    if session is not None:
        engine.resume(session)
    connection.begin_handshake(host, context)
    backend.begin()
    yield from _shake(connection, backend)
    connection.note_backend_handshake(backend, host, dialer)
    who = identify(backend)
    if who is None:
        raise Refusal(CloseReason.BAD_CERTIFICATE, "backend showed no certificate")
    decision = None if target_tls.verify is None else decide(target_tls.verify, who)
    if runtime.service.mode is Mode.CLIENT:  # in server mode the record is about the client
        connection.record.identity = str(who)
        if decision is not None:
            note(connection, decision)
    if decision is not None and not decision.allowed:
        raise Refusal(CloseReason.DENIED, f"backend {refusal(decision, who, is_server=True)}")
    require_alpn(backend, target_tls.tls)
    backend.hold_tickets(who.not_after.timestamp())
    connection.link_ends(backend)
