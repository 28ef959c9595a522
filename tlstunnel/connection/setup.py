"""How a connection is set up, from accept to the link, top to bottom.

A state waits for one thing, and has one step, which is called whenever that may have come and says whether the state is
over. The path of a service is which of the states its connections go through, in the order of this file:

    server mode       [PROXY header] - [server name] - handshake - identity - dial - [PROXY header, TLS] - link
    client mode       [PROXY header] - dial - [PROXY header] - handshake with the backend - identity - link
    passthrough       [PROXY header] - server name - dial - [PROXY header] - link

Where a protocol speaks in plaintext before TLS (`starttls`), the backend has to be there first, because it greets: in
server mode the dial comes before everything that is known of the client, and a negotiation stands between it and TLS.

A step that finds that the connection goes no further raises, and `Connection` turns that into a `Refusal`.

What must be known before TLS begins (a PROXY header, the server name) is looked at with MSG_PEEK and stays in the
socket, whose buffer the kernel bounds. Where nothing must be known the first message is taken: one that comes in pieces
is kept until it is whole, as much as `tls.firstbytes` allows, for as long as handshake_timeout does.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar, cast

import trio

from tlstunnel import proxy_protocol
from tlstunnel.access.policy import decide, refusal
from tlstunnel.address import TCPAddress
from tlstunnel.config.model import ClientAuth, Mode
from tlstunnel.connection import hint
from tlstunnel.connection.attempt import Attempt
from tlstunnel.connection.authorize import FALLBACK, identify, judge, note, require_alpn
from tlstunnel.connection.connection import ACCEPTED, Connection, Path, State
from tlstunnel.connection.dial import dial_error
from tlstunnel.connection.proxy_header import check_trust, header_for, read_header
from tlstunnel.connection.refusal import RefusedError
from tlstunnel.connection.runtime import ServiceRuntime
from tlstunnel.connection.sessions import TargetEnd
from tlstunnel.connection.starttls.modes import CLIENT, SERVER
from tlstunnel.connection.starttls.negotiation import Negotiation, Step, Verdict
from tlstunnel.outcome import CloseReason
from tlstunnel.relay.ends import PlainEnd, TLSEnd
from tlstunnel.tls import clienthello
from tlstunnel.tls.clienthello import ClientHello
from tlstunnel.tls.firstbytes import HelloError

_Found = TypeVar("_Found")

MAX_LOOK = 72 * 1024
"""As much as a ClientHello or a PROXY protocol header may need (`tls.firstbytes`, `proxy_protocol`)."""

UNRECOGNIZED_NAME, NO_APPLICATION_PROTOCOL = 112, 120
"""Alerts (RFC 6066 section 3, RFC 7301 section 3.2)."""

MAX_SAID = 16 * 1024
"""Bytes of a negotiation that are read at once."""
_REASONS = {reason.label: reason for reason in CloseReason}

_MOMENT_S = 0.01
"""Before another try for the ledger's lock, whose holder does not go on."""


def path_of(runtime: ServiceRuntime) -> Path:
    """The states that connections of this service go through."""
    service = runtime.service
    states = [ACCEPTED]
    if service.accept_proxy_protocol:
        states += [PROXY_HEADER, ADMISSION]
    dial, before, after = [DIALING, INTRODUCTION], [], []
    if service.starttls is not None:
        before, after = [NEGOTIATION], [AFTERTALK]
    if service.mode is Mode.SERVER:
        hello = [SERVER_NAME if runtime.routes.is_needed else CLIENT_HELLO, CLIENT_HANDSHAKE, AUTHORIZATION]
        states += [*dial, *before, *hello] if before else [*hello, *dial]
    elif service.mode is Mode.PASSTHROUGH:
        states += [SERVER_NAME, *dial]
    else:
        states += [*dial, *before]
    if service.target_tls is not None:
        states += [TARGET_HELLO, TARGET_HANDSHAKE, TARGET_AUTHORIZATION]
    return dict(pairwise([*states, *after, RELAYING]))


# Before TLS.


def _look(connection: Connection, parse: Callable[[memoryview], _Found | None]) -> _Found | None:
    """What `parse` finds in what has arrived, at which it only peeks, behind what has been taken; None while more is
    needed.

    Raises:
        EOFError: the client closed first.
        ConnectionResetError: it reset the connection first.
    """
    client, wire, pieces = connection.client, connection.runtime.worker.scratch.wire, connection.pieces
    found = parse(memoryview(pieces)) if pieces else None
    if found is not None or not client.is_readable:
        return found
    try:
        size = client.sock.recv_into(wire, MAX_LOOK, socket.MSG_DONTWAIT | socket.MSG_PEEK)
    except BlockingIOError:
        size = -1
    if size >= 0:
        if size:
            found = parse(memoryview(pieces + wire[:size]) if pieces else wire[:size])
        if found is not None:
            return found
        if size == 0 or client.has_hung_up:
            # What came before a reset can still be looked at, and hides it.
            if client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise ConnectionResetError
            raise EOFError
    client.is_readable = False  # more of it brings another edge
    return None


def _read_proxy_header(connection: Connection) -> bool:
    """Read the PROXY protocol header of a proxy that we trust, and forget that there is one."""
    check_trust(connection, connection.runtime.service)
    header = _look(connection, read_header)
    if header is None:
        return False
    connection.client.sock.recv_into(connection.runtime.worker.scratch.wire, header.size, socket.MSG_DONTWAIT)
    if isinstance(header.source, proxy_protocol.Endpoint):
        connection.host = header.source.host
        connection.source, connection.destination = header.source, header.destination
        connection.record.real_client = str(TCPAddress(header.source.host, header.source.port))
    elif header.is_local:
        connection.host = ""  # the proxy's own health check is nobody's client
    # Else a client that the proxy does not know: it stands under the proxy's own address (section 2.1 there).
    return True


def _admit(connection: Connection) -> bool:
    """Ask the service's admission about the client that a PROXY header named."""
    if connection.is_asking:
        return False
    worker, admission = connection.runtime.worker, connection.runtime.admission
    if admission.is_counting and not worker.ledger.enter():
        connection.ask(_a_moment)
        return False
    try:
        reason, place = admission.admit(connection.host, worker.reactor.now)
        connection.hold_place(place)
    finally:
        if admission.is_counting:
            worker.ledger.leave()
    if reason is not None:
        raise RefusedError(reason)
    return True


async def _a_moment() -> BlockingIOError:
    """What trio is asked for where there is nothing to know but that time has passed."""
    await trio.sleep(_MOMENT_S)
    return BlockingIOError()


def _find_route(connection: Connection) -> bool:
    """Find the route of the server name that the client asks for.

    What cannot be read is OpenSSL's to judge, with the service's own certificate: so the answer to it is the same as
    where no name is looked for. In passthrough mode nobody else would answer.
    """
    runtime = connection.runtime
    read = hint.first_hello if runtime.is_server else clienthello.parse
    first = cast("hint.FirstMessage | None", _look(connection, read))
    if first is None:
        return False
    hello = first if isinstance(first, ClientHello) else None
    if hello is not None:
        connection.record.server_name = hello.server_name
    connection.client_said(first)
    route = runtime.routes.default if hello is None else runtime.routes.find(hello.server_name)
    if route is None or not (route.side or route.dialers):
        wanted = hint.wanted(hello) if hello is not None else ""
        raise RefusedError(CloseReason.UNRECOGNIZED_NAME, wanted, alert=UNRECOGNIZED_NAME)
    connection.dialers = route.dialers
    if runtime.is_server:
        client = connection.begin_tls(route)
        _require_alpn(connection)
        if connection.pieces:
            _begin_handshake(connection, client, connection.pieces)
    return True


def _require_alpn(connection: Connection) -> None:
    """Refuse a client that offers no application protocol where one is required: OpenSSL asks only about offers.

    Raises:
        RefusedError: it offers none.
    """
    if connection.route is not None and connection.route.tls.alpn_required:
        hello = _read(connection.hello)
        if hello is not None and not hello.alpn:
            raise RefusedError(CloseReason.NO_SHARED_ALPN, "client offers none", alert=NO_APPLICATION_PROTOCOL)


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


# TLS with the client.


def _take_hello(connection: Connection) -> bool:
    """Begin a handshake with the client's first message, of which the record keeps a copy.

    OpenSSL is given it whole, as nearly always it comes: so what is said of a bad one does not depend on its pieces.
    """
    client, wire = connection.client, connection.runtime.worker.scratch.wire
    if not isinstance(client, TLSEnd):
        client = connection.begin_tls(connection.runtime.routes.default)
    first = hint.first_message(memoryview(connection.pieces)) if connection.pieces else None
    size = 0
    while first is None and client.is_readable:
        size = client.take()
        if size:
            pieces = connection.pieces
            first = hint.first_message(memoryview(pieces + wire[:size]) if pieces else wire[:size])
            if first is None or pieces:
                connection.pieces += wire[:size]
    if first is None:
        return False
    connection.client_said(first)
    _require_alpn(connection)
    if connection.pieces:
        _begin_handshake(connection, client, connection.pieces)
    else:
        client.handshake(size)
    return True


def _begin_handshake(connection: Connection, client: TLSEnd, came: bytes) -> None:
    """Begin it with what was taken of the client's socket before."""
    connection.runtime.worker.scratch.wire[: len(came)] = came
    connection.pieces = b""
    client.handshake(len(came))


def _shake(connection: Connection, end: TLSEnd) -> bool:
    """Go on with a handshake; whether it is complete."""
    if end.is_readable and (size := end.take()) and end.handshake(size):
        return True
    if end.is_readable:
        connection.runtime.worker.reactor.again(connection)  # there is more than one step takes, or an EOF
    return False


def _shake_with_client(connection: Connection) -> bool:
    client, route, record = connection.client, connection.route, connection.record
    assert isinstance(client, TLSEnd) and route is not None  # noqa: S101, PT018 - the state before this one is over
    if not _shake(connection, client):
        return False
    if record.server_name is None:
        record.server_name = client.engine.server_name() or None
    connection.shaken(client.engine, has_alpn=route.has_alpn)
    if record.server_name is None and record.resumed and record.version != "TLSv1.3":
        record.server_name = _name_in(connection.hello)
    connection.dialers = route.dialers
    return True


def _authorize(connection: Connection) -> bool:
    """Who the client is, and whether it may go on."""
    runtime, client, route = connection.runtime, connection.client, connection.route
    assert isinstance(client, TLSEnd) and route is not None  # noqa: S101, PT018 - as above
    if runtime.service.client_auth is not ClientAuth.NONE:
        who = identify(client)
        if who is None and runtime.fallback:
            connection.dialers = runtime.fallback
            note(connection, FALLBACK)
        else:
            judge(connection, route.policy, who)
            # Of several the target could take another for the one that was meant (`access.policy`): it is told none.
            connection.common_name = who.common_names[0] if who is not None and len(who.common_names) == 1 else ""
    return True


# The backend.


def _dial(connection: Connection) -> bool:
    """Reach one of the targets."""
    attempt = connection.attempt
    if attempt is None:
        if not connection.dialers:
            raise RefusedError(CloseReason.BACKEND_UNREACHABLE, "no target")
        attempt = connection.attempt = Attempt(connection.runtime, connection.dialers)
    is_reached = attempt.is_reached(connection)
    connection.deadline = attempt.deadline
    if not is_reached:
        # Nobody waits for a client whose reset came with its last message. (`State.gone` is about a later one.)
        client = connection.client
        if client.has_hung_up and client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise RefusedError(CloseReason.CLIENT_GONE)
    return is_reached


def _introduce(connection: Connection) -> bool:
    """Tell the target who the client is, where it wants to know."""
    introduction = header_for(connection)
    if introduction:
        try:
            connection.target_sock.send(introduction)  # the socket is new: its send buffer takes a header whole
        except OSError as exc:
            raise dial_error(connection.dialer.target, exc) from None
    return True


# What is said before TLS.


def _negotiate(connection: Connection) -> bool:
    """Let client and backend speak until TLS is to begin."""
    negotiation = connection.negotiation
    if negotiation is None:
        service = connection.runtime.service
        protocol = service.starttls
        assert protocol is not None  # noqa: S101 - only such a service has this state
        is_server = connection.runtime.is_server
        negotiation = SERVER[protocol](service.starttls_required) if is_server else CLIENT[protocol]()
        connection.begin_negotiation(negotiation)
        _carry_out(connection, negotiation.start())
    return _talk(connection, negotiation)


def _talk_on(connection: Connection) -> bool:
    """What the protocol has to say when TLS stands, before the rest is only relayed."""
    negotiation, backend = connection.negotiation, connection.backend
    assert negotiation is not None and backend is not None  # noqa: S101, PT018 - the state before this one is over
    if not negotiation.is_secured:
        _carry_out(connection, negotiation.secured())
        if negotiation.verdict is Verdict.GO_ON:
            end, feed = (connection.client, negotiation.from_client)
            if not connection.runtime.is_server:
                end, feed = (backend, negotiation.from_backend)
            size = end.buffered()  # what came together with the end of the handshake
            if size:
                _carry_out(connection, feed(bytes(connection.runtime.worker.scratch.plain[:size])))
    return _talk(connection, negotiation)


def _talk(connection: Connection, negotiation: Negotiation) -> bool:
    """Feed the negotiation with what comes, as long as it wants to go on; whether it is through."""
    client, backend = connection.client, connection.backend
    assert backend is not None  # noqa: S101 - the negotiation has begun
    while True:
        if client.has_pending and client.is_writable:
            client.flush()
        if backend.has_pending and backend.is_writable:
            _to_backend(backend, backend.flush)
        if client.has_pending or backend.has_pending:
            return False
        if negotiation.verdict is Verdict.PLAINTEXT:
            connection.state = RELAYING
            connection.join()
            return False
        if negotiation.verdict is not Verdict.GO_ON:
            return True
        if data := _read_from_backend(connection, negotiation):
            _carry_out(connection, negotiation.from_backend(data))
        elif data := _read_from_client(connection):
            _carry_out(connection, negotiation.from_client(data))
        elif client.at_eof and not negotiation.awaits_backend:
            # One that has only said its last word may wait for the answer to it.
            connection.record.with_backend = False
            raise RefusedError(CloseReason.HANDSHAKE_EOF, negotiation.why_left)
        elif backend.at_eof:
            raise _backend_left(connection, negotiation, "closed")
        elif not (client.is_readable or backend.is_readable):
            return False


def _read_from_client(connection: Connection) -> bytes:
    """What the client has said. An error of its socket is its doing, even when TLS with the backend stands."""
    try:
        return _read_some(connection, connection.client)
    except OSError:
        connection.record.with_backend = False
        raise


def _read_from_backend(connection: Connection, negotiation: Negotiation) -> bytes:
    """What the backend has said. An error of its socket is no doing of the client's."""
    backend = connection.backend
    assert backend is not None  # noqa: S101 - the negotiation has begun
    try:
        return _read_some(connection, backend)
    except OSError as exc:
        raise _backend_left(connection, negotiation, "reset") from exc


def _backend_left(connection: Connection, negotiation: Negotiation, how: str) -> RefusedError:
    """Tell the client, and say why the connection ends."""
    connection.say_farewell("the service behind this one has closed the connection")
    when = "at login" if negotiation.is_secured else "before TLS"
    return RefusedError(CloseReason.STARTTLS_BACKEND, f"it {how} the connection {when}")


def _read_some(connection: Connection, end: PlainEnd) -> bytes:
    """What has come, as much as a step is to have; empty where nothing has."""
    if not end.is_readable or end.at_eof:
        end.is_readable = False
        return b""
    size = end.receive(MAX_SAID)
    if end.failure is not None:
        raise end.failure
    return bytes(connection.runtime.worker.scratch.plain[:size])


def _to_backend(end: PlainEnd, say: Callable[[], int]) -> None:
    """Say something to the backend. One that has left may have said why, which is read next, and then its end."""
    try:
        say()
    except OSError as exc:
        end.note_reset(exc)
        end.has_pending, end.is_readable = False, True


def _carry_out(connection: Connection, step: Step) -> None:
    """Send what is to be sent.

    Raises:
        RefusedError: the negotiation has failed.
    """
    plain, client, backend = connection.runtime.worker.scratch.plain, connection.client, connection.backend
    assert backend is not None  # noqa: S101 - the negotiation has begun
    if step.to_client:
        plain[: len(step.to_client)] = step.to_client
        with contextlib.suppress(*([] if step.reason is None else [OSError])):  # what is wrong is known then
            client.send(len(step.to_client))
    if step.to_backend:
        plain[: len(step.to_backend)] = step.to_backend
        _to_backend(backend, lambda: backend.send(len(step.to_backend)))
    if step.reason is not None:
        connection.record.with_backend = step.is_backends
        raise RefusedError(_REASONS[step.reason.label], step.detail)
    connection.pieces = step.tls


def _begin_target_tls(connection: Connection) -> bool:
    """Begin TLS with the backend: name and rules are verified in the handshake, before our certificate is shown."""
    runtime = connection.runtime
    target_tls, context = runtime.service.target_tls, runtime.contexts.target
    assert target_tls is not None and context is not None  # noqa: S101, PT018 - only such a service has this state
    target = connection.dialer.target
    name = target_tls.server_name or (target.host if isinstance(target, TCPAddress) else "localhost")
    is_ip = TCPAddress(name, 1).is_literal
    # An IP address is verified but never sent as SNI (RFC 6066 section 3).
    host = name.partition("%")[0] if is_ip else name.rstrip(".")
    engine = runtime.client_engine()
    backend = connection.begin_target_tls(engine, host)
    engine.expect(host, is_ip=is_ip, send_name=None if is_ip else host, judge=context.judge)
    session = runtime.sessions.take(target)
    if session is not None:
        engine.resume(session)
    backend.begin()
    return True


def _shake_with_target(connection: Connection) -> bool:
    runtime, backend = connection.runtime, connection.backend
    target_tls = runtime.service.target_tls
    assert isinstance(backend, TLSEnd) and target_tls is not None  # noqa: S101, PT018 - as above
    if not _shake(connection, backend):
        return False
    if not runtime.is_server:
        connection.record.server_name = connection.expected
        connection.shaken(backend.engine, has_alpn=bool(target_tls.tls.alpn))
    return True


def _authorize_target(connection: Connection) -> bool:
    """Who the backend is, and whether it will do: once more, because a resumed session shows no certificate."""
    runtime, backend = connection.runtime, connection.backend
    target_tls = runtime.service.target_tls
    assert isinstance(backend, TargetEnd) and target_tls is not None  # noqa: S101, PT018 - as above
    who = identify(backend)
    if who is None:
        raise RefusedError(CloseReason.BAD_CERTIFICATE, "backend showed no certificate")
    decision = None if target_tls.verify is None else decide(target_tls.verify, who)
    if not runtime.is_server:  # in server mode the record is about the client
        connection.record.identity = str(who)
        if decision is not None:
            note(connection, decision)
    if decision is not None and not decision.allowed:
        raise RefusedError(CloseReason.DENIED, f"backend {refusal(decision, who, is_server=True)}")
    require_alpn(backend, target_tls.tls)
    backend.hold_tickets(who.not_after.timestamp())
    return True


def _join(connection: Connection) -> bool:
    connection.join()
    return False


PROXY_HEADER = State("proxy header", _read_proxy_header)
ADMISSION = State("admission", _admit)
SERVER_NAME = State("server name", _find_route)
CLIENT_HELLO = State("client hello", _take_hello)
CLIENT_HANDSHAKE = State("client handshake", _shake_with_client)
AUTHORIZATION = State("authorization", _authorize)
DIALING = State("dialing", _dial, late=None, gone=CloseReason.CLIENT_GONE)
INTRODUCTION = State("introduction", _introduce)
NEGOTIATION = State("negotiation", _negotiate)
TARGET_HELLO = State("target hello", _begin_target_tls)
TARGET_HANDSHAKE = State("target handshake", _shake_with_target)
TARGET_AUTHORIZATION = State("target authorization", _authorize_target)
AFTERTALK = State("aftertalk", _talk_on)
RELAYING = State("relaying", _join)
