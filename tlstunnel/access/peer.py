"""Who a certificate says its holder is, as a value that access rules are decided on.

What is checked here and what is not. OpenSSL has verified the certificate before anyone asks: the chain to a trusted
CA, the dates, the purpose, unknown critical extensions (refused), and by its security level the size of keys and the
hash of signatures (refused when weak). None of that is repeated. A certificate that is itself a CA is accepted as a
peer's, since `openssl req -x509` makes such certificates and whoever holds a CA's key can issue itself any other;
`Identity.is_ca` tells.

Refused here is what could be read in two ways. A character that does not print (NUL, line ends, marks of direction) is
where parsers written in C and people reading logs see different names; so one in a common name, organizational unit or
subject alternative name makes the whole certificate unusable, even if the rules would never look at it. The same holds
for alternative names that are not ASCII, which RFC 5280 does not allow. Names are otherwise taken as they are: nothing
is normalized, so two names that look alike are equal only if every code point is. DNS names, and the domain of an
e-mail address, are put in lower case.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import warnings
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address

from cryptography import x509
from cryptography.x509.oid import NameOID

from tlstunnel.outcome import CloseReason
from tlstunnel.parse_errors import PARSE_ERRORS

MAX_TEXT = 128
"""How many characters of a name are shown; the escapes of the last one may go a little over."""

MAX_CLAIM = 4 * 1024
"""Bytes of a refused certificate that is read: twice what ordinary ones have, and about a millisecond at worst."""

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/@*+=%,&#!?")


class UnusableCertificateError(ValueError):
    """A certificate from which no identity can be taken; the text says why and holds nothing of the certificate."""

    close_reason = CloseReason.BAD_CERTIFICATE


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Identity:
    """What a verified certificate says. Names are in the certificate's order, and a kind may be empty."""

    common_names: tuple[str, ...]
    """Every CN of the subject. There should be one at most; rules that allow want exactly one."""
    organizational_units: tuple[str, ...]
    """Every OU of the subject."""
    dns_names: tuple[str, ...]
    """In lower case. A wildcard (`*.example.org`) is kept as the text it is."""
    uris: tuple[str, ...]
    ip_addresses: tuple[IPv4Address | IPv6Address, ...]
    emails: tuple[str, ...]
    """With the domain in lower case."""
    spki_pin: str
    """`sha256:` and the base64 of the SHA-256 of the SubjectPublicKeyInfo, as in RFC 7469 section 2.4."""
    fingerprint: str
    """Hexadecimal SHA-256 of the certificate."""
    serial: int
    subject: str
    """For people, by RFC 4514; what is not printable ASCII is escaped. May be empty."""
    issuer: str
    """The same of the issuer."""
    not_before: datetime
    """In UTC, aware."""
    not_after: datetime
    """In UTC, aware."""
    is_ca: bool

    def __str__(self) -> str:
        """The most telling name, short and safe for any log: `uri=spiffe://example.org/billing`, `cn="a b"`."""
        for kind, values in (
            ("uri", self.uris),
            ("cn", self.common_names),
            ("dns", self.dns_names),
            ("email", self.emails),
            ("ip", self.ip_addresses),
            ("ou", self.organizational_units),
        ):
            if values:
                more = f" (+{len(values) - 1})" if len(values) > 1 else ""
                return f"{kind}={printable(str(values[0]))}{more}"
        return f"sha256={self.fingerprint[:32]}"

    def __repr__(self) -> str:
        return f"<Identity {self} sha256={self.fingerprint[:16]}>"


# Clients come back with the certificate they had: 65 µs the first time, 1 µs again. 128 ordinary identities take
# 300 KiB; the 100 KiB that OpenSSL lets through as certificates bound the worst.
@functools.lru_cache(maxsize=128)
def identity(certificate_der: bytes) -> Identity:
    """Take the identity out of a certificate that OpenSSL has verified.

    Raises:
        UnusableCertificateError: it cannot be parsed, or a name in it could be taken for another.
    """
    # cryptography warns about certificates it dislikes; what a stranger sends must not write to our stderr.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _identity(certificate_der)
        except UnusableCertificateError:
            raise
        except PARSE_ERRORS as exc:
            raise UnusableCertificateError("certificate cannot be parsed") from exc


def claim(certificate_der: bytes) -> str:
    """Whose a certificate says it is that OpenSSL has refused: for the log, and for no decision.

    Anybody can make one with any name. So what is big is not read, since strangers must not cost us more than clients
    do, and nothing is remembered: they could make us forget those who come back.
    """
    if len(certificate_der) <= MAX_CLAIM:
        try:
            return str(identity.__wrapped__(certificate_der))
        except UnusableCertificateError:
            pass  # its names are not fit to be shown
    return f"sha256={hashlib.sha256(certificate_der).hexdigest()[:32]}"


def printable(text: str) -> str:
    """A stranger's text made safe for one line of a log, and short.

    Letters, digits and what addresses are made of stay as they are. Anything else is put in double quotes, where quotes
    and backslashes are escaped, and so is everything outside ASCII: letters that look alike are told apart, and nothing
    moves a terminal's cursor.
    """
    shown = text[:MAX_TEXT]
    dots = "..." if len(text) > MAX_TEXT else ""
    if shown and _PLAIN.issuperset(shown):
        return shown + dots
    quoted = _escaped(shown.replace("\\", "\\\\").replace('"', '\\"'))
    return f'"{quoted}"{dots}'


def _identity(der: bytes) -> Identity:
    certificate = x509.load_der_x509_certificate(der)
    subject = certificate.subject
    names: x509.SubjectAlternativeName | tuple[()] = ()
    is_ca = False
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names = extension.value
        elif isinstance(extension.value, x509.BasicConstraints):
            is_ca = extension.value.ca

    dns_names: list[str] = []
    uris: list[str] = []
    emails: list[str] = []
    ip_addresses: list[IPv4Address | IPv6Address] = []
    for name in names:
        if isinstance(name, x509.DNSName):
            dns_names.append(_checked(name.value, "DNS name").lower())
        elif isinstance(name, x509.UniformResourceIdentifier):
            uris.append(_checked(name.value, "URI"))
        elif isinstance(name, x509.RFC822Name):
            local, at, domain = _checked(name.value, "e-mail address").rpartition("@")
            emails.append(local + at + domain.lower())
        elif isinstance(name, x509.IPAddress):
            if not isinstance(
                name.value, IPv4Address | IPv6Address
            ):  # 8 or 32 bytes are a network, for name constraints
                raise UnusableCertificateError("IP address in the certificate is a network")
            ip_addresses.append(name.value)

    return Identity(
        common_names=_attributes(subject, NameOID.COMMON_NAME, "common name"),
        organizational_units=_attributes(subject, NameOID.ORGANIZATIONAL_UNIT_NAME, "organizational unit"),
        dns_names=tuple(dns_names),
        uris=tuple(uris),
        ip_addresses=tuple(ip_addresses),
        emails=tuple(emails),
        spki_pin=f"sha256:{base64.b64encode(hashlib.sha256(_spki(certificate)).digest()).decode('ascii')}",
        fingerprint=hashlib.sha256(der).hexdigest(),
        serial=certificate.serial_number,
        subject=_escaped(subject.rfc4514_string()),
        issuer=_escaped(certificate.issuer.rfc4514_string()),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        is_ca=is_ca,
    )


def _attributes(name: x509.Name, oid: x509.ObjectIdentifier, what: str) -> tuple[str, ...]:
    values = []
    for attribute in name.get_attributes_for_oid(oid):
        if not isinstance(attribute.value, str) or not attribute.value.isprintable():
            raise UnusableCertificateError(f"{what} in the certificate holds a character that does not print")
        values.append(attribute.value)
    return tuple(values)


def _checked(text: str, what: str) -> str:
    if not text.isascii():
        raise UnusableCertificateError(f"{what} in the certificate is not ASCII")
    if not text.isprintable():
        raise UnusableCertificateError(f"{what} in the certificate holds a character that does not print")
    return text


def _escaped(text: str) -> str:
    """Text with everything but printable ASCII written as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if " " <= one <= "~" else one.encode("unicode_escape").decode("ascii") for one in text)


def _spki(certificate: x509.Certificate) -> bytes:
    """The SubjectPublicKeyInfo, byte for byte as it stands in the certificate.

    Loading the key and encoding it again would fail for kinds of keys that cryptography does not know, and need not
    give the same bytes. It is the seventh field of TBSCertificate, or the sixth where the version is left out (RFC 5280
    section 4.1), and cryptography has already checked that the fields are there.
    """
    fields = certificate.tbs_certificate_bytes
    at, _ = _content(fields, 0)
    preceding = 6 if fields[at] == 0xA0 else 5
    for _ in range(preceding):
        _, at = _content(fields, at)
    _, end = _content(fields, at)
    return fields[at:end]


def _content(data: bytes, at: int) -> tuple[int, int]:
    """Where the content of the DER element at a position begins and ends."""
    size = data[at + 1]
    if size < 0x80:
        return at + 2, at + 2 + size
    start = at + 2 + (size & 0x7F)
    return start, start + int.from_bytes(data[at + 2 : start], "big")
