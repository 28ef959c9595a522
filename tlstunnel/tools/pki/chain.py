"""Does a certificate chain to a trusted one, and if not, why not (RFC 5280 section 6)?

This is for people who look at a certificate. It walks from the leaf upwards and names each reason it finds, where a
verifier says no more than "no". It decides nothing about a connection: there OpenSSL's verifier does. It leaves out
certificate policies, name constraints on kinds of names that TLS does not use, and revocation.

`strict_opinion` asks a second verifier, the one of `cryptography`, which also applies the rules of the public web
(CA/Browser Forum), and gives its objection in its own words.
"""

from __future__ import annotations

import datetime
import ipaddress
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519
from cryptography.x509 import verification

from tlstunnel.tools.pki import authority, constraints, keys, names
from tlstunnel.tools.pki.profile import Use
from tlstunnel.x509 import certificate as facts
from tlstunnel.x509 import trust

MAX_DEPTH = 10
MAX_SIGNATURE_CHECKS = 100
"""A file of cross-signed CAs must not make us try every path through it."""

_NOT_ON_THE_WEB = (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)
_KNOWN_CRITICAL = {
    x509.BasicConstraints.oid,
    x509.KeyUsage.oid,
    x509.ExtendedKeyUsage.oid,
    x509.SubjectAlternativeName.oid,
    x509.NameConstraints.oid,
    x509.CertificatePolicies.oid,
    x509.PolicyConstraints.oid,
    x509.InhibitAnyPolicy.oid,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the walk."""

    path: tuple[x509.Certificate, ...]
    """From the leaf upwards, as far as it was found."""
    trusted: bool
    """Whether its last certificate is one of the trusted ones."""
    problems: tuple[str, ...]

    @property
    def verifies(self) -> bool:
        """Whether the chain is complete and without fault."""
        return self.trusted and not self.problems


def load_trust(path: Path | None) -> tuple[str | None, tuple[x509.Certificate, ...]]:
    """The CAs to verify against, and where they are from: a file, a folder, or None for what this machine trusts.

    Raises:
        MaterialError: they cannot be read.
    """
    if path is None and not trust.has_system_ca():
        return None, ()
    bundle = trust.load_ca(path) if path is not None else trust.load_system_ca()
    return bundle.source, tuple(facts.load_certificate(der) for der in bundle.certificates_der)


def verify(
    leaf: x509.Certificate,
    others: Iterable[x509.Certificate],
    anchors: Iterable[x509.Certificate],
    *,
    host: str | None = None,
    now: datetime.datetime | None = None,
) -> Verdict:
    """Walk from a leaf to a trusted certificate, by way of `others`.

    Args:
        host: Also check that the leaf is for this host name or IP address.
        now: The time to verify at.
    """
    when = now or datetime.datetime.now(datetime.UTC)
    walk = _Walk(tuple(others), tuple(anchors))
    path, trusted = walk.path_from(leaf)
    problems = [problem for place, found in enumerate(path) for problem in _problems_of(found, place, path, when)]
    if not trusted:
        problems.append(_why_untrusted(path[-1], walk))
    if host is not None and not matches(leaf, host):
        problems.append(f'not for "{names.printable(host)}": its names are {", ".join(_texts(leaf)) or "none"}')
    return Verdict(path, trusted, tuple(dict.fromkeys(problems)))


class _Walk:
    """Finds a path by names and signatures; prefers trusted issuers, then valid ones."""

    def __init__(self, others: tuple[x509.Certificate, ...], anchors: tuple[x509.Certificate, ...]) -> None:
        self._anchors = set(anchors)
        self._by_subject: dict[x509.Name, list[x509.Certificate]] = {}
        for candidate in dict.fromkeys(anchors + others):
            self._by_subject.setdefault(candidate.subject, []).append(candidate)
        self._checks_left = MAX_SIGNATURE_CHECKS
        self.bad_signature = False

    def path_from(self, leaf: x509.Certificate) -> tuple[tuple[x509.Certificate, ...], bool]:
        best: tuple[x509.Certificate, ...] = (leaf,)
        pending: list[tuple[x509.Certificate, ...]] = [(leaf,)]
        while pending:
            path = pending.pop()
            if path[-1] in self._anchors:
                return path, True
            if len(path) > len(best):
                best = path
            if len(path) < MAX_DEPTH:
                issuers = [issuer for issuer in self._issuers(path[-1]) if issuer not in path]
                # The last one is tried first.
                issuers.sort(key=lambda issuer: (issuer in self._anchors, issuer.not_valid_after_utc))
                pending += [(*path, issuer) for issuer in issuers]
        return best, False

    def _issuers(self, certificate: x509.Certificate) -> list[x509.Certificate]:
        return [found for found in self._by_subject.get(certificate.issuer, ()) if self._has_signed(found, certificate)]

    def _has_signed(self, issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
        if self._checks_left == 0:
            return False
        self._checks_left -= 1
        if not facts.issued(issuer, certificate):
            self.bad_signature = True
            return False
        return True


def _why_untrusted(last: x509.Certificate, walk: _Walk) -> str:
    if last.issuer == last.subject:
        return f'ends at "{names.text_of(last.subject)}", which is self-signed and not trusted here; give it with --ca'
    if walk.bad_signature:
        return f'the signature is not by the key of "{names.text_of(last.issuer)}"; it is another CA of that name'
    return f'the issuer "{names.text_of(last.issuer)}" is neither sent along nor trusted here; give it with --ca'


def _problems_of(
    certificate: x509.Certificate, place: int, path: Sequence[x509.Certificate], when: datetime.datetime
) -> list[str]:
    who = "the certificate" if place == 0 else f'the CA "{names.text_of(certificate.subject)}"'
    found = []
    if when < certificate.not_valid_before_utc:
        found.append(f"{who} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC")
    if when > certificate.not_valid_after_utc:
        found.append(f"{who} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC")
    if (digest := facts.weak_digest(certificate)) is not None:
        found.append(f"{who} is signed with {digest}, which can be forged")
    found += [
        f"{who} has a critical extension we do not know ({extension.oid.dotted_string})"
        for extension in certificate.extensions
        if extension.critical and extension.oid not in _KNOWN_CRITICAL
    ]
    if place > 0:
        found += _problems_as_issuer(certificate, who, place, path)
    return found


def _problems_as_issuer(issuer: x509.Certificate, who: str, place: int, path: Sequence[x509.Certificate]) -> list[str]:
    found = []
    if not authority.is_ca(issuer):
        found.append(f"{who} is not a CA")
    else:
        limit = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        between = sum(below.issuer != below.subject for below in path[1:place])
        if limit is not None and between > limit:
            found.append(f"{who} allows {limit} CAs below it and has {between}")
    try:
        if not issuer.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
            found.append(f"{who} may not sign certificates")
    except x509.ExtensionNotFound:
        pass  # section 4.2.1.3: then the key is good for everything
    wanted = constraints.names_to_check(alternative_names(path[0]), path[0].subject)
    reason = constraints.violation(wanted, issuer)
    return found if reason is None else [*found, f"{who}: {reason.partition(';')[0]}"]


def alternative_names(certificate: x509.Certificate) -> tuple[x509.GeneralName, ...]:
    """The names a certificate is for; empty if it has none."""
    try:
        return tuple(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()


def matches(certificate: x509.Certificate, host: str) -> bool:
    """Whether a certificate is for a host name or IP address (RFC 9525 section 6)."""
    bare = host.strip("[]").lower().removesuffix(".")
    for name in alternative_names(certificate):
        text = names.short(name).lower()
        if isinstance(name, x509.IPAddress | x509.DNSName) and text == bare:
            return True
        below = bare.partition(".")[2]
        if isinstance(name, x509.DNSName) and text.startswith("*.") and "." in below and text[2:] == below:
            return True
    return False


def strict_opinion(verdict: Verdict, use: Use, host: str | None = None) -> str | None:
    """What the verifier of `cryptography` objects to in a chain that verifies; None if nothing, or if not asked.

    It is not asked about Ed25519 and Ed448, which the public web does not use.
    """
    leaf, *above = verdict.path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if any(isinstance(found.public_key(), _NOT_ON_THE_WEB) for found in verdict.path):
                return None
            builder = verification.PolicyBuilder().store(verification.Store([verdict.path[-1]]))
            subject = _server_name(leaf, host) if use is Use.SERVER else None
            if subject is not None:
                builder.build_server_verifier(subject).verify(leaf, above[:-1])
            else:
                builder.build_client_verifier().verify(leaf, above[:-1])
        except (verification.VerificationError, ValueError, UnsupportedAlgorithm) as exc:
            return names.printable(str(exc)).removeprefix("validation failed: ").partition(" (encountered")[0]
    return None


def _server_name(leaf: x509.Certificate, host: str | None) -> x509.DNSName | x509.IPAddress | None:
    # Without a host to check, the certificate's own first name.
    if host is not None:
        try:
            return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
        except ValueError:
            return x509.DNSName(host.lower().removesuffix("."))
    for name in alternative_names(leaf):
        if isinstance(name, x509.DNSName):
            return x509.DNSName(name.value.replace("*", "any", 1))
        if isinstance(name, x509.IPAddress):
            return name
    return None


def _texts(certificate: x509.Certificate) -> list[str]:
    return [names.short(name) for name in alternative_names(certificate)]


def same_key(certificate: x509.Certificate, key: keys.PrivateKey) -> bool:
    """Whether a key belongs to a certificate."""
    try:
        return keys.public_bytes(certificate.public_key()) == keys.public_bytes(key)
    except UnsupportedAlgorithm:
        return False
