"""MySQL and MariaDB: the server greets, the client answers with an SSLRequest packet (their "Connection Phase")."""

from __future__ import annotations

from tlstunnel.connection.starttls.conversation import Conversation, Incoming, StartTLSError, shown

_PROTOCOL_41, _SSL, _SECURE_CONNECTION = 0x0200, 0x0800, 0x8000
_UTF8MB4 = 45
_MAX_GREETING = 1 << 12


def client() -> Conversation:
    """Ask a MySQL server for TLS."""
    incoming = Incoming()
    head = yield from incoming.take(4)
    length, sequence = int.from_bytes(head[:3], "little"), head[3]
    if sequence != 0 or not 1 <= length <= _MAX_GREETING:
        raise _not_mysql()
    greeting = yield from incoming.take(length)
    if greeting[0] == 0xFF:
        raise StartTLSError(f"the MySQL server refuses: {shown(greeting[3:].decode('latin-1'))}")
    if not _capabilities(greeting) & _SSL:
        raise StartTLSError("the MySQL server does not offer TLS; give it ssl_cert and ssl_key")
    incoming.end()
    yield ssl_request(sequence + 1)
    return b""


def ssl_request(sequence: int) -> bytes:
    """The packet after which the client begins TLS."""
    body = (_PROTOCOL_41 | _SSL | _SECURE_CONNECTION).to_bytes(4, "little") + (1 << 24).to_bytes(4, "little")
    body += bytes([_UTF8MB4]) + bytes(23)
    return len(body).to_bytes(3, "little") + bytes([sequence]) + body


def _capabilities(greeting: bytes) -> int:
    """The lower half of what the server can do: behind its version, thread id, salt and a filler."""
    version_end = greeting.find(b"\0", 1)
    at = version_end + 1 + 4 + 8 + 1
    if greeting[0] != 10 or version_end < 0 or len(greeting) < at + 2:
        raise _not_mysql()
    return int.from_bytes(greeting[at : at + 2], "little")


def _not_mysql() -> StartTLSError:
    return StartTLSError("the server does not greet as MySQL does; give the right protocol")
