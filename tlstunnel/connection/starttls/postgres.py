"""PostgreSQL: a request of eight bytes, answered by one ("SSL Session Encryption" in its protocol's message flow).

Its documentation is the specification: "Frontend/Backend Protocol", sections Message Flow and Message Formats.
A client's password is proved by SCRAM (RFC 5802), which may be bound to the TLS of the connection. No binding passes a
tunnel, since the two ends see two different sessions (RFC 5929 section 4), so neither side may think that it could:

- server mode: the server knows of no TLS and offers none. A client with `channel_binding=require` refuses that.
- client mode: the server offers SCRAM-SHA-256-PLUS, at which a client without TLS gives up. It is taken out.
"""

from __future__ import annotations

from tlstunnel.connection.starttls.conversation import Conversation, Incoming, StartTLSError, shown
from tlstunnel.connection.starttls.negotiation import Asking, Negotiation, Reason, Refused, Verdict

SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)
GSSENC_REQUEST = (8).to_bytes(4) + (80877104).to_bytes(4)
_CANCEL = (80877102).to_bytes(4)
_MAX_CANCEL = 12 + 256
"""Keys have 4 bytes until protocol 3.2, and up to 256 since."""
_MAX_STARTUP = 10_000
"""PostgreSQL's own limit."""
_SASL = (10).to_bytes(4)
_PLUS = b"SCRAM-SHA-256-PLUS\0"
_MAX_ANSWER = 1 << 14
_NO_TLS_HERE = "it wants encryption on this side, which is plaintext; give it sslmode=prefer or disable"
_HINT = "Connect with sslmode=require, or a stricter one."


def client() -> Conversation:
    """Ask a PostgreSQL server for TLS."""
    incoming = Incoming()
    yield SSL_REQUEST
    answer = yield from incoming.take(1)
    if answer == b"N":
        raise StartTLSError("the PostgreSQL server has no TLS (ssl = off); turn it on in postgresql.conf")
    if answer != b"S":
        said = shown(answer.decode("latin-1"))
        raise StartTLSError(f"the server answers {said}, not as PostgreSQL does; give the right protocol")
    incoming.end()
    return b""


def error(text: str, sqlstate: str, hint: str = "") -> bytes:
    """An ErrorResponse that ends the connection, as psql prints it."""
    fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": text} | ({"H": hint} if hint else {})
    body = "".join(f"{kind}{value}\0" for kind, value in fields.items()).encode("ascii", "replace") + b"\0"
    return b"E" + (4 + len(body)).to_bytes(4) + body


def farewell(text: str) -> bytes:
    """SQLSTATE 08006: connection failure."""
    return error(text, "08006")


class _Requests:
    """The packets without a type with which a client begins, up to the one that is no question about encryption."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._asked: set[bytes] = set()

    def add(self, data: bytes) -> None:
        self._data += data

    def rest(self) -> bytes:
        """Everything that was not a question."""
        return bytes(self._data)

    def next(self) -> bytes | None:
        """A question, or the head of what is none; None until it is there."""
        head = bytes(self._data[:8])
        if len(head) < 8:
            return None
        length = int.from_bytes(head[:4])
        if head in {SSL_REQUEST, GSSENC_REQUEST}:
            if head in self._asked:
                raise _not_postgres("the client asks for encryption twice")
            self._asked.add(head)
            del self._data[:8]
        elif head[4:] == _CANCEL:
            if not 12 < length <= _MAX_CANCEL:
                raise _not_postgres("the client's cancel request has no key")
        elif not (8 <= length <= _MAX_STARTUP and head[4:6] in {b"\0\2", b"\0\3"}):
            raise _not_postgres(f"the client begins with {shown(head.decode('latin-1'))}, not as PostgreSQL's do")
        return head


class Server(Negotiation):
    """Server mode: TLS on request, or from the first byte as PostgreSQL 17's sslnegotiation=direct has it.

    | the client sends       | it gets                                                                  |
    |------------------------|--------------------------------------------------------------------------|
    | 0x16, as first byte    | TLS                                                                      |
    | SSLRequest             | S, then TLS; N never                                                     |
    | GSSENCRequest          | N, and may ask for TLS                                                   |
    | CancelRequest          | passed on as it is: psql never encrypts it, and servers take it so       |
    | StartupMessage         | ErrorResponse, SQLSTATE 28000; passed on where TLS is not required       |
    """

    def __init__(self, *, required: bool = True) -> None:
        super().__init__()
        self._is_required = required
        self._requests = _Requests()

    def farewell(self, text: str) -> bytes:
        """An ErrorResponse."""
        return farewell(text)

    def on_tls_at_once(self, data: bytes) -> None:
        """Direct TLS; ALPN `postgresql` is the context's to demand."""
        self._tls, self.verdict, self.was_asked = data, Verdict.START_TLS, False

    def on_client(self, data: bytes) -> None:
        """Requests, until one of them ends it."""
        self._requests.add(data)
        while self.verdict is Verdict.GO_ON and (head := self._requests.next()) is not None:
            rest = self._requests.rest()
            if head == GSSENC_REQUEST:
                self.tell_client(b"N")
            elif head == SSL_REQUEST:
                if rest:
                    raise Refused(
                        Reason.INJECTED, "the client sent plaintext behind SSLRequest; someone may have added it"
                    )
                self.tell_client(b"S")
                self.verdict = Verdict.START_TLS
            elif head[4:] == _CANCEL or not self._is_required:
                self.tell_backend(rest)
                self.verdict = Verdict.PLAINTEXT
            else:
                words = error("this server takes encrypted connections only", "28000", _HINT)
                raise Refused(
                    Reason.PLAINTEXT, "the client begins without SSLRequest; sslmode has to be require", words
                )

    def on_backend(self, data: bytes) -> None:
        """A server does not speak first."""
        raise Refused(Reason.BACKEND, f"the backend begins with {shown(data.decode('latin-1'))}, unasked")


class Client(Asking):
    """Client mode: SSLRequest to the server, while the client's own questions about encryption are answered N.

    TLS begins when the server has said S and the client has said something else. Within TLS the server is followed to
    its first authentication message, out of which SCRAM-SHA-256-PLUS is taken.
    """

    def __init__(self) -> None:
        super().__init__(client(), farewell)
        self._requests = _Requests()
        self._is_heard = False
        self._is_ready = False
        self._is_cancel = False
        self._answer = bytearray()

    def is_backends_turn(self) -> bool:
        """Its answer to SSLRequest, or to the start, is not here yet."""
        return self.is_secured or not self._is_ready

    def on_client(self, data: bytes) -> None:
        """Answer questions, keep the rest for the server."""
        if self.is_secured:
            self.tell_backend(data)
            return
        self._requests.add(data)
        while not self._is_heard and (head := self._requests.next()) is not None:
            if head in {SSL_REQUEST, GSSENC_REQUEST}:
                self.tell_client(b"N")
                self.why_left = _NO_TLS_HERE
            else:
                self._is_heard, self._is_cancel, self.why_left = True, head[4:] == _CANCEL, ""
        self._go_on_when_both_are()

    def on_backend(self, data: bytes) -> None:
        """Its answer to SSLRequest; within TLS, its messages."""
        if not self.is_secured:
            if self._is_ready:
                raise Refused(Reason.INJECTED, "the server sent plaintext behind S; someone may have added it")
            super().on_backend(data)
            self._is_ready = self.verdict is Verdict.START_TLS
            self._go_on_when_both_are()
            return
        self._answer += data
        while self.verdict is Verdict.GO_ON and len(self._answer) >= 5:
            length = 1 + int.from_bytes(self._answer[1:5])
            if not 5 <= length <= _MAX_ANSWER:
                raise Refused(Reason.BACKEND, "the server answers the start with no message of PostgreSQL")
            if len(self._answer) < length:
                return
            message = bytes(self._answer[:length])
            del self._answer[:length]
            self.tell_client(_without_binding(message))
            if message[:1] not in b"Nv":  # a notice, or another version: the answer itself is still to come
                self.tell_client(bytes(self._answer))
                self.verdict = Verdict.RELAY

    def on_secured(self) -> None:
        """What the client said goes to the server, which answers a cancel request by its end alone."""
        self.tell_backend(self._requests.rest())
        if self._is_cancel:
            self.verdict = Verdict.RELAY

    def _go_on_when_both_are(self) -> None:
        self.verdict = Verdict.START_TLS if self._is_heard and self._is_ready else Verdict.GO_ON


def _without_binding(message: bytes) -> bytes:
    """AuthenticationSASL without the mechanism that binds; any other message as it is."""
    if message[:1] != b"R" or message[5:9] != _SASL:
        return message
    mechanisms = message[9:].replace(_PLUS, b"")
    if mechanisms == b"\0":
        raise Refused(
            Reason.BACKEND, "the server offers SCRAM-SHA-256-PLUS alone, which no tunnel can pass; allow SCRAM-SHA-256"
        )
    return b"R" + (8 + len(mechanisms)).to_bytes(4) + _SASL + mechanisms


def _not_postgres(detail: str) -> Refused:
    """PostgreSQL does not answer these either."""
    return Refused(Reason.MALFORMED, detail, b"")
