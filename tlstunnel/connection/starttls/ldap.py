"""LDAP: the StartTLS extended operation (RFC 4511 section 4.14), in the little BER that it needs."""

from __future__ import annotations

from collections.abc import Generator

from tlstunnel.connection.starttls.conversation import Conversation, Incoming, StartTLSError, shown
from tlstunnel.connection.starttls.negotiation import Negotiation, Reason, Refused, Verdict
from tlstunnel.errors import printable

_START_TLS, _DISCONNECTION = b"1.3.6.1.4.1.1466.20037", b"1.3.6.1.4.1.1466.20036"
_SEQUENCE, _INTEGER, _STRING, _ENUMERATED, _EXTENDED_REQUEST, _EXTENDED_RESPONSE = 0x30, 0x02, 0x04, 0x0A, 0x77, 0x78
_REQUEST_NAME, _RESPONSE_NAME = 0x80, 0x8A
_MAX_LENGTH = 1 << 14
_SUCCESS, _PROTOCOL_ERROR, _CONFIDENTIALITY_REQUIRED, _UNAVAILABLE = 0, 2, 13, 52
_RESULTS = {1: "operations error", 2: "protocol error", 52: "unavailable", 53: "unwilling to perform"}
_UNBIND, _ABANDON = 0x42, 0x50
# Bind, search, modify, add, delete, rename, compare, extended: what each is answered by (section 4.1.1).
_ANSWERS = {
    0x60: 0x61, 0x63: 0x65, 0x66: 0x67, 0x68: 0x69, 0x4A: 0x6B, 0x6C: 0x6D, 0x6E: 0x6F,
    _EXTENDED_REQUEST: _EXTENDED_RESPONSE,
}  # fmt: skip


def client() -> Conversation:
    """Ask an LDAP server for TLS."""
    incoming = Incoming()
    yield request()
    response = yield from _message(incoming)
    kind, _, rest = _element(response)
    operation, body, _ = _element(rest)
    if kind != _INTEGER or operation != _EXTENDED_RESPONSE:
        raise _not_ldap()
    kind, result, _ = _element(body)
    code = int.from_bytes(result)
    if kind != _ENUMERATED or code:
        said = _RESULTS.get(code, f"result {code}")
        raise StartTLSError(f"the LDAP server refuses StartTLS: {said}; it may have no certificate")
    incoming.end()
    return b""


def request() -> bytes:
    """LDAPMessage 1 with the extended request."""
    return _ber(_SEQUENCE, _ber(_INTEGER, b"\1") + _ber(_EXTENDED_REQUEST, _ber(_REQUEST_NAME, _START_TLS)))


def farewell(text: str, code: int = _UNAVAILABLE) -> bytes:
    """A Notice of Disconnection (section 4.4.1)."""
    return _answer(b"\0", _EXTENDED_RESPONSE, code, text, _DISCONNECTION)


class Server(Negotiation):
    """Server mode.

    | the client sends   | it gets                                                                                   |
    |--------------------|-------------------------------------------------------------------------------------------|
    | StartTLS           | success, then TLS                                                                         |
    | StartTLS and more  | a Notice of Disconnection: nothing may be sent until it is answered (section 4.14.1)      |
    | abandon            | nothing: there is nothing to abandon                                                      |
    | unbind             | the end                                                                                   |
    | any other request  | confidentialityRequired; passed on with all that follows where TLS is not required        |
    """

    def __init__(self, *, required: bool = True) -> None:
        super().__init__()
        self._is_required = required
        self._data = bytearray()

    def farewell(self, text: str) -> bytes:
        """A Notice of Disconnection."""
        return farewell(text)

    def on_client(self, data: bytes) -> None:
        """Its messages, one at a time."""
        self._data += data
        while self.verdict is Verdict.GO_ON and (size := _size(self._data)) is not None:
            message = bytes(self._data[:size])
            del self._data[:size]
            try:
                _, content, _ = _element(message)
                kind, number, rest = _element(content)
                operation, body, _ = _element(rest)
            except StartTLSError as exc:
                raise _malformed() from exc
            if kind != _INTEGER or not 1 <= len(number) <= 4 or not any(number):  # 0 is the server's own
                raise _malformed()
            self._obey(message, number, operation, body)

    def on_backend(self, data: bytes) -> None:
        """A server does not speak first, but for a Notice of Disconnection."""
        raise Refused(Reason.BACKEND, f"the backend begins with {shown(data.decode('latin-1'))}, unasked")

    def _obey(self, message: bytes, number: bytes, operation: int, body: bytes) -> None:
        if operation == _EXTENDED_REQUEST and body == _ber(_REQUEST_NAME, _START_TLS):
            if self._data:
                raise Refused(Reason.INJECTED, "the client sent plaintext behind StartTLS; someone may have added it")
            self.tell_client(_answer(number, _EXTENDED_RESPONSE, _SUCCESS, "", _START_TLS))
            self.verdict = Verdict.START_TLS
        elif not self._is_required:
            self.tell_backend(message + self._data)
            self.verdict = Verdict.PLAINTEXT
        elif operation == _UNBIND:
            raise Refused(Reason.PLAINTEXT, "the client leaves before TLS", b"")
        elif operation in _ANSWERS:
            self.tell_client(
                _answer(number, _ANSWERS[operation], _CONFIDENTIALITY_REQUIRED, "StartTLS is required first")
            )
        elif operation != _ABANDON:
            raise _malformed()


def _answer(number: bytes, kind: int, code: int, text: str, name: bytes = b"") -> bytes:
    """An LDAPMessage with an LDAPResult (section 4.1.9)."""
    words = printable(text[:100]).encode("ascii", "replace")
    result = _ber(_ENUMERATED, bytes([code])) + _ber(_STRING, b"") + _ber(_STRING, words)
    result += _ber(_RESPONSE_NAME, name) if name else b""
    return _ber(_SEQUENCE, _ber(_INTEGER, number) + _ber(kind, result))


def _ber(kind: int, content: bytes) -> bytes:
    length = len(content)
    return bytes([kind]) + (bytes([length]) if length < 0x80 else b"\x82" + length.to_bytes(2)) + content


def _size(data: bytearray) -> int | None:
    """Of the whole message that it begins with; None until it is there."""
    if data and data[0] != _SEQUENCE:
        raise _malformed()
    if len(data) < 2:
        return None
    start = 2 + (data[1] & 0x7F if data[1] & 0x80 else 0)
    if data[1] & 0x80 and not 3 <= start <= 6:
        raise _malformed()
    if len(data) < start:
        return None
    length = int.from_bytes(data[2:start]) if start > 2 else data[1]
    if length > _MAX_LENGTH:
        raise Refused(Reason.TOO_LONG, f"the client sends a message of {length} bytes before TLS")
    return start + length if len(data) >= start + length else None


def _message(incoming: Incoming) -> Generator[bytes, bytes, bytes]:
    head = yield from incoming.take(2)
    if head[0] != _SEQUENCE:
        raise _not_ldap()
    length = head[1]
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4:
            raise _not_ldap()
        length = int.from_bytes((yield from incoming.take(size)))
    if length > _MAX_LENGTH:
        raise _not_ldap()
    return (yield from incoming.take(length))


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """A BER element's tag, its content, and what follows it."""
    if len(data) < 2:
        raise _not_ldap()
    tag, length, start = data[0], data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start])
    if start + length > len(data):
        raise _not_ldap()
    return tag, data[start : start + length], data[start + length :]


def _not_ldap() -> StartTLSError:
    return StartTLSError("the server does not answer as LDAP does; give the right protocol")


def _malformed() -> Refused:
    text = Reason.MALFORMED.text
    return Refused(Reason.MALFORMED, "the client does not speak as LDAP does", farewell(text, _PROTOCOL_ERROR))
