"""Certificates as text and facts: parsed whole, so that nothing in them can fail later, and put in order."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from tlstunnel.x509.pem import Block, SourceFile, printable

MAX_CHAIN = 32
"""More certificates than any chain has; a file with more is a CA bundle in the wrong place."""

_WEAK_DIGESTS = {"md5": "MD5", "sha1": "SHA-1"}
_MUST_STAPLE = x509.TLSFeatureType.status_request
# What cryptography raises for DER that is not what it claims to be; x509 has errors of its own for some extensions.
PARSE_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Names:
    """What a certificate is for."""

    dns: tuple[str, ...] = ()
    ip: tuple[str, ...] = ()
    others: int = 0
    """How many names of other kinds (URI, e-mail) there are."""
    common: str = ""
    """The subject's common name, which counts only for people."""

    @property
    def has_san(self) -> bool:
        return bool(self.dns or self.ip or self.others)


def load_certificate(der: bytes) -> x509.Certificate:
    """Parse a certificate and everything in it that is looked at later; parsing is lazy in cryptography.

    Raises:
        one of PARSE_ERRORS: it is damaged, or not a certificate.
    """
    with warnings.catch_warnings():
        # Deprecations of odd certificates are no concern of the operator; what matters is judged below.
        warnings.simplefilter("ignore")
        certificate = x509.load_der_x509_certificate(der)
        certificate.public_key()
        subject(certificate)
        names(certificate)
        issuer(certificate)
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.serial_number
        _ = certificate.signature_algorithm_oid
    return certificate


def load_certificates(file: SourceFile, blocks: Sequence[Block]) -> list[x509.Certificate]:
    """The certificates among the blocks of a file.

    Raises:
        MaterialError: one is damaged; the message gives its line.
    """
    loaded = []
    for block in blocks:
        if block.is_certificate:
            try:
                loaded.append(load_certificate(block.der))
            except PARSE_ERRORS as exc:
                raise file.error(f"line {block.line}: {block.label} {reason(exc)}") from exc
    return loaded


def no_certificate(blocks: Sequence[Block]) -> str:
    """What a file without a certificate holds instead."""
    label = blocks[0].label
    if any(block.is_key for block in blocks):
        return "holds a private key but no certificate; are certificate and key swapped?"
    if "REQUEST" in label:
        return "holds a certificate request; the certificate is what the CA made of it"
    if label in ("PKCS7", "CMS"):
        return "holds PKCS#7; convert it with openssl pkcs7 -print_certs"
    if label == "TRUSTED CERTIFICATE":
        return "holds an OpenSSL TRUSTED CERTIFICATE; convert it with openssl x509"
    return f"holds {label} but no certificate; name another file"


def reason(exc: BaseException) -> str:
    """Why the parser would not have it, for the end of a line."""
    text = printable(" ".join(str(exc).split())).rstrip(".")
    if not text or "parse" in text.lower() or "asn.1" in text.lower():
        return "is damaged; copy it anew"  # the parser's own words name Rust types
    return f"cannot be used; {text[:1].lower()}{text[1:]}"


def subject(certificate: x509.Certificate) -> str:
    """The subject as RFC 4514 text."""
    return printable(certificate.subject.rfc4514_string())


def issuer(certificate: x509.Certificate | x509.CertificateRevocationList) -> str:
    """The issuer as RFC 4514 text."""
    return printable(certificate.issuer.rfc4514_string())


def label(certificate: x509.Certificate) -> str:
    """How a message calls a certificate: its subject, else a name, else its serial number."""
    if text := subject(certificate):
        return text
    found = names(certificate)
    every = found.dns + found.ip
    return printable(every[0]) if every else f"serial {certificate.serial_number:x}"


def names(certificate: x509.Certificate) -> Names:
    """DNS and IP names (RFC 9525 section 6.1 looks at nothing else), and the common name."""
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    first = common[0].value if common else ""
    text = first if isinstance(first, str) else ""
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return Names(common=text)
    dns = tuple(san.get_values_for_type(x509.DNSName))
    ip = tuple(str(address) for address in san.get_values_for_type(x509.IPAddress))
    return Names(dns, ip, len(san) - len(dns) - len(ip), text)


def is_must_staple(certificate: x509.Certificate) -> bool:
    """Whether a client should insist on a stapled OCSP response (RFC 7633)."""
    try:
        return _MUST_STAPLE in certificate.extensions.get_extension_for_class(x509.TLSFeature).value
    except x509.ExtensionNotFound:
        return False


def access_urls(certificate: x509.Certificate, method: x509.ObjectIdentifier) -> tuple[str, ...]:
    """URLs of the authority information access extension (RFC 5280 section 4.2.2.1)."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound:
        return ()
    places = (entry.access_location for entry in found if entry.access_method == method)
    return tuple(place.value for place in places if isinstance(place, x509.UniformResourceIdentifier))


def ocsp_responders(certificate: x509.Certificate) -> tuple[str, ...]:
    """Where the status of the certificate can be asked for."""
    return access_urls(certificate, AuthorityInformationAccessOID.OCSP)


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether the certificate may sign others, by its basic constraints."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def is_self_issued(certificate: x509.Certificate) -> bool:
    """Whether subject and issuer are the same, as in roots and self-signed certificates."""
    return certificate.subject == certificate.issuer


def signature_digest(certificate: x509.Certificate) -> str:
    """The digest under the certificate's signature, `""` where the algorithm has its own, `"?"` if it is unknown."""
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return "?"
    return algorithm.name if algorithm is not None else ""


def weak_digest(certificate: x509.Certificate) -> str | None:
    """MD5 or SHA-1, if signed with it. A self-signed certificate's own signature proves nothing and is not judged."""
    return None if is_self_issued(certificate) else _WEAK_DIGESTS.get(signature_digest(certificate))


def issued(parent: x509.Certificate, child: x509.Certificate) -> bool:
    """Whether `parent` signed `child`; of a signature that cannot be checked, the names are believed."""
    if parent.subject != child.issuer:
        return False
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature):
        return signature_digest(child) == "?"
    return True


def order_chain(
    leaf: x509.Certificate, others: Sequence[x509.Certificate]
) -> tuple[list[x509.Certificate], list[x509.Certificate]]:
    """Put the issuers of `leaf` after it, each after what it issued; return them and what does not belong.

    RFC 8446 section 4.4.2 wants the leaf first and would like each certificate to certify the one before; where
    cross-signed issuers make several paths, each path follows in file order.
    """
    chain: list[x509.Certificate] = []
    rest = list(others)
    pending = [leaf]
    while pending:
        child = pending.pop()
        found = [parent for parent in rest if issued(parent, child)]
        rest = [parent for parent in rest if parent not in found]
        if child is not leaf:
            chain.append(child)
        pending += reversed(found)
    return chain, rest


def utc(moment: datetime) -> str:
    """A moment for people: `2026-11-20 12:00 UTC`."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"
