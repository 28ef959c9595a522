"""What a server says to a ClientHello in the clear: everything up to ServerHelloDone, or a ServerHello of TLS 1.3.

TLS 1.2 and before send their certificates, key exchange and certificate request unprotected, so a probe can hang up
before it has computed anything (RFC 5246 section 7.4). Of TLS 1.3 the hello is all there is to read without keys.

Sans-I/O: `AnswerReader.feed` takes bytes as they come. Whatever does not fit raises `Violation`; a number that nobody
here knows is no error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tlstunnel.tools.probe import suites
from tlstunnel.tools.probe.hello import SSL_3_0, Offer
from tlstunnel.tools.tls13 import extensions as ext
from tlstunnel.tools.tls13.extension_block import Extensions, find
from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.messages import ServerHello
from tlstunnel.tools.tls13.names import (
    TLS_1_2,
    TLS_1_3,
    AlertDescription,
    ContentType,
    HandshakeType,
    message_name,
    suite_name,
    version_name,
)
from tlstunnel.tools.tls13.names import ExtensionType as Ext
from tlstunnel.tools.tls13.wire import Reader, RecordBuffer

MAX_MESSAGE = 1 << 18
_SERVER_KEY_EXCHANGE, _SERVER_HELLO_DONE, _CERTIFICATE_STATUS, _HELLO_REQUEST = 12, 14, 22, 0
_NAMES = {12: "ServerKeyExchange", 14: "ServerHelloDone", 22: "CertificateStatus", 0: "HelloRequest"}
_FATAL = 2
_MAX_WARNINGS = 5
_NAMED_CURVE = 3


@dataclass(frozen=True, slots=True)
class KeyExchange:
    """The server's half of an ephemeral key exchange: a curve or the size of a prime, and how it is signed."""

    group: int | None = None
    dh_bits: int | None = None
    scheme: int | None = None
    """The signature scheme; None before TLS 1.2, where the key decides, and where nothing is signed."""


@dataclass(frozen=True, slots=True)
class CertificateWish:
    """That the server asks for a client's certificate, and the CAs it names, in DER."""

    authorities: tuple[bytes, ...]


@dataclass(slots=True)
class Answer:
    """What the server said, as far as it came. Without a `suite` it refused."""

    version: int | None = None
    suite: int | None = None
    group: int | None = None
    """Of TLS 1.3: the group the server wants or answers for."""
    compression: int = 0
    extensions: Extensions = ()
    chain: tuple[bytes, ...] = ()
    staple: bytes | None = None
    key_exchange: KeyExchange | None = None
    wish: CertificateWish | None = None
    alert: int | None = None
    """The fatal alert that ended the answer."""

    @property
    def alpn(self) -> str | None:
        """The application protocol chosen; None if none was, or if it is said under encryption."""
        body = find(self.extensions, Ext.ALPN)
        chosen = ext.read_alpn(body) if body is not None else ()
        return chosen[0] if chosen else None


class AnswerReader:
    """Reads the answer to an offer."""

    def __init__(self, offer: Offer) -> None:
        self.answer = Answer()
        self.is_complete = False
        self._offer = offer
        self._records = RecordBuffer()
        self._partial = bytearray()
        self._warnings = 0
        self._handlers: dict[int, Callable[[bytes], None]] = {
            HandshakeType.CERTIFICATE: self._on_certificate,
            _CERTIFICATE_STATUS: self._on_status,
            _SERVER_KEY_EXCHANGE: self._on_key_exchange,
            HandshakeType.CERTIFICATE_REQUEST: self._on_request,
            _SERVER_HELLO_DONE: self._on_done,
        }

    def feed(self, data: bytes) -> None:
        """Take bytes that came.

        Raises:
            Violation: they are no TLS, or break its rules.
        """
        self._records.feed(data)
        for record in self._records.records():
            if self.is_complete:
                return
            if record.content_type == ContentType.ALERT:
                self._on_alert(record.fragment)
            elif record.content_type == ContentType.HANDSHAKE:
                self._on_handshake(record.fragment)
            else:
                raise _unexpected("a record came that has no place before the end of the server's hello")

    def _on_alert(self, fragment: bytes) -> None:
        if len(fragment) != 2:
            raise Violation(AlertDescription.DECODE_ERROR, "an alert is not two bytes long")
        level, alert = fragment
        if level == _FATAL or alert == AlertDescription.CLOSE_NOTIFY:
            self.answer.alert = alert
            self.is_complete = True
            return
        self._warnings += 1
        if self._warnings > _MAX_WARNINGS:
            raise _unexpected("warnings come without end")

    def _on_handshake(self, fragment: bytes) -> None:
        self._partial += fragment
        while len(self._partial) >= 4 and not self.is_complete:
            end = 4 + int.from_bytes(self._partial[1:4])
            if end > MAX_MESSAGE:
                raise Violation(AlertDescription.ILLEGAL_PARAMETER, f"a message of {end} bytes is longer than any")
            if len(self._partial) < end:
                return
            kind, body = self._partial[0], bytes(self._partial[4:end])
            del self._partial[:end]
            self._on_message(kind, body)

    def _on_message(self, kind: int, body: bytes) -> None:
        if kind == _HELLO_REQUEST:
            return
        if kind == HandshakeType.SERVER_HELLO and self.answer.version is None:
            self._on_hello(body)
            return
        handler = self._handlers.get(kind)
        if handler is None or self.answer.version is None:
            raise _unexpected(f"{_NAMES.get(kind) or message_name(kind)} came where it has no place")
        handler(body)

    def _on_hello(self, body: bytes) -> None:
        hello = ServerHello.decode(body)
        chosen = find(hello.extensions, Ext.SUPPORTED_VERSIONS)
        version = ext.read_single(chosen, "supported_versions") if chosen is not None else hello.legacy_version
        if version > TLS_1_2 and version not in self._offer.versions:
            raise _illegal(f"the server chose {version_name(version)}, which was not offered")
        if not SSL_3_0 <= version <= self._offer.best:
            raise _illegal(f"the server chose {version_name(version)}, more than was offered")
        offered = self._offer.suites
        if offered is not None and hello.cipher_suite not in offered:
            raise _illegal(f"the server chose {_suite(hello.cipher_suite)}, which was not offered")
        if hello.compression_method not in self._offer.compressions:
            raise _illegal("the server chose a compression that was not offered")
        found = self.answer
        found.version, found.suite, found.extensions = version, hello.cipher_suite, hello.extensions
        found.compression = hello.compression_method
        if version == TLS_1_3:
            share = find(hello.extensions, Ext.KEY_SHARE)
            if share is not None:
                found.group = _retry_group(share) if hello.is_retry else ext.read_server_share(share).group
            self.is_complete = True

    def _on_certificate(self, body: bytes) -> None:
        reader = Reader(body, "Certificate")
        inner = reader.inner(3)
        reader.end()
        found = []
        while inner:
            found.append(inner.vector(3, least=1))
        self.answer.chain = tuple(found)

    def _on_status(self, body: bytes) -> None:
        reader = Reader(body, "CertificateStatus")
        kind = reader.uint(1)
        if kind == 1:  # RFC 6066 section 8
            self.answer.staple = reader.vector(3)
            reader.end()

    def _on_key_exchange(self, body: bytes) -> None:
        chosen = suites.suite(self.answer.suite or 0)
        reader = Reader(body, "ServerKeyExchange")
        if chosen.uses_psk:
            reader.vector(2)  # a hint which key is meant (RFC 4279 section 2)
        if chosen.uses_curves:
            kind, group = reader.uint(1), reader.uint(2)
            if kind != _NAMED_CURVE:
                raise _illegal("the server invents a curve of its own instead of naming one")
            reader.vector(1, least=1)
            self.answer.key_exchange = KeyExchange(group=group, scheme=self._scheme(reader, chosen))
        elif chosen.uses_ephemeral_dh:
            prime = int.from_bytes(reader.vector(2, least=1))
            reader.vector(2, least=1)
            reader.vector(2, least=1)
            scheme = self._scheme(reader, chosen)
            self.answer.key_exchange = KeyExchange(dh_bits=prime.bit_length(), scheme=scheme)

    def _scheme(self, reader: Reader, chosen: suites.Suite) -> int | None:
        if not chosen.is_signed or self.answer.version != TLS_1_2:
            return None
        scheme = reader.uint(2)
        reader.vector(2)
        reader.end()
        return scheme

    def _on_request(self, body: bytes) -> None:
        reader = Reader(body, "CertificateRequest")
        reader.vector(1)  # kinds of keys
        if self.answer.version == TLS_1_2:
            reader.uints(2)
        inner = reader.inner(2)
        reader.end()
        found = []
        while inner:
            found.append(inner.vector(2))
        self.answer.wish = CertificateWish(tuple(found))

    def _on_done(self, body: bytes) -> None:
        Reader(body, "ServerHelloDone").end()
        self.is_complete = True


def _retry_group(body: bytes) -> int:
    return ext.read_single(body, "key_share")


def _suite(number: int) -> str:
    return suites.suite(number).name if number in suites.SUITES else suite_name(number)


def _illegal(text: str) -> Violation:
    return Violation(AlertDescription.ILLEGAL_PARAMETER, text)


def _unexpected(text: str) -> Violation:
    return Violation(AlertDescription.UNEXPECTED_MESSAGE, text)
