"""The handshake messages of RFC 8446 section 4, as values that encode to bytes and decode from them.

Extensions stay what they are on the wire, a type and opaque bytes in the order they came, so that decoding and
encoding again gives the same bytes: the transcript hash covers bytes, not meanings. `extensions.py` reads the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tlstunnel.tools.tls13.extension_block import Extension, Extensions, decode_extensions, encode_extensions, find
from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.names import TLS_1_2, AlertDescription, HandshakeType, message_name
from tlstunnel.tools.tls13.wire import Reader, uint, uints, vector

__all__ = [
    "HELLO_RETRY_RANDOM", "Certificate", "CertificateEntry", "CertificateRequest", "CertificateVerify", "ClientHello",
    "EncryptedExtensions", "EndOfEarlyData", "Extension", "Extensions", "Finished", "KeyUpdate", "Message",
    "NewSessionTicket", "ServerHello", "decode_message", "find",
]  # fmt: skip

# SHA-256 of "HelloRetryRequest": a ServerHello with this random is a request to try again (section 4.1.3).
HELLO_RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


class Message:
    """A handshake message: `encode` gives its bytes with the four-byte header, `decode` reads a body without it."""

    __slots__ = ()
    type: ClassVar[HandshakeType]

    def body(self) -> bytes:
        """The message without its header."""
        raise NotImplementedError

    def encode(self) -> bytes:
        """The message with its type and length."""
        return uint(self.type, 1) + vector(self.body(), 3)


@dataclass(frozen=True, slots=True)
class ClientHello(Message):
    """Section 4.1.2."""

    type = HandshakeType.CLIENT_HELLO
    random: bytes
    session_id: bytes
    cipher_suites: tuple[int, ...]
    extensions: Extensions
    legacy_version: int = TLS_1_2
    compression_methods: bytes = b"\0"

    def body(self) -> bytes:
        return (
            uint(self.legacy_version, 2)
            + self.random
            + vector(self.session_id, 1)
            + uints(self.cipher_suites, 2)
            + vector(self.compression_methods, 1)
            + encode_extensions(self.extensions)
        )

    @classmethod
    def decode(cls, body: bytes) -> ClientHello:
        reader = Reader(body, "ClientHello")
        version, random, session_id = reader.uint(2), reader.take(32), reader.vector(1)
        suites, compression = reader.uints(2), reader.vector(1, least=1)
        # A TLS 1.2 client may leave the extensions out altogether; the server then refuses its version.
        extensions = decode_extensions(reader, "ClientHello") if reader else ()
        reader.end()
        return cls(random, session_id, suites, extensions, version, compression)


@dataclass(frozen=True, slots=True)
class ServerHello(Message):
    """Section 4.1.3, and 4.1.4 for a HelloRetryRequest, which has the same form."""

    type = HandshakeType.SERVER_HELLO
    random: bytes
    session_id: bytes
    cipher_suite: int
    extensions: Extensions
    legacy_version: int = TLS_1_2
    compression_method: int = 0

    @property
    def is_retry(self) -> bool:
        """Whether this is a HelloRetryRequest."""
        return self.random == HELLO_RETRY_RANDOM

    def body(self) -> bytes:
        return (
            uint(self.legacy_version, 2)
            + self.random
            + vector(self.session_id, 1)
            + uint(self.cipher_suite, 2)
            + uint(self.compression_method, 1)
            + encode_extensions(self.extensions)
        )

    @classmethod
    def decode(cls, body: bytes) -> ServerHello:
        reader = Reader(body, "ServerHello")
        version, random, session_id = reader.uint(2), reader.take(32), reader.vector(1)
        suite, compression = reader.uint(2), reader.uint(1)
        extensions = decode_extensions(reader, "ServerHello") if reader else ()
        reader.end()
        return cls(random, session_id, suite, extensions, version, compression)


@dataclass(frozen=True, slots=True)
class EncryptedExtensions(Message):
    """Section 4.3.1."""

    type = HandshakeType.ENCRYPTED_EXTENSIONS
    extensions: Extensions

    def body(self) -> bytes:
        return encode_extensions(self.extensions)

    @classmethod
    def decode(cls, body: bytes) -> EncryptedExtensions:
        reader = Reader(body, "EncryptedExtensions")
        message = cls(decode_extensions(reader, "EncryptedExtensions"))
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class CertificateRequest(Message):
    """Section 4.3.2."""

    type = HandshakeType.CERTIFICATE_REQUEST
    context: bytes
    extensions: Extensions

    def body(self) -> bytes:
        return vector(self.context, 1) + encode_extensions(self.extensions)

    @classmethod
    def decode(cls, body: bytes) -> CertificateRequest:
        reader = Reader(body, "CertificateRequest")
        message = cls(reader.vector(1), decode_extensions(reader, "CertificateRequest"))
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class CertificateEntry:
    """One certificate of a chain, in DER, with the extensions that belong to it."""

    data: bytes
    extensions: Extensions = ()


@dataclass(frozen=True, slots=True)
class Certificate(Message):
    """Section 4.4.2. An empty list is a client's way to say that it has none."""

    type = HandshakeType.CERTIFICATE
    context: bytes
    entries: tuple[CertificateEntry, ...]

    def body(self) -> bytes:
        entries = b"".join(vector(entry.data, 3) + encode_extensions(entry.extensions) for entry in self.entries)
        return vector(self.context, 1) + vector(entries, 3)

    @classmethod
    def decode(cls, body: bytes) -> Certificate:
        reader = Reader(body, "Certificate")
        context = reader.vector(1)
        inner = reader.inner(3)
        entries = []
        while inner:
            entries.append(CertificateEntry(inner.vector(3, least=1), decode_extensions(inner, "Certificate")))
        reader.end()
        return cls(context, tuple(entries))


@dataclass(frozen=True, slots=True)
class CertificateVerify(Message):
    """Section 4.4.3."""

    type = HandshakeType.CERTIFICATE_VERIFY
    scheme: int
    signature: bytes

    def body(self) -> bytes:
        return uint(self.scheme, 2) + vector(self.signature, 2)

    @classmethod
    def decode(cls, body: bytes) -> CertificateVerify:
        reader = Reader(body, "CertificateVerify")
        message = cls(reader.uint(2), reader.vector(2))
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class Finished(Message):
    """Section 4.4.4. Its length is that of the hash, which the receiver checks: the message does not say it."""

    type = HandshakeType.FINISHED
    verify_data: bytes

    def body(self) -> bytes:
        return self.verify_data

    @classmethod
    def decode(cls, body: bytes) -> Finished:
        return cls(body)


@dataclass(frozen=True, slots=True)
class EndOfEarlyData(Message):
    """Section 4.5."""

    type = HandshakeType.END_OF_EARLY_DATA

    def body(self) -> bytes:
        return b""

    @classmethod
    def decode(cls, body: bytes) -> EndOfEarlyData:
        Reader(body, "EndOfEarlyData").end()
        return cls()


@dataclass(frozen=True, slots=True)
class NewSessionTicket(Message):
    """Section 4.6.1. `lifetime` is in seconds."""

    type = HandshakeType.NEW_SESSION_TICKET
    lifetime: int
    age_add: int
    nonce: bytes
    ticket: bytes
    extensions: Extensions = ()

    def body(self) -> bytes:
        return (
            uint(self.lifetime, 4)
            + uint(self.age_add, 4)
            + vector(self.nonce, 1)
            + vector(self.ticket, 2)
            + encode_extensions(self.extensions)
        )

    @classmethod
    def decode(cls, body: bytes) -> NewSessionTicket:
        reader = Reader(body, "NewSessionTicket")
        lifetime, age_add, nonce = reader.uint(4), reader.uint(4), reader.vector(1)
        ticket = reader.vector(2, least=1)
        extensions = decode_extensions(reader, "NewSessionTicket")
        reader.end()
        return cls(lifetime, age_add, nonce, ticket, extensions)


@dataclass(frozen=True, slots=True)
class KeyUpdate(Message):
    """Section 4.6.3."""

    type = HandshakeType.KEY_UPDATE
    update_requested: bool

    def body(self) -> bytes:
        return uint(self.update_requested, 1)

    @classmethod
    def decode(cls, body: bytes) -> KeyUpdate:
        reader = Reader(body, "KeyUpdate")
        value = reader.uint(1)
        reader.end()
        if value > 1:
            raise Violation(AlertDescription.ILLEGAL_PARAMETER, f"KeyUpdate asks for {value}; only 0 and 1 exist")
        return cls(bool(value))


_DECODERS = {
    kind.type: kind.decode
    for kind in (
        ClientHello, ServerHello, EncryptedExtensions, CertificateRequest, Certificate, CertificateVerify, Finished,
        EndOfEarlyData, NewSessionTicket, KeyUpdate,
    )
}  # fmt: skip


def decode_message(raw: bytes) -> Message:
    """The message that `raw`, header and body, encodes.

    Raises:
        Violation: unexpected_message for a type that TLS 1.3 does not have, decode_error for a malformed body.
    """
    decoder = _DECODERS.get(raw[0])  # type: ignore[call-overload]
    if decoder is None:
        raise Violation(AlertDescription.UNEXPECTED_MESSAGE, f"{message_name(raw[0])} is no message of TLS 1.3")
    message: Message = decoder(raw[4:])
    return message
