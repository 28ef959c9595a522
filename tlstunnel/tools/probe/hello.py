"""ClientHellos that ask one question each, from SSL 3.0 to TLS 1.3.

A hello offers exactly what is asked about and otherwise everything, so that the answer has one cause. Where TLS 1.3 is
offered, the list of key shares is empty unless one is given: the server then names the group it wants in a
HelloRetryRequest (RFC 8446 section 4.2.8), which costs neither side any arithmetic, and works for groups that nothing
here can compute.
"""

from __future__ import annotations

from dataclasses import dataclass

from tlstunnel.tools.probe import groups, suites
from tlstunnel.tools.tls13 import extensions as ext
from tlstunnel.tools.tls13.extension_block import Extension
from tlstunnel.tools.tls13.keyexchange import system_entropy
from tlstunnel.tools.tls13.messages import ClientHello
from tlstunnel.tools.tls13.names import TLS_1_2, TLS_1_3, ContentType
from tlstunnel.tools.tls13.names import ExtensionType as Ext
from tlstunnel.tools.tls13.wire import Record, vector

SSL_2_0, SSL_3_0, TLS_1_0, TLS_1_1 = 0x0002, 0x0300, 0x0301, 0x0302
STATUS_REQUEST = Extension(Ext.STATUS_REQUEST, b"\1\0\0\0\0")
"""Asks for an OCSP response, from whatever responder (RFC 6066 section 8)."""

_PSS = (0x0804, 0x0805, 0x0806)
_ECDSA = (0x0403, 0x0503, 0x0603)
_EDDSA = (0x0807, 0x0808)
_PKCS1 = (0x0401, 0x0501, 0x0601)
_RARE = (0x0809, 0x080A, 0x080B, 0x081A, 0x081B, 0x081C, 0x0301, 0x0303, 0x0402, 0x0502, 0x0602)
_MLDSA = (0x0904, 0x0905, 0x0906)
SHA1_SCHEMES = (0x0201, 0x0203, 0x0202)
SCHEMES = (*_ECDSA, *_PSS, 0x0807, *_PKCS1, 0x0808, *_MLDSA, *_RARE, *SHA1_SCHEMES)
"""Every signature there is, those that our own TLS 1.3 client can verify first."""
SCHEMES_BY_KEY = {"ECDSA": _ECDSA, "RSA": (*_PSS, *_PKCS1), "EdDSA": _EDDSA, "ML-DSA": _MLDSA}
"""Signatures by the kind of key that makes them: a server with several certificates shows one for each."""
COMPRESSIONS = b"\x01\x40\x00"  # DEFLATE (RFC 3749), LZS (RFC 3943), none


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What one hello offers. `suites` None is every suite the version can have, and so on."""

    versions: tuple[int, ...]
    """Largest first. TLS 1.3 goes into an extension; the largest of the others is the hello's own version."""
    suites: tuple[int, ...] | None = None
    groups: tuple[int, ...] | None = None
    schemes: tuple[int, ...] = SCHEMES
    alpn: tuple[str, ...] = ()
    server_name: str = ""
    compressions: bytes = b"\0"
    is_fallback: bool = False
    """Whether to say that a larger version was tried before (RFC 7507)."""
    shares: tuple[ext.KeyShare, ...] = ()

    @property
    def best(self) -> int:
        """The largest version offered."""
        return self.versions[0]


def encode(offer: Offer) -> bytes:
    """The offer as a record to send."""
    legacy = min(offer.best, TLS_1_2)
    hello = ClientHello(
        random=system_entropy(32, "client random"),
        # TLS 1.3 servers echo it; to others it is a session they do not know.
        session_id=system_entropy(32, "session id") if offer.best == TLS_1_3 else b"",
        cipher_suites=_suites(offer),
        extensions=_extensions(offer),
        legacy_version=legacy,
        compression_methods=offer.compressions,
    )
    body = hello.body()
    if offer.best == SSL_3_0:
        body = body[:-2]  # the empty list of extensions, which SSL 3.0 has no place for
    record_version = SSL_3_0 if offer.best == SSL_3_0 else TLS_1_0
    return Record(ContentType.HANDSHAKE, record_version, bytes([hello.type]) + vector(body, 3)).encode()


def _suites(offer: Offer) -> tuple[int, ...]:
    chosen = offer.suites
    if chosen is None:
        chosen = tuple(dict.fromkeys(number for version in offer.versions for number in suites.offered_in(version)))
    if offer.best == SSL_3_0:
        chosen += (suites.SCSV_RENEGOTIATION,)
    return (*chosen, suites.SCSV_FALLBACK) if offer.is_fallback else chosen


def _extensions(offer: Offer) -> tuple[Extension, ...]:
    if offer.best == SSL_3_0:
        return ()
    known_groups = groups.IN_TLS13 if offer.best == TLS_1_3 else ()
    if offer.versions[-1] < TLS_1_3:
        known_groups = tuple(dict.fromkeys((*known_groups, *groups.IN_TLS12)))
    found = [ext.server_name(offer.server_name)] if offer.server_name else []
    found += [
        ext.groups(known_groups if offer.groups is None else offer.groups),
        ext.signature_algorithms(offer.schemes),
        STATUS_REQUEST,
    ]
    if offer.alpn:
        found.append(ext.alpn(offer.alpn))
    if offer.versions[-1] < TLS_1_3:
        found += [
            Extension(Ext.EC_POINT_FORMATS, b"\3\0\1\2"),
            Extension(Ext.SESSION_TICKET, b""),
            Extension(Ext.ENCRYPT_THEN_MAC, b""),
            Extension(Ext.EXTENDED_MASTER_SECRET, b""),
            Extension(Ext.RENEGOTIATION_INFO, b"\0"),
        ]
    if offer.best == TLS_1_3:
        found += [ext.client_versions(offer.versions), ext.psk_modes(), ext.client_shares(offer.shares)]
    return tuple(found)
