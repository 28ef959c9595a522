"""What goes into a certificate, for each of the uses we issue for (RFC 5280 section 4).

Theory of operation. A certificate that one library accepts and another refuses is worse than none, so each profile is
the intersection of what `openssl verify -x509_strict`, NSS, GnuTLS and `cryptography`'s verifier demand:

- serial numbers are 159 random bits; dates are whole seconds; the subject key identifier is the hash of the key
  (section 4.2.1.2) and the authority key identifier repeats the issuer's own, whatever method made that;
- a CA has critical basicConstraints and a critical keyUsage of keyCertSign and cRLSign, nothing else;
- a leaf has basicConstraints CA:FALSE, keyUsage digitalSignature alone (all our key exchanges are ephemeral, so keys
  only ever sign; but an RSA server also has keyEncipherment, without which NSS refuses it), the extended key usage of
  its one purpose, and always a subjectAltName; a common name repeats one of the names and is never the only place of
  it. If there is no subject at all the subjectAltName is critical.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tlstunnel import lifetime
from tlstunnel.errors import UsageError, printable
from tlstunnel.tools.pki import keys, names
from tlstunnel.x509.certificate import extension

CA_DAYS = 3650
LEAF_DAYS = 90
BACKDATED = datetime.timedelta(hours=1)
"""A verifier whose clock is behind would otherwise refuse a certificate that was just made."""

_LATEST = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


class Use(enum.StrEnum):
    """The one purpose of a leaf."""

    SERVER = "server"
    CLIENT = "client"

    @property
    def oid(self) -> x509.ObjectIdentifier:
        """Its extended key usage."""
        return ExtendedKeyUsageOID.SERVER_AUTH if self is Use.SERVER else ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when, in UTC."""

    not_before: datetime.datetime
    not_after: datetime.datetime


@dataclass(frozen=True, slots=True)
class Leaf:
    """Everything that is decided about a leaf before its key and issuer are known."""

    subject: x509.Name
    names: tuple[x509.GeneralName, ...]
    use: Use
    crl_url: str | None = None


@dataclass(frozen=True, slots=True)
class Subtrees:
    """Name constraints of a CA (RFC 5280 section 4.2.1.10)."""

    permitted: tuple[x509.GeneralName, ...] = ()
    excluded: tuple[x509.GeneralName, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.permitted or self.excluded)


def validity(days: int, *, issuer: x509.Certificate | None = None, where: str = "--days") -> Validity:
    """From an hour ago until `days` days from now, in whole seconds, within the issuer's own dates.

    Raises:
        UsageError: the issuer has expired or would expire earlier, or the days are not sane.
    """
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    if days < 1:
        raise UsageError(where, f'"{days}" is no lifetime; write a number of days from 1 on')
    try:
        end = now + datetime.timedelta(days=days)
    except OverflowError:
        end = _LATEST
    if end >= _LATEST:
        raise UsageError(where, f'"{days}" days end after the year 9999; write fewer')
    start = now - BACKDATED
    if issuer is not None:
        if issuer.not_valid_after_utc <= now:
            raise UsageError(where, f"the CA expired on {issuer.not_valid_after_utc:%Y-%m-%d}; renew it first")
        if issuer.not_valid_after_utc < end:
            left = days_left(issuer)
            raise UsageError(
                where, f"{days} days outlive the CA, which has {left} left; write fewer, or renew the CA first"
            )
        start = max(start, issuer.not_valid_before_utc)
    return Validity(start, end)


def days_left(certificate: x509.Certificate) -> int:
    """Whole days until a certificate expires; negative once it has."""
    return lifetime.days_left(certificate.not_valid_after_utc, datetime.datetime.now(datetime.UTC))


def server(
    texts: Iterable[str],
    *,
    uris: Iterable[str] = (),
    dns: Iterable[str] = (),
    emails: Iterable[str] = (),
    crl_url: str | None = None,
    where: str = "--server",
) -> Leaf:
    """A TLS server's certificate; its common name is the first host name that fits. Its names are `texts`, whose form
    says what they are, and then the others.

    Raises:
        UsageError: a name is none, or there is none.
    """
    found = tuple(dict.fromkeys((*names.parse(texts, where=where), *_others(uris, dns, emails))))
    hosts = [names.short(name) for name in found if isinstance(name, x509.DNSName | x509.IPAddress)]
    if not hosts:
        raise UsageError(where, "clients look for a host name or IP address; add the one they connect to")
    fitting = next((host for host in hosts if len(host) <= names.MAX_COMMON_NAME), None)
    return Leaf(names.subject(fitting, where=where), found, Use.SERVER, _crl_url(crl_url))


def client(
    name: str,
    *,
    units: str | Iterable[str] | None = None,
    uris: Iterable[str] = (),
    dns: Iterable[str] = (),
    emails: Iterable[str] = (),
    crl_url: str | None = None,
    where: str = "--client",
) -> Leaf:
    """A TLS client's certificate. Its name is the common name; unless there are others, the alternative name too.

    Raises:
        UsageError: a name is wrong, or nothing can be an alternative name.
    """
    units = (units,) if isinstance(units, str) else tuple(units or ())
    subject = names.subject(name, units=units, where=where)
    others = _others(uris, dns, emails)
    if others:
        return Leaf(subject, tuple(dict.fromkeys(others)), Use.CLIENT, _crl_url(crl_url))
    try:
        own = names.parse_one(name, where=where)
    except UsageError as exc:
        what = f'"{printable(name)}" is no host name; add --uri, --dns or --email to identify it'
        raise UsageError(where, what) from exc
    return Leaf(subject, (own,), Use.CLIENT, _crl_url(crl_url))


def _others(uris: Iterable[str], dns: Iterable[str], emails: Iterable[str]) -> tuple[x509.GeneralName, ...]:
    """What the options for one kind of name say, each held to its kind."""
    return (
        *(names.uri(text, where="--uri") for text in uris),
        *(names.dns(text, where="--dns") for text in dns),
        *(names.email(text, where="--email") for text in emails),
    )


def _crl_url(text: str | None) -> str | None:
    return None if text is None else names.uri(text, where="--crl-url").value


def build_leaf(
    leaf: Leaf,
    public_key: keys.PublicKey,
    dates: Validity,
    *,
    issuer: x509.Certificate | None,
    issuer_key: keys.PrivateKey,
) -> x509.Certificate:
    """Make and sign a leaf; without an issuer it is self-signed."""
    builder = begin(leaf.subject, public_key, dates, issuer)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    enciphers = leaf.use is Use.SERVER and isinstance(public_key, rsa.RSAPublicKey)
    builder = builder.add_extension(_key_usage(digital_signature=True, key_encipherment=enciphers), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([leaf.use.oid]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(leaf.names), critical=not list(leaf.subject))
    if leaf.crl_url is not None:
        builder = builder.add_extension(crl_distribution_points(leaf.crl_url), critical=False)
    return builder.sign(issuer_key, keys.signature_hash(issuer_key))


def build_ca(
    subject: x509.Name,
    public_key: keys.PublicKey,
    dates: Validity,
    *,
    issuer: x509.Certificate | None,
    issuer_key: keys.PrivateKey,
    path_length: int | None,
    subtrees: Subtrees,
) -> x509.Certificate:
    """Make and sign a CA; without an issuer it is a root."""
    builder = begin(subject, public_key, dates, issuer)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    builder = builder.add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    if subtrees:
        constraints = x509.NameConstraints(subtrees.permitted or None, subtrees.excluded or None)
        builder = builder.add_extension(constraints, critical=True)
    return builder.sign(issuer_key, keys.signature_hash(issuer_key))


def crl_distribution_points(url: str) -> x509.CRLDistributionPoints:
    """Where verifiers that fetch find this CA's revocation list (RFC 5280 section 4.2.1.13)."""
    name = x509.UniformResourceIdentifier(url)
    return x509.CRLDistributionPoints([x509.DistributionPoint([name], None, None, None)])


def authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The issuer's own subject key identifier, or the hash of its key if it has none."""
    own = extension(issuer, x509.SubjectKeyIdentifier)
    if own is None:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def begin(
    subject: x509.Name, public_key: keys.PublicKey, dates: Validity, issuer: x509.Certificate | None
) -> x509.CertificateBuilder:
    """What every certificate has in common; without an issuer it is its own."""
    key_identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
    if issuer is None:
        authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_identifier)
    else:
        authority = authority_key_identifier(issuer)
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(public_key)
        .not_valid_before(dates.not_before)
        .not_valid_after(dates.not_after)
        .add_extension(key_identifier, critical=False)
        .add_extension(authority, critical=False)
    )


def _key_usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
