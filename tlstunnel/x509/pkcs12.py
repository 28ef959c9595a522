"""PKCS#12 (RFC 7292): a key, its certificate and others in one file, opened."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12

from tlstunnel.parse_errors import PARSE_ERRORS
from tlstunnel.x509 import certificate as facts
from tlstunnel.x509.cost import check_cost
from tlstunnel.x509.key import decrypt
from tlstunnel.x509.passphrase import PassphraseSource
from tlstunnel.x509.pem import SourceFile, identify, is_cut_short, is_p12


@dataclass(frozen=True, slots=True)
class Opened:
    """What is in the file."""

    key: Any = field(repr=False)
    """None where there is none."""
    certificates: list[x509.Certificate]
    """One at least: the key's own first, if the file says which one that is."""
    name: bytes | None
    """The friendly name."""
    is_encrypted: bool


def open_p12(
    file: SourceFile, secret: SourceFile | None, passphrases: PassphraseSource, *, is_key_needed: bool = True
) -> Opened:
    """Open a PKCS#12 file, without a passphrase if that is enough.

    Args:
        secret: the passphrase file, if one is configured.
        is_key_needed: whether a certificate with a key of a kind that is not known here is an error.

    Raises:
        MaterialError: it is something else or damaged, no passphrase opens it, or it holds no certificate.
    """
    if b"-----BEGIN " in file.data:
        raise file.error("is PEM, not PKCS#12; name it with certificate and key (--cert, --key) instead of p12 (--p12)")
    if not is_p12(file.data) or is_cut_short(file.data):
        raise file.error(identify(file.data, "PKCS#12"))
    check_cost(file, file.data)
    # Many are made without a passphrase, which is written in two ways (appendix B.1); asking for one would be a riddle.
    found = _without_passphrase(file.data)
    is_encrypted = found is None
    if found is None:
        found = decrypt(file, secret, passphrases, partial(_load, file.data))
    bags = ([found.cert] if found.cert else []) + list(found.additional_certs)
    if not bags:
        what = "no certificate" if found.key is None else "a private key but no certificate"
        raise file.error(f"holds {what}; export it with its certificate")
    try:
        ders = [bag.certificate.public_bytes(Encoding.DER) for bag in bags]
        certificates = [facts.load_certificate(der, is_key_needed=is_key_needed) for der in ders]
    except PARSE_ERRORS as exc:
        raise file.error(f"a certificate in it {facts.reason(exc)}") from exc
    return Opened(found.key, certificates, found.cert.friendly_name if found.cert else None, is_encrypted)


def _without_passphrase(data: bytes) -> pkcs12.PKCS12KeyAndCertificates | None:
    for nothing in (None, b""):
        try:
            return _load(data, nothing)
        except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm):
            continue
    return None


def _load(data: bytes, passphrase: bytes | None) -> pkcs12.PKCS12KeyAndCertificates:
    with warnings.catch_warnings():
        # Browsers and Java write BER, which cryptography reads with a sigh.
        warnings.simplefilter("ignore")
        return pkcs12.load_pkcs12(data, passphrase)
