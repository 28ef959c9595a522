"""Revocation: marking a certificate in the index, and the list that tells verifiers (RFC 5280 section 5)."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tlstunnel.errors import UsageError
from tlstunnel.tools.pki import authority, files, index, keys, profile, readers
from tlstunnel.tools.pki.authority import Authority
from tlstunnel.x509 import certificate as facts

CRL_DAYS = 30
"""A verifier that is given a list refuses every certificate once the list is past its next update."""


def revoke(ca: Authority, serial: int, *, reason: str = "unspecified", days: int = CRL_DAYS) -> index.Entry:
    """Revoke a certificate and publish a new list in the CA's folder.

    A crash in between leaves the certificate revoked in the index and the old list in place; `crl` then heals it.

    Raises:
        UsageError: the CA did not issue it, it is revoked already, or the reason is unknown.
        StartupError: a file cannot be written.
    """
    if reason not in index.REASONS:
        known = ", ".join(sorted(index.REASONS))
        raise UsageError("--reason", f'"{reason}" is no reason; write one of {known}')
    path = ca.folder / "index.txt"
    with authority.locked(ca.folder):
        entries = index.load(path)
        position = next((i for i, entry in enumerate(entries) if entry.serial == serial), None)
        if position is None:
            raise UsageError(
                str(ca.folder), f"issued no certificate with serial {index.serial_text(serial)}; see {path}"
            )
        found = entries[position]
        if found.revoked_at is not None:
            what = f"serial {index.serial_text(serial)} was revoked on {found.revoked_at:%Y-%m-%d}; nothing to do"
            raise UsageError(str(ca.folder), what)
        entries[position] = index.revoked(found, _now(), reason)
        index.store(path, entries)
        _publish(ca, entries, days)
    return entries[position]


def publish(ca: Authority, *, days: int = CRL_DAYS) -> tuple[Path, int]:
    """Write a new list; returns its path and how many certificates it names.

    Raises:
        UsageError: the lifetime is not sane, or the index is damaged.
        StartupError: a file cannot be written.
    """
    with authority.locked(ca.folder):
        entries = index.load(ca.folder / "index.txt")
        return _publish(ca, entries, days), sum(entry.revoked_at is not None for entry in entries)


def serial_of(text: str, ca: Authority) -> int:
    """The serial number meant by a certificate's file or by hexadecimal digits, with or without colons.

    Raises:
        UsageError: it is neither, a file that cannot be read, or another CA issued the certificate in the file.
    """
    path = Path(text)
    if "." in text or "/" in text or (text and os.path.exists(path)):
        certificate = readers.load_certificates(path)[0]
        if certificate.issuer != ca.certificate.subject:
            raise UsageError(text, f"not issued by the CA in {ca.folder}; name the folder of the CA that issued it")
        return facts.serial(certificate)
    digits = text.replace(":", "").removeprefix("0x")
    try:
        return int(digits, 16) if len(digits) <= 40 and digits.isalnum() else _neither(text)
    except ValueError:
        return _neither(text)


def _neither(text: str) -> int:
    raise UsageError(text, "neither a file nor a serial number; write the path of a certificate, or its serial in hex")


def _publish(ca: Authority, entries: list[index.Entry], days: int) -> Path:
    dates = profile.validity(days)
    path = ca.folder / "crl.pem"
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.certificate.subject)
        .last_update(_now())
        .next_update(dates.not_after)
        .add_extension(profile.authority_key_identifier(ca.certificate), critical=False)
        .add_extension(x509.CRLNumber(_next_number(path)), critical=False)
    )
    for entry in entries:
        if entry.revoked_at is not None:
            builder = builder.add_revoked_certificate(_revoked(entry, entry.revoked_at))
    made = builder.sign(ca.key, keys.signature_hash(ca.key))
    files.write(path, made.public_bytes(Encoding.PEM), secret=False, replace=True)
    return path


def _revoked(entry: index.Entry, when: datetime.datetime) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder().serial_number(entry.serial).revocation_date(when)
    if entry.reason != "unspecified":  # section 5.3.1: then the extension should be absent
        builder = builder.add_extension(x509.CRLReason(index.REASONS[entry.reason]), critical=False)
    return builder.build()


def _next_number(path: Path) -> int:
    # Numbers must grow (section 5.2.3). The time does, and survives the loss of the last list; one second may see two.
    number = int(time.time())
    if not path.exists():
        return number
    try:
        last = readers.revocation_lists(files.read(path, limit=index.MAX_INDEX_BYTES), where=str(path))[0]
    except UsageError:
        return number  # damaged: it is about to be replaced
    before = facts.extension(last, x509.CRLNumber)
    return number if before is None else max(number, before.crl_number + 1)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)
