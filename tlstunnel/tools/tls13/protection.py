"""Record protection: the AEAD around every record after the ServerHello (RFC 8446 section 5).

A protected record looks like application data from outside. Inside are the content, its true type, and as many zeros
as the sender likes. The nonce is the record's number XORed with the IV; the additional data is the record's header.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.names import TLS_1_2, AlertDescription, CipherSuite, ContentType
from tlstunnel.tools.tls13.schedule import hkdf_expand_label
from tlstunnel.tools.tls13.wire import MAX_PLAINTEXT, Record

IV_LENGTH = 12
TAG_LENGTH = 16


class TrafficKeys:
    """Key and IV of one direction, made from a traffic secret, and the number of the next record (section 7.3)."""

    def __init__(self, suite: CipherSuite, secret: bytes, name: str, epoch: str) -> None:
        """`name` is the secret's name in section 7.1, `epoch` what these keys are for, in words."""
        self.suite = suite
        self.secret = secret
        self.name = name
        self.epoch = epoch
        self.key = hkdf_expand_label(suite.hash, secret, "key", b"", suite.key_length)
        self.iv = hkdf_expand_label(suite.hash, secret, "iv", b"", IV_LENGTH)
        self.sequence = 0
        self._aead: AESGCM | ChaCha20Poly1305
        if suite is CipherSuite.TLS_CHACHA20_POLY1305_SHA256:
            self._aead = ChaCha20Poly1305(self.key)
        else:
            self._aead = AESGCM(self.key)

    def nonce(self) -> bytes:
        """The nonce of the next record (section 5.3)."""
        number = self.sequence.to_bytes(IV_LENGTH)
        return bytes(left ^ right for left, right in zip(self.iv, number, strict=True))

    def seal(self, content_type: int, content: bytes, padding: int = 0) -> Record:
        """Protect one fragment, with `padding` zeros behind it."""
        inner = content + bytes([content_type]) + bytes(padding)
        outer = Record(ContentType.APPLICATION_DATA, TLS_1_2, bytes(len(inner) + TAG_LENGTH))
        sealed = self._aead.encrypt(self.nonce(), inner, outer.header)
        self.sequence += 1
        return Record(outer.content_type, outer.legacy_version, sealed)

    def open(self, record: Record) -> tuple[int, bytes]:
        """The true content type and the content of a protected record.

        Raises:
            Violation: bad_record_mac if it was changed on its way or sealed with other keys, record_overflow if the
                content is too long, unexpected_message if it is padding and nothing else.
        """
        try:
            inner = self._aead.decrypt(self.nonce(), record.fragment, record.header)
        except (InvalidTag, ValueError):
            # A fragment shorter than the tag is a ValueError; to the peer it is the same failure (section 5.2).
            raise Violation(AlertDescription.BAD_RECORD_MAC, "a protected record does not decrypt") from None
        self.sequence += 1
        stripped = inner.rstrip(b"\0")
        if not stripped:
            raise Violation(AlertDescription.UNEXPECTED_MESSAGE, "a protected record holds no content type")
        if len(inner) > MAX_PLAINTEXT + 1:
            raise Violation(AlertDescription.RECORD_OVERFLOW, "a record's content exceeds 2^14 bytes")
        return stripped[-1], stripped[:-1]
