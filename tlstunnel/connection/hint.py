"""What a client's first message says: what it offers, for the log, and what is wrong with it, in words that help.

The first message is kept, unread, until the handshake is over. Reading it costs 15 µs, which only failures pay, and all
connections where the log is at debug.
"""

from __future__ import annotations

from tlstunnel.connection.offers import Ours, compare
from tlstunnel.connection.refusal import Refusal
from tlstunnel.observe.record import ConnectionRecord
from tlstunnel.outcome import CloseReason, Stage
from tlstunnel.tls import clienthello, ja4, remedies
from tlstunnel.tls.clienthello import ClientHello
from tlstunnel.tls.firstbytes import (
    CLIENT_HELLO,
    HANDSHAKE,
    MAX_FRAGMENT,
    HelloError,
    NotTLSError,
    Speaks,
    TooLongError,
    assemble,
)
from tlstunnel.tls.reasons import alert_name

_BODY = b"This port speaks TLS. Use https:// instead of http://, or a client that speaks TLS.\n"
HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    % len(_BODY)
) + _BODY
"""For plain HTTP on a TLS port: nothing else that we could send would reach the person behind it."""

_FROM_HELLO = frozenset(
    (
        CloseReason.NOT_TLS,
        CloseReason.PROTOCOL_ERROR,
        CloseReason.NO_SHARED_VERSION,
        CloseReason.NO_SHARED_CIPHER,
        CloseReason.NO_SHARED_GROUP,
        CloseReason.NO_SHARED_SIGNATURE,
        CloseReason.NO_SHARED_ALPN,
    )
)

_TWO_SIDED = frozenset((CloseReason.NO_SHARED_CIPHER, CloseReason.NO_SHARED_GROUP, CloseReason.NO_SHARED_SIGNATURE))
"""Reasons of which both sides are told."""

_SILENT = frozenset((CloseReason.HANDSHAKE_EOF, CloseReason.HANDSHAKE_RESET, CloseReason.HANDSHAKE_TIMEOUT))
"""Endings that come without a word: their detail has to be guessed."""

FirstMessage = bytes | ClientHello
"""As it came, or read already because something else had to be known from it."""

_MAX_VERSIONS = 8
"""There are five; a client may claim more of them than anyone wants to read."""
_MAX_ALPN = 32
"""Bytes of an application protocol's name that are shown; 255 are allowed, and nobody uses more than 20."""


def first_message(wire: memoryview) -> bytes | None:
    """The client's first message at the start of these bytes; None while more of it must come.

    What is no ClientHello, or none that we would read, is handed on at once: it is OpenSSL that judges it.

    Raises:
        TooLongError: it is longer than we allow.
    """
    if wire[0] != HANDSHAKE:
        return _beginning(wire)
    if len(wire) < 9:
        return None
    size = (wire[3] << 8) | wire[4]
    if wire[5] == CLIENT_HELLO and 4 + int.from_bytes(wire[6:9], "big") <= size <= MAX_FRAGMENT:
        # One message in one record, as nearly all are.
        return bytes(wire[: 5 + size]) if len(wire) >= 5 + size else None
    return _beginning(wire)


def _beginning(wire: memoryview) -> bytes | None:
    """All of a message in several records, or of what has come instead; None while that needs more."""
    try:
        return None if assemble(wire) is None else bytes(wire)
    except TooLongError:
        raise
    except HelloError:
        return bytes(wire)


def first_hello(wire: memoryview) -> FirstMessage | None:
    """The same where the server name is needed: read, if it can be. OpenSSL takes nothing that cannot be read here, so
    it says of the rest what is wrong with it, as it does where nothing is read before it.

    Raises:
        TooLongError: it is longer than we allow.
    """
    try:
        return clienthello.parse(wire)
    except TooLongError:
        raise
    except HelloError:
        return bytes(wire)


def describe(record: ConnectionRecord, first: FirstMessage) -> None:
    """Note what the client offered and which name it asked for, as far as it can be read."""
    try:
        hello = first if isinstance(first, ClientHello) else clienthello.parse(first)
        if hello is not None:
            record.client_versions = ",".join(hello.version_names[:_MAX_VERSIONS])
            record.ja4 = ja4.fingerprint(hello)
            if record.server_name is None:
                record.server_name = hello.server_name
    except HelloError:
        return  # the record's reason says that it is malformed


def explain(
    reason: CloseReason, detail: str, first: FirstMessage | None, ours: Ours | None = None
) -> tuple[CloseReason, str]:
    """A better reason and detail for a failed handshake, where the first message itself was the trouble."""
    if first is None or reason not in _FROM_HELLO:
        return reason, detail
    try:
        hello = first if isinstance(first, ClientHello) else clienthello.parse(first)
        if hello is None or reason is CloseReason.PROTOCOL_ERROR:
            return reason, detail
        if reason is CloseReason.NO_SHARED_ALPN:
            names = (name.decode("ascii", "backslashreplace")[:_MAX_ALPN] for name in hello.alpn[:_MAX_VERSIONS])
            return reason, f"client offers {', '.join(names)}"
        if reason is CloseReason.NOT_TLS:
            return CloseReason.PROTOCOL_ERROR, detail or "what it sent is no record of TLS"
        if reason in _TWO_SIDED:
            return (reason, detail) if ours is None else compare(reason, hello, ours)
        versions = ", ".join(hello.version_names[:_MAX_VERSIONS])
        return reason, f"client offers {'' if versions.startswith('SSL') else 'TLS '}{versions}"
    except NotTLSError as exc:
        return CloseReason.NOT_TLS, str(exc)
    except HelloError as exc:
        # What it cannot be read for has a name here. OpenSSL says of it "bad extension", and of some that it is no TLS.
        unread = reason in (CloseReason.PROTOCOL_ERROR, CloseReason.NOT_TLS)
        return (CloseReason.PROTOCOL_ERROR, str(exc)) if unread else (reason, detail)


def complete(reason: CloseReason, detail: str, record: ConnectionRecord, first: FirstMessage | None) -> str:
    """What is wrong, and what would be right, of a connection that ends before there is a link."""
    if record.with_backend and reason.stage is Stage.HANDSHAKE:
        return remedies.joined(detail, remedies.of_server(reason, detail=detail))
    if not detail and reason in _SILENT:
        detail = _silence(reason, first)
    return remedies.joined(detail, remedies.of_client(reason, detail))


def _silence(reason: CloseReason, first: FirstMessage | None) -> str:
    if reason is CloseReason.HANDSHAKE_TIMEOUT:
        if first is None:
            return "nothing whole came of it; it may not speak TLS, or wait for the server to speak first"
        return "its first message came, and no more; look for losses on the way, or raise handshake_timeout"
    if first is None:
        return "it left before it had said anything whole; it is a health check or a scanner, or was stopped"
    return "it left after its first message; it may not trust our certificate, look at its log"


def of_link(reason: CloseReason, detail: str, version: str | None = None) -> str:
    """The detail of a link's end. An alert is explained: in TLS 1.3 a peer may refuse us when its handshake is over.

    In TLS 1.2 nobody shakes hands then but who wants to renegotiate, which nobody does with us (`version` is the
    client's, or in client mode the backend's).
    """
    if reason not in (CloseReason.CLIENT_ALERT, CloseReason.BACKEND_ALERT):
        return detail
    words = remedies.KEYS if reason is CloseReason.BACKEND_ALERT else None
    names = [name for name in map(alert_name, detail.split(", ")) if name]
    if version == "TLSv1.2" and ("handshake_failure" in names or "no_renegotiation" in names):
        return (
            f"{names[0]}: {remedies.RENEGOTIATION_OF_CLIENTS if words is None else remedies.RENEGOTIATION_OF_SERVERS}"
        )
    return next((f"{name}: {remedies.of_alert(name, words)}" for name in names), detail)


def wanted(hello: ClientHello) -> str:
    """Which name a client asked for that leads nowhere."""
    if hello.server_name is not None:
        return f'it asks for "{hello.server_name}"'
    return hello.server_name_problem or "it asks for no name"


def is_http(refusal: Refusal) -> bool:
    """Whether `explain` found plain HTTP."""
    return refusal.reason is CloseReason.NOT_TLS and refusal.detail == str(NotTLSError(Speaks.HTTP))
