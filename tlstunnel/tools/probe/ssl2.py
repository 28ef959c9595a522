"""SSL 2.0: just enough to ask whether a server still speaks it, and with which ciphers (draft-hickman-netscape-ssl-00).

Its records have a header of their own: two bytes with the highest bit set and the length below.
"""

from __future__ import annotations

from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.keyexchange import system_entropy
from tlstunnel.tools.tls13.wire import Reader, uint, vector

_CLIENT_HELLO, _SERVER_HELLO = 1, 4
_VERSION = 0x0002
CIPHERS = {
    0x010080: "SSL_CK_RC4_128_WITH_MD5", 0x020080: "SSL_CK_RC4_128_EXPORT40_WITH_MD5",
    0x030080: "SSL_CK_RC2_128_CBC_WITH_MD5", 0x040080: "SSL_CK_RC2_128_CBC_EXPORT40_WITH_MD5",
    0x050080: "SSL_CK_IDEA_128_CBC_WITH_MD5", 0x060040: "SSL_CK_DES_64_CBC_WITH_MD5",
    0x0700C0: "SSL_CK_DES_192_EDE3_CBC_WITH_MD5", 0x080080: "SSL_CK_RC4_64_WITH_MD5",
}  # fmt: skip


def encode() -> bytes:
    """A hello that offers every cipher."""
    ciphers = b"".join(uint(number, 3) for number in CIPHERS)
    challenge = system_entropy(16, "challenge")
    lengths = uint(len(ciphers), 2) + uint(0, 2) + uint(len(challenge), 2)
    body = uint(_CLIENT_HELLO, 1) + uint(_VERSION, 2) + lengths + ciphers + challenge
    record = vector(body, 2)
    return bytes([record[0] | 0x80]) + record[1:]


class Answer:
    """Collects what comes until it is a whole message or surely none of SSL 2.0."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.is_complete = False
        self.ciphers: tuple[int, ...] | None = None
        """The server's ciphers; None if it does not speak SSL 2.0."""

    def feed(self, data: bytes) -> None:
        """Take what came."""
        self._data += data
        if len(self._data) < 3:
            return
        if not self._data[0] & 0x80 or self._data[2] != _SERVER_HELLO:
            self.is_complete = True
            return
        length = int.from_bytes(self._data[:2]) & 0x7FFF
        if len(self._data) >= 2 + length:
            self.is_complete = True
            self.ciphers = _ciphers(bytes(self._data[2 : 2 + length]))


def _ciphers(body: bytes) -> tuple[int, ...] | None:
    reader = Reader(body, "ServerHello of SSL 2.0")
    try:
        reader.take(3)  # message type, session id hit, type of certificate
        if reader.uint(2) != _VERSION:
            return None
        certificate, ciphers, connection = reader.uint(2), reader.uint(2), reader.uint(2)
        reader.take(certificate)
        listed = reader.take(ciphers)
        reader.take(connection)
    except Violation:
        return None
    return tuple(int.from_bytes(listed[at : at + 3]) for at in range(0, len(listed) - 2, 3))
