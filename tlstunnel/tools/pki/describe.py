"""What a certificate, request, revocation list or key says, as plain values for people and for JSON."""

from __future__ import annotations

import contextlib
import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from tlstunnel import lifetime
from tlstunnel.errors import printable
from tlstunnel.parse_errors import PARSE_ERRORS
from tlstunnel.tools.pki import chain, index, keys, names, profile
from tlstunnel.x509.certificate import extension, is_ca, ocsp_responders, serial, signature_digest, weak_digest
from tlstunnel.x509.key import key_type, pin

_USES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "server",
    ExtendedKeyUsageOID.CLIENT_AUTH: "client",
    ExtendedKeyUsageOID.CODE_SIGNING: "code signing",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "email",
    ExtendedKeyUsageOID.TIME_STAMPING: "time stamping",
    ExtendedKeyUsageOID.OCSP_SIGNING: "ocsp signing",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "any",
}
_KEY_USAGES = {
    "digital_signature": "digital signature",
    "content_commitment": "content commitment",
    "key_encipherment": "key encipherment",
    "data_encipherment": "data encipherment",
    "key_agreement": "key agreement",
    "key_cert_sign": "certificate signing",
    "crl_sign": "CRL signing",
}
Facts = dict[str, Any]


def certificate(found: x509.Certificate, *, now: datetime.datetime | None = None) -> Facts:
    """Everything `tlstunnel cert show` tells about a certificate, except whether it verifies."""
    when = now or datetime.datetime.now(datetime.UTC)
    facts: Facts = {
        "kind": "certificate",
        "subject": names.text_of(found.subject),
        "issuer": names.text_of(found.issuer),
        "self_signed": found.subject == found.issuer,
        "names": [names.long(name) for name in chain.alternative_names(found)],
        "not_before": _time(found.not_valid_before_utc),
        "not_after": _time(found.not_valid_after_utc),
        "days_left": lifetime.days_left(found.not_valid_after_utc, when),
        "key": key_name(found),
        "signature": signature_name(found),
        "key_usage": _key_usage(found),
        "uses": _uses(found),
        "ca": is_ca(found),
        "path_length": _path_length(found),
        "permitted": [],
        "excluded": [],
        "serial": index.serial_text(serial(found)),
        "sha256": found.fingerprint(hashes.SHA256()).hex(":").upper(),
        "sha1": found.fingerprint(hashes.SHA1()).hex(":").upper(),  # noqa: S303 - many tools still show this one
        "spki_pin": _pin_of(found),
        "crl_urls": _crl_urls(found),
        "ocsp_urls": list(map(printable, ocsp_responders(found))),
    }
    constraints = extension(found, x509.NameConstraints)
    if constraints is not None:
        facts["permitted"] = [names.long(tree) for tree in constraints.permitted_subtrees or ()]
        facts["excluded"] = [names.long(tree) for tree in constraints.excluded_subtrees or ()]
    facts["remarks"] = remarks(found, when)
    return facts


def request(found: x509.CertificateSigningRequest) -> Facts:
    """What a certificate request asks for."""
    public_key: Any = found.public_key()
    return {
        "kind": "request",
        "subject": names.text_of(found.subject),
        "names": [names.long(name) for name in extension(found, x509.SubjectAlternativeName) or ()],
        "uses": _uses(found),
        "key": key_type(public_key),
        "signature": "good" if _signed(found) else "bad",
        "spki_pin": pin(public_key),
    }


def revocation_list(found: x509.CertificateRevocationList, *, now: datetime.datetime | None = None) -> Facts:
    """Who a revocation list is by, how old it is, what it revokes."""
    when = now or datetime.datetime.now(datetime.UTC)
    next_update = found.next_update_utc
    number = extension(found, x509.CRLNumber)
    revoked = []
    for entry in found:
        reason = None
        with contextlib.suppress(*PARSE_ERRORS):
            reason = extension(entry, x509.CRLReason)
        revoked.append(
            {
                "serial": index.serial_text(entry.serial_number),
                "date": _time(entry.revocation_date_utc),
                "reason": "unspecified" if reason is None else reason.reason.value,
            }
        )
    return {
        "kind": "revocation list",
        "issuer": names.text_of(found.issuer),
        "number": None if number is None else number.crl_number,
        "this_update": _time(found.last_update_utc),
        "next_update": None if next_update is None else _time(next_update),
        "days_left": None if next_update is None else lifetime.days_left(next_update, when),
        "revoked": revoked,
        "remarks": ["past its next update; verifiers that use it refuse every certificate"]
        if next_update is not None and next_update < when
        else [],
    }


def private_key(found: keys.PrivateKey, *, encrypted: bool) -> Facts:
    """What may be said about a private key: its kind, and the pin of its public half."""
    return {
        "kind": "private key",
        "key": key_type(found),
        "encrypted": encrypted,
        "spki_pin": pin(found.public_key()),
    }


def _pin_of(found: x509.Certificate) -> str | None:
    """The pin of a certificate's key; None if this build cannot read it."""
    try:
        return pin(found.public_key())
    except UnsupportedAlgorithm:
        return None


def key_name(found: x509.Certificate) -> str:
    """The kind of a certificate's key; its object identifier if this build cannot read it."""
    try:
        return key_type(found.public_key())
    except UnsupportedAlgorithm:
        return f"unknown ({found.public_key_algorithm_oid.dotted_string})"


def signature_name(found: x509.Certificate) -> str:
    """`ECDSA with SHA-256`, `RSA with SHA-1`, `Ed25519`."""
    kinds = {
        "1.2.840.10045.4": "ECDSA",
        "1.2.840.113549.1.1.10": "RSA-PSS",
        "1.2.840.113549.1.1": "RSA",
        "1.3.101.112": "Ed25519",
        "1.3.101.113": "Ed448",
        "2.16.840.1.101.3.4.3.17": "ML-DSA-44",
        "2.16.840.1.101.3.4.3.18": "ML-DSA-65",
        "2.16.840.1.101.3.4.3.19": "ML-DSA-87",
    }
    dotted = found.signature_algorithm_oid.dotted_string
    kind = next((name for prefix, name in kinds.items() if (dotted + ".").startswith(prefix + ".")), dotted)
    used = signature_digest(found)
    return kind if used in ("", "?") else f"{kind} with {used.upper().replace('SHA', 'SHA-')}"


def remarks(found: x509.Certificate, when: datetime.datetime) -> list[str]:
    """What an operator should know about this certificate by itself."""
    said = []
    if when > found.not_valid_after_utc:
        said.append("expired; renew it")
    elif lifetime.urgency(found.not_valid_before_utc, found.not_valid_after_utc, when) is not lifetime.Urgency.NONE:
        said.append(f"expires in {lifetime.span(found.not_valid_after_utc - when)}; renew it")
    if when < found.not_valid_before_utc:
        said.append("not valid yet; check the clock here and where it was made")
    if not is_ca(found) and not chain.alternative_names(found):
        said.append("no alternative names; clients ignore the common name and refuse it")
    try:
        weakness = keys.weakness(found.public_key())
    except UnsupportedAlgorithm:
        weakness = "a kind of key this build cannot use; use ECDSA P-256"
    if weakness is not None:
        said.append(f"its key: {weakness}")
    if weak_digest(found) is not None:
        said.append("signed with a broken hash; have it issued again")
    return said


def _uses(found: x509.Certificate | x509.CertificateSigningRequest) -> list[str]:
    usage = extension(found, x509.ExtendedKeyUsage)
    return [_USES.get(oid, oid.dotted_string) for oid in usage or ()]


def _key_usage(found: x509.Certificate) -> list[str]:
    usage = extension(found, x509.KeyUsage)
    return [] if usage is None else [text for attribute, text in _KEY_USAGES.items() if getattr(usage, attribute)]


def _path_length(found: x509.Certificate) -> int | None:
    basic = extension(found, x509.BasicConstraints)
    return None if basic is None else basic.path_length


def _crl_urls(found: x509.Certificate) -> list[str]:
    points = extension(found, x509.CRLDistributionPoints)
    return [names.short(name) for point in points or () for name in point.full_name or ()]


def _signed(found: x509.CertificateSigningRequest) -> bool:
    try:
        return found.is_signature_valid
    except (UnsupportedAlgorithm, ValueError, TypeError):
        return False


def _time(when: datetime.datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def use_of(found: x509.Certificate) -> profile.Use:
    """Whether to look at a certificate as a client's or as a server's."""
    uses = _uses(found)
    return profile.Use.CLIENT if "client" in uses and "server" not in uses else profile.Use.SERVER
