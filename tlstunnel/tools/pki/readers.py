"""Certificates, requests and revocation lists out of files that may hold anything.

Every function takes bytes from a stranger and gives back objects or one `UsageError` that says what the file is
instead. `cryptography` parses parts of a certificate only when they are looked at, so `certificates` looks at every
part that the rest of the package uses: what is returned can be described without a surprise.
"""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import TypeAlias

from cryptography import x509

from tlstunnel.parse_errors import PARSE_ERRORS
from tlstunnel.tools.pki import files
from tlstunnel.x509 import certificate as facts
from tlstunnel.x509 import trust
from tlstunnel.x509.pem import CERTIFICATE_LABELS, SourceFile, is_encrypted_der, is_p12, parse_pem

Certificate: TypeAlias = x509.Certificate
"""For callers that hand certificates on without looking into them."""


def guess(data: bytes) -> str:
    """What a file should be read as: `certificate`, `request`, `crl`, `key` or `bundle`.

    Certificates win over what stands beside them. Binary files are told apart by trying.
    """
    if any(b"-----BEGIN " + label.encode() + b"-----" in data for label in CERTIFICATE_LABELS):
        return "certificate"
    if b"CERTIFICATE REQUEST-----" in data:
        return "request"
    if b"-----BEGIN X509 CRL-----" in data:
        return "crl"
    if b"PRIVATE KEY-----" in data:
        return "key"
    if data[:1] != b"\x30":
        return "certificate"
    if is_p12(data):
        return "bundle"
    if b"\x02\x01\x00\x30" in data[2:12] or b"\x02\x01\x01\x04" in data[2:12]:
        return "key"  # PrivateKeyInfo, ECPrivateKey
    if is_encrypted_der(data):
        return "key"
    for kind, load in (
        ("certificate", x509.load_der_x509_certificate),
        ("request", x509.load_der_x509_csr),
        ("crl", x509.load_der_x509_crl),
    ):
        with contextlib.suppress(*PARSE_ERRORS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load(data)
            return kind
    return "certificate"


def load_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """Every certificate in a PEM file, in order, or the one in a DER file.

    Raises:
        MaterialError: a file cannot be read.
        UsageError: it holds no certificate, or a damaged one.
    """
    return certificates(files.read(path), where=str(path))


def certificates(data: bytes, *, where: str) -> tuple[x509.Certificate, ...]:
    """The certificates in these bytes; see `load_certificates`. Their keys may be of a kind that is not known here."""
    return tuple(facts.read_certificates(SourceFile(Path(where), data, 0), is_key_needed=False)[0])


def request(data: bytes, *, where: str) -> x509.CertificateSigningRequest:
    """The certificate request in these bytes, PEM or DER; its signature is not checked here.

    Raises:
        UsageError: there is none, or a damaged one.
    """
    file, found = SourceFile(Path(where), data, 0), [data]
    if data[:1] != b"0":
        blocks = parse_pem(file)
        found = [block.der for block in blocks if block.label.endswith("CERTIFICATE REQUEST")]
        if not found:
            raise file.error(f"holds {blocks[0].label} but no certificate request; name another file")
    if len(found) > 1:
        raise file.error(f"{len(found)} requests in one file; give one at a time")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is odd but readable
            parsed = x509.load_der_x509_csr(found[0])
            _ = parsed.subject.rfc4514_string(), parsed.extensions, parsed.public_key()
    except PARSE_ERRORS as exc:
        raise file.error(f"the certificate request {facts.reason(exc)}") from exc
    return parsed


def revocation_lists(data: bytes, *, where: str) -> list[x509.CertificateRevocationList]:
    """The revocation lists in these bytes, PEM or DER; their signatures are not checked here.

    Raises:
        UsageError: there is none, or a damaged one.
    """
    return [found for _, found in trust.read_lists(SourceFile(Path(where), data, 0))]
