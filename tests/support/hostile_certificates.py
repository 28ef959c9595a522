"""Certificates as strangers might make them. Their signatures are seldom right: nothing here is for a verifier."""

from __future__ import annotations

import functools
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID

CN, OU = NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME
NOT_BEFORE, NOT_AFTER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
# Context tags of GeneralName (RFC 5280 section 4.2.1.6).
EMAIL, DNS, X400, DIRECTORY, EDI, URI, IP, REGISTERED = 1, 2, 3, 4, 5, 6, 7, 8


@functools.cache
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def certificate(
    *subject: tuple[x509.ObjectIdentifier, str],
    names: bytes | None = None,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    issuer: str = "a CA",
    replace: tuple[tuple[bytes, bytes], ...] = (),
) -> bytes:
    """A certificate in DER; `names` is the content of its alternative names, and `replace` patches what was built."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(oid, value) for oid, value in subject]))
        .issuer_name(x509.Name([x509.NameAttribute(CN, issuer)]))
        .public_key(key().public_key())
        .serial_number(4711)
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
    )
    if names is not None:
        value = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, der(0x30, names))
        builder = builder.add_extension(value, critical=False)
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    built = builder.sign(key(), hashes.SHA256()).public_bytes(Encoding.DER)
    for old, new in replace:
        assert len(old) == len(new), "lengths inside the certificate must stay"
        assert old in built, old
        built = built.replace(old, new)
    return built


def general(tag: int, content: bytes) -> bytes:
    """One alternative name."""
    return der(0x80 | tag | (0x20 if tag in (X400, DIRECTORY, EDI) else 0), content)


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
