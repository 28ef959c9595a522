"""MySQL and MariaDB: the server greets, the client answers with an SSLRequest packet (their "Connection Phase").

Every packet of the login has a number, one more than the last. An SSLRequest that only one side knows of puts the two
sides out of step, so the login is followed within TLS to its end and each packet gets the number its reader expects.
The flag that asks for TLS is put into what the side with TLS sees, and taken out of what the other one sees.

A plugin that proves the password by both ends' knowledge of the session cannot work across a tunnel, and one that asks
"is this connection secure?" gets two answers: caching_sha2_password, the default since MySQL 8.0, sends the password in
clear within TLS and under an RSA key without, when its server has it in no cache. In server mode that works where the
backend is a unix socket, which MySQL takes for secure; mysql_native_password and ed25519 work everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

from tlstunnel.connection.starttls.conversation import Conversation, Incoming, StartTLSError, shown
from tlstunnel.connection.starttls.negotiation import Negotiation, Reason, Refused, Verdict
from tlstunnel.errors import printable

_PROTOCOL_41, _SSL, _SECURE_CONNECTION = 0x0200, 0x0800, 0x8000
_UTF8MB4 = 45
_MAX_GREETING = 1 << 12
_MAX_PACKET = 1 << 14
_SSL_REQUEST_SIZE = 32
_TLS = (b"\x16\x03\x01", b"\x16\x03\x02", b"\x16\x03\x03")
"""How a client begins that speaks TLS: as a packet it would have 64 KiB."""
_OK, _ERR = b"\0", b"\xff"
_NO_TLS = "the MySQL server does not offer TLS; give it ssl_cert and ssl_key"
_SECURE_TRANSPORT_REQUIRED, _UNKNOWN_ERROR = 3159, 1105


def client() -> Conversation:
    """Ask a MySQL server for TLS."""
    incoming = Incoming()
    head = yield from incoming.take(4)
    length, sequence = int.from_bytes(head[:3], "little"), head[3]
    if sequence != 0 or not 1 <= length <= _MAX_GREETING:
        raise _not_mysql()
    greeting = yield from incoming.take(length)
    if greeting[:1] == _ERR:
        raise StartTLSError(f"the MySQL server refuses: {shown(greeting[3:].decode('latin-1'))}")
    at = _flags_at(greeting)
    if not int.from_bytes(greeting[at : at + 2], "little") & _SSL:
        raise StartTLSError(_NO_TLS)
    incoming.end()
    yield ssl_request(sequence + 1)
    return b""


def ssl_request(sequence: int) -> bytes:
    """The packet after which the client begins TLS."""
    body = (_PROTOCOL_41 | _SSL | _SECURE_CONNECTION).to_bytes(4, "little") + (1 << 24).to_bytes(4, "little")
    return _packet(sequence, body + bytes([_UTF8MB4]) + bytes(23))


class _Packet(NamedTuple):
    number: int
    body: bytes


class _Login(Negotiation):
    """Both modes: a greeting, an answer to it, TLS, and the rest of the login in step."""

    _steps: int
    """What is added to the number of a packet for the client, and taken from that of one for the backend."""

    def __init__(self) -> None:
        super().__init__()
        self._client, self._backend = bytearray(), bytearray()
        self._is_greeted = False
        self._number = 2
        """Of the packet that a client which was greeted expects next, if it is ours."""
        self._is_backends_turn = True

    def farewell(self, text: str, code: int = _UNKNOWN_ERROR) -> bytes:
        """An ERR packet: in place of a greeting, or of an answer to the login."""
        words = printable(text).encode("ascii", "replace")
        state = b"#HY000" if self._is_greeted else b""
        return _packet(self._number if self._is_greeted else 0, b"\xff" + code.to_bytes(2, "little") + state + words)

    def is_backends_turn(self) -> bool:
        """The greeting is not here yet, or a packet of the login has no answer."""
        return self._is_backends_turn

    def on_tls_at_once(self, data: bytes) -> None:
        """A packet may begin with the same byte; the third one tells."""
        self.on_client(data)

    def on_client(self, data: bytes) -> None:
        """The answer to the greeting; within TLS, the rest of the login."""
        self._client += data
        if not self.is_secured and self._client.startswith(_TLS):
            super().on_tls_at_once(data)
        while self.verdict is Verdict.GO_ON and self._is_greeted and (packet := _next(self._client, Reason.MALFORMED)):
            self._number = packet.number + 1
            if self.is_secured:
                self.pass_on(packet)
            elif packet.number != 1 or len(packet.body) < _SSL_REQUEST_SIZE or not _flags(packet) & _PROTOCOL_41:
                raise Refused(Reason.MALFORMED, "the client does not answer the greeting as those since MySQL 4.1 do")
            else:
                self.answered(packet)

    def on_backend(self, data: bytes) -> None:
        """The greeting; within TLS, the rest of the login."""
        self._backend += data
        if not self.is_secured:
            if not self._is_greeted and (packet := _next(self._backend, Reason.BACKEND)):
                self._greet(packet)
            if self._is_greeted and self._backend:
                reason = Reason.BACKEND if self.tls_with_client else Reason.INJECTED
                raise Refused(reason, "plaintext came behind the greeting of the backend; someone may have added it")
            self.on_client(b"")
            return
        while self.verdict is Verdict.GO_ON and (packet := _next(self._backend, Reason.BACKEND)):
            self.tell_client(_packet(packet.number + self._steps, packet.body))
            self._is_backends_turn = False
            if packet.body[:1] in {_OK, _ERR}:
                self._give_way(Verdict.RELAY)

    def on_secured(self) -> None:
        """The login goes on with what came of it already."""
        self.on_client(b"")

    def greeted(self, flags: int) -> int:
        """The flags that the client sees in place of the backend's."""
        raise NotImplementedError

    def answered(self, packet: _Packet) -> None:
        """The client has answered the greeting."""
        raise NotImplementedError

    def pass_on(self, packet: _Packet) -> None:
        """A packet of the login goes to the backend."""
        self.tell_backend(_packet(packet.number - self._steps, packet.body))
        self._is_backends_turn = True

    def _greet(self, packet: _Packet) -> None:
        body = packet.body
        if body[:1] == _ERR:
            said = shown(body[3:].decode("latin-1"))
            raise Refused(Reason.BACKEND, f"the backend greets with an error: {said}", _packet(packet.number, body))
        try:
            at = _flags_at(body)
        except StartTLSError:
            raise Refused(Reason.BACKEND, "the backend does not greet as MySQL does") from None
        flags = self.greeted(int.from_bytes(body[at : at + 2], "little"))
        self.tell_client(_packet(0, body[:at] + flags.to_bytes(2, "little") + body[at + 2 :]))
        self._is_greeted, self._is_backends_turn = True, False

    def _give_way(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.tell_client(bytes(self._backend))
        self.tell_backend(bytes(self._client))


class Server(_Login):
    """Server mode.

    | the backend sends  | the client gets             | the client sends     | the backend gets                  |
    |--------------------|-----------------------------|----------------------|-----------------------------------|
    | greeting 0         | greeting 0 with CLIENT_SSL  | SSLRequest 1         | nothing; TLS                      |
    |                    | ERR 2                       | any other answer 1   | nothing, or as it is              |
    | packet n           | packet n + 1, in TLS        | packet n, in TLS     | packet n - 1, without CLIENT_SSL  |
    """

    _steps = 1

    def __init__(self, *, required: bool = True) -> None:
        super().__init__()
        self._is_required = required
        self._is_first = True

    def greeted(self, flags: int) -> int:
        """TLS is offered."""
        return flags | _SSL

    def answered(self, packet: _Packet) -> None:
        """An SSLRequest, or what has to wait for it."""
        if len(packet.body) == _SSL_REQUEST_SIZE and _flags(packet) & _SSL:
            # Nothing answers an SSLRequest, so what comes behind it is TLS already.
            if self._client and self._client[:1] != _TLS[0][:1]:
                raise Refused(Reason.INJECTED, "the client sent plaintext behind SSLRequest; someone may have added it")
            self._tls, self._client = bytes(self._client), bytearray()
            self.verdict = Verdict.START_TLS
        elif not self._is_required:
            self.tell_backend(_packet(packet.number, packet.body))
            self._give_way(Verdict.PLAINTEXT)
        else:
            words = self.farewell(Reason.PLAINTEXT.text, _SECURE_TRANSPORT_REQUIRED)
            raise Refused(
                Reason.PLAINTEXT, "the client logs in without SSLRequest; its ssl-mode has to be REQUIRED", words
            )

    def pass_on(self, packet: _Packet) -> None:
        """In the login itself the client says once more that it speaks TLS, which the backend would then begin."""
        is_login, self._is_first = self._is_first, False
        super().pass_on(_with_flags(packet, _flags(packet) & ~_SSL) if is_login else packet)


class Client(_Login):
    """Client mode: the same with the sides exchanged. The SSLRequest has the flags of the client's own login, since
    servers of MySQL read them there and nowhere else.

    | the backend sends           | the client gets      | the client sends  | the backend gets                    |
    |-----------------------------|----------------------|-------------------|-------------------------------------|
    | greeting 0 with CLIENT_SSL  | greeting 0 without   | login 1           | SSLRequest 1; TLS; login 2 with it  |
    | packet n, in TLS            | packet n - 1         | packet n          | packet n + 1, in TLS                |
    """

    tls_with_client = False
    _steps = -1

    def __init__(self) -> None:
        super().__init__()
        self._login = _Packet(0, b"")

    def greeted(self, flags: int) -> int:
        """TLS is not the client's business."""
        if not flags & _SSL:
            raise Refused(Reason.REFUSED, _NO_TLS)
        return flags & ~_SSL

    def answered(self, packet: _Packet) -> None:
        """The login waits; its beginning is an SSLRequest."""
        if _flags(packet) & _SSL:
            raise Refused(Reason.MALFORMED, "the client asks for TLS, which was not offered")
        self._login = _with_flags(packet, _flags(packet) | _SSL)
        self.tell_backend(_packet(1, self._login.body[:_SSL_REQUEST_SIZE]))
        self.verdict = Verdict.START_TLS

    def on_secured(self) -> None:
        """The login, and what came behind it."""
        self.pass_on(self._login)
        super().on_secured()


def _next(data: bytearray, reason: Reason) -> _Packet | None:
    """The packet that it begins with, taken out of it; None until it is whole."""
    if len(data) < 4:
        return None
    length = int.from_bytes(data[:3], "little")
    if length > _MAX_PACKET:
        raise Refused(reason, f"a packet of {length} bytes came at login, where those of MySQL are short")
    if len(data) < 4 + length:
        return None
    packet = _Packet(data[3], bytes(data[4 : 4 + length]))
    del data[: 4 + length]
    return packet


def _flags(packet: _Packet) -> int:
    return int.from_bytes(packet.body[:2], "little")


def _with_flags(packet: _Packet, flags: int) -> _Packet:
    return _Packet(packet.number, flags.to_bytes(2, "little") + packet.body[2:])


def _packet(number: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number % 256]) + body


def _flags_at(greeting: bytes) -> int:
    """Where the lower half of what the server can do stands: behind its version, thread id, salt and a filler."""
    version_end = greeting.find(b"\0", 1)
    at = version_end + 1 + 4 + 8 + 1
    if greeting[:1] != b"\x0a" or version_end < 0 or len(greeting) < at + 2:
        raise _not_mysql()
    return at


def _not_mysql() -> StartTLSError:
    return StartTLSError("the server does not greet as MySQL does; give the right protocol")
