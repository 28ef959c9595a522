"""Certificates, requests and revocation lists out of files that may hold anything.

Every function takes bytes from a stranger and gives back objects or one `UsageError` that says what the file is
instead. `cryptography` parses parts of a certificate only when they are looked at, so `certificates` looks at every
part that the rest of the package uses: what is returned can be described without a surprise.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, TypeVar

from cryptography import x509

from tlstunnel.errors import UsageError
from tlstunnel.parse_errors import PARSE_ERRORS
from tlstunnel.tools.pki import files
from tlstunnel.x509 import certificate as facts
from tlstunnel.x509.pem import CERTIFICATE_LABELS, SourceFile, is_encrypted_der, is_p12, parse_pem

Certificate: TypeAlias = x509.Certificate
"""For callers that hand certificates on without looking into them."""

Parsed = TypeVar("Parsed")


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


serial = facts.serial


def request(data: bytes, *, where: str) -> x509.CertificateSigningRequest:
    """The certificate request in these bytes, PEM or DER; its signature is not checked here.

    Raises:
        UsageError: there is none, or a damaged one.
    """
    found = _bodies(data, "CERTIFICATE REQUEST", "certificate request", where)
    if len(found) > 1:
        raise UsageError(where, f"{len(found)} requests in one file; give one at a time")
    return _parse(x509.load_der_x509_csr, found[0], where=where, what="certificate request", probe=_touch_request)


def revocation_list(data: bytes, *, where: str) -> x509.CertificateRevocationList:
    """The revocation list in these bytes, PEM or DER; its signature is not checked here.

    Raises:
        UsageError: there is none, or a damaged one.
    """
    found = _bodies(data, "X509 CRL", "revocation list", where)
    return _parse(x509.load_der_x509_crl, found[0], where=where, what="revocation list", probe=_touch_list)


def _bodies(data: bytes, ending: str, what: str, where: str) -> list[bytes]:
    """What PEM blocks of a kind encode, one at least; a DER file is one."""
    if data[:1] == b"\x30":
        return [data]
    file = SourceFile(Path(where), data, 0)
    blocks = parse_pem(file)
    found = [block.der for block in blocks if block.label.endswith(ending)]
    if not found:
        raise file.error(f"holds {blocks[0].label} but no {what}; name another file")
    return found


def _parse(
    load: Callable[[bytes], Parsed], data: bytes, *, where: str, what: str, probe: Callable[[Parsed], object]
) -> Parsed:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about certificates that are odd but readable
            parsed = load(data)
            probe(parsed)
    except PARSE_ERRORS as exc:
        raise UsageError(where, f"the {what} {facts.reason(exc)}") from exc
    return parsed


def _touch_request(parsed: x509.CertificateSigningRequest) -> object:
    return parsed.subject.rfc4514_string(), parsed.extensions, parsed.public_key()


def _touch_list(parsed: x509.CertificateRevocationList) -> object:
    return (
        parsed.issuer.rfc4514_string(),
        parsed.extensions,
        parsed.last_update_utc,
        parsed.next_update_utc,
        len(parsed),
    )
