"""LDAP: the StartTLS extended operation (RFC 4511 section 4.14), in the little BER that it needs."""

from __future__ import annotations

from collections.abc import Generator

from tlstunnel.connection.starttls.conversation import Conversation, Incoming, StartTLSError

_OID = b"1.3.6.1.4.1.1466.20037"
_SEQUENCE, _INTEGER, _ENUMERATED, _EXTENDED_REQUEST, _EXTENDED_RESPONSE = 0x30, 0x02, 0x0A, 0x77, 0x78
_MAX_LENGTH = 1 << 14
_RESULTS = {1: "operations error", 2: "protocol error", 52: "unavailable", 53: "unwilling to perform"}


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
    name = b"\x80" + bytes([len(_OID)]) + _OID
    operation = bytes([_EXTENDED_REQUEST, len(name)]) + name
    body = bytes([_INTEGER, 1, 1]) + operation
    return bytes([_SEQUENCE, len(body)]) + body


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
