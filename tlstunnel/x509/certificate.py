"""Certificates as text and facts: parsed whole, so that nothing in them can fail later, and put in order."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from tlstunnel.parse_errors import PARSE_ERRORS
from tlstunnel.x509.pem import Block, SourceFile, identify, parse_pem, printable

MAX_CHAIN = 32
"""More certificates than any chain has; a file with more is a CA bundle in the wrong place."""

_Kind = TypeVar("_Kind", bound=x509.ExtensionType)
_WEAK_DIGESTS = {"md5": "MD5", "sha1": "SHA-1"}
_MUST_STAPLE = x509.TLSFeatureType.status_request


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


def load_certificate(der: bytes, *, is_key_needed: bool = True) -> x509.Certificate:
    """Parse a certificate and everything in it that is looked at later; parsing is lazy in cryptography.

    Args:
        is_key_needed: whether a key of a kind that is not known here is an error.

    Raises:
        one of PARSE_ERRORS: it is damaged, or not a certificate.
    """
    with warnings.catch_warnings():
        # Deprecations of odd certificates are no concern of the operator; what matters is judged below.
        warnings.simplefilter("ignore")
        certificate = x509.load_der_x509_certificate(der)
        try:
            certificate.public_key()
        except UnsupportedAlgorithm:
            if is_key_needed:
                raise
        subject(certificate)
        names(certificate)
        issuer(certificate)
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.serial_number
        _ = certificate.signature_algorithm_oid
    return certificate


def load_certificates(
    file: SourceFile, blocks: Sequence[Block], *, is_key_needed: bool = True
) -> list[x509.Certificate]:
    """The certificates among the blocks of a file.

    Raises:
        MaterialError: one is damaged; the message gives its line, and which of them it is.
    """
    loaded: list[x509.Certificate] = []
    found = [block for block in blocks if block.is_certificate]
    for number, block in enumerate(found, 1):
        try:
            loaded.append(load_certificate(block.der, is_key_needed=is_key_needed))
        except PARSE_ERRORS as exc:
            which = block.label if len(found) == 1 else f"{block.label} {number} of {len(found)}"
            raise file.error(f"line {block.line}: {which} {reason(exc)}") from exc
    return loaded


def read_certificates(file: SourceFile, *, is_key_needed: bool = True) -> tuple[list[x509.Certificate], list[Block]]:
    """The certificates of a PEM file and all of its blocks, or the one certificate of a DER file.

    Raises:
        MaterialError: there is none, or one is damaged.
    """
    if file.data[:1] == b"0":
        try:
            return [load_certificate(file.data, is_key_needed=is_key_needed)], []
        except PARSE_ERRORS as exc:
            what = identify(file.data)
            if what.startswith("is a certificate in DER"):
                what = f"is a certificate in DER that {reason(exc)}"
            raise file.error(what) from exc
    blocks = parse_pem(file)
    found = load_certificates(file, blocks, is_key_needed=is_key_needed)
    if not found:
        raise file.error(no_certificate(blocks))
    return found, blocks


def serial(certificate: x509.Certificate) -> int:
    """The serial number, without a word about one that is zero or negative (RFC 5280 section 4.1.2.2 forbids both)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return certificate.serial_number


def no_certificate(blocks: Sequence[Block]) -> str:
    """What a file without a certificate holds instead."""
    label = blocks[0].label
    if any(block.is_key for block in blocks):
        return "holds a private key but no certificate; are certificate and key swapped?"
    if "REQUEST" in label:
        return "holds a certificate request; the certificate is what the CA made of it"
    if label in ("PKCS7", "CMS"):
        return "holds PKCS#7; convert it with openssl pkcs7 -print_certs"
    return f"holds {label} but no certificate; name another file"


def reason(exc: BaseException) -> str:
    """Why the parser would not have it, for the end of a line."""
    text = "" if isinstance(exc, LookupError) else printable(" ".join(str(exc).split())).rstrip(".")
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
    return printable(every[0]) if every else f"serial {serial(certificate):x}"


def extension(
    of: x509.Certificate | x509.CertificateSigningRequest | x509.CertificateRevocationList | x509.RevokedCertificate,
    kind: type[_Kind],
) -> _Kind | None:
    """What an extension of this kind says; None where there is none."""
    try:
        return of.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def names(certificate: x509.Certificate) -> Names:
    """DNS and IP names (RFC 9525 section 6.1 looks at nothing else), and the common name."""
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    first = common[0].value if common else ""
    text = first if isinstance(first, str) else ""
    san = extension(certificate, x509.SubjectAlternativeName)
    if san is None:
        return Names(common=text)
    dns = tuple(san.get_values_for_type(x509.DNSName))
    ip = tuple(str(address) for address in san.get_values_for_type(x509.IPAddress))
    return Names(dns, ip, len(san) - len(dns) - len(ip), text)


def is_must_staple(certificate: x509.Certificate) -> bool:
    """Whether a client should insist on a stapled OCSP response (RFC 7633)."""
    return _MUST_STAPLE in (extension(certificate, x509.TLSFeature) or ())


def access_urls(certificate: x509.Certificate, method: x509.ObjectIdentifier) -> tuple[str, ...]:
    """URLs of the authority information access extension (RFC 5280 section 4.2.2.1)."""
    found = extension(certificate, x509.AuthorityInformationAccess) or ()
    places = (entry.access_location for entry in found if entry.access_method == method)
    return tuple(place.value for place in places if isinstance(place, x509.UniformResourceIdentifier))


def ocsp_responders(certificate: x509.Certificate) -> tuple[str, ...]:
    """Where the status of the certificate can be asked for."""
    return access_urls(certificate, AuthorityInformationAccessOID.OCSP)


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether the certificate may sign others, by its basic constraints."""
    basic = extension(certificate, x509.BasicConstraints)
    return basic is not None and basic.ca


def is_self_issued(certificate: x509.Certificate) -> bool:
    """Whether subject and issuer are the same, as in roots and self-signed certificates."""
    return certificate.subject == certificate.issuer


def signature_digest(certificate: x509.Certificate) -> str:
    """The digest under the certificate's signature, `""` where the algorithm has its own, `"?"` if it is unknown."""
    try:
        algorithm = certificate.signature_hash_algorithm
    except (UnsupportedAlgorithm, ValueError):
        return "?"
    return algorithm.name if algorithm is not None else ""


def weak_digest(certificate: x509.Certificate) -> str | None:
    """MD5 or SHA-1, if signed with it. A self-signed certificate's own signature proves nothing and is not judged."""
    return None if is_self_issued(certificate) else _WEAK_DIGESTS.get(signature_digest(certificate))


def issued(parent: x509.Certificate, child: x509.Certificate) -> bool:
    """Whether `parent` signed `child`; of a signature that cannot be checked, the names are believed."""
    if parent.subject != child.issuer:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if signature_digest(child) in _WEAK_DIGESTS:
                _verify_weak(parent.public_key(), child)  # which the library refuses to look at
            else:
                child.verify_directly_issued_by(parent)
        except InvalidSignature:
            return False
        except (ValueError, TypeError, UnsupportedAlgorithm):
            return signature_digest(child) == "?"
    return True


def _verify_weak(key: object, child: x509.Certificate) -> None:
    digest = child.signature_hash_algorithm
    assert digest is not None  # noqa: S101 - that is how it came here
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(child.signature, child.tbs_certificate_bytes, padding.PKCS1v15(), digest)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(child.signature, child.tbs_certificate_bytes, ec.ECDSA(digest))
    else:
        raise InvalidSignature


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
