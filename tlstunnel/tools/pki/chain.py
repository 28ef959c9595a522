"""Does a certificate chain to a trusted one, and if not, why not (RFC 5280 section 6)?

OpenSSL's own verifier decides, as it does in the handshakes of a tunnel: what is said here is what `client` and
`connect` would make of the certificate. It gives one code, and this module the sentence: which certificate, what is
wrong, what would be right. Three things are added that OpenSSL leaves out or ends at: the dates of every certificate of
the path, and hashes and keys that are refused in a handshake but, without a connection, not here. Revocation is left
out.

`strict_opinion` asks a second verifier, the one of `cryptography`, which also applies the rules of the public web
(CA/Browser Forum), and gives its objection in its own words.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification

from tlstunnel import _openssl
from tlstunnel.errors import printable
from tlstunnel.parse_errors import PARSE_ERRORS
from tlstunnel.tls.reasons import VERDICT_WORDS
from tlstunnel.tools.pki import constraints, names
from tlstunnel.tools.pki.profile import Use
from tlstunnel.x509 import certificate as facts
from tlstunnel.x509 import trust
from tlstunnel.x509.checks import is_for
from tlstunnel.x509.key import unfit_for_tls

MAX_NAMESAKES = 100
"""A file of CAs with one name must not make us try all of them for the sake of a sentence."""

_NOT_ON_THE_WEB = (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)
_PURPOSES = {Use.SERVER: _openssl.PURPOSE_SERVER, Use.CLIENT: _openssl.PURPOSE_CLIENT}

# X509_V_ERR_ codes (openssl/x509_vfy.h).
_DATES = (9, 10)
_NO_ISSUER = (2, 18, 19, 20, 21)
_WRONG_SIGNATURE = 7
_POOR_ISSUER = (24, 25, 32, 79, 80, 81, 82)
_WRONG_PURPOSE = 26
_UNKNOWN_CRITICAL = 34
_NAMES_FORBIDDEN = (47, 48)


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
    use: Use | None = None,
    now: datetime.datetime | None = None,
) -> Verdict:
    """Walk from a leaf to a trusted root, by way of `others`, as a TLS handshake does.

    Args:
        host: Also check that the leaf is for this host name or IP address.
        use: Also check that it may be used as this.
        now: The time to verify at.
    """
    others, anchors = tuple(others), tuple(anchors)
    when = now or datetime.datetime.now(datetime.UTC)
    known = {_der(one): one for one in (*anchors, *others, leaf)}
    trusted = [_der(one) for one in anchors]

    def ask(moment: datetime.datetime | None) -> _openssl.ChainVerdict:
        purpose = None if use is None else _PURPOSES[use]
        return _openssl.verify_chain(_der(leaf), list(known), trusted, when=moment, purpose=purpose)

    try:
        found = ask(when)
        if found.code in _DATES:  # which are said of every certificate below
            found = ask(None)
    except _openssl.TLSError as exc:
        return Verdict((leaf,), False, (f"OpenSSL cannot read it ({exc})",))
    path = tuple(known.get(der) or facts.load_certificate(der, is_key_needed=False) for der in found.path) or (leaf,)
    if found.code == _WRONG_SIGNATURE:
        path = path[: found.depth + 1]
    is_trusted = found.code not in (*_NO_ISSUER, _WRONG_SIGNATURE)
    problems = [problem for place, one in enumerate(path) for problem in _problems_of(one, place, when)]
    if not is_trusted:
        problems += _why_untrusted(path[-1], known.values(), anchors)
    elif found.code:
        problems += _words_for(found, path, use)
    if host is not None and not is_for(leaf, host):
        problems.append(f'not for "{printable(host)}": its names are {", ".join(_texts(leaf)) or "none"}')
    return Verdict(path, is_trusted, tuple(dict.fromkeys(problems)))


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _who(certificate: x509.Certificate, place: int) -> str:
    return "the certificate" if place == 0 else f'the CA "{names.text_of(certificate.subject)}"'


def _why_untrusted(
    last: x509.Certificate, known: Iterable[x509.Certificate], anchors: Iterable[x509.Certificate]
) -> list[str]:
    end, issuer = names.text_of(last.subject), names.text_of(last.issuer)
    if facts.is_self_issued(last):
        return [f'ends at "{end}", which is self-signed and not trusted here; give it with --ca']
    namesakes = [one for one in known if one.subject == last.issuer][:MAX_NAMESAKES]
    for one in namesakes:
        if facts.issued(one, last) and (why := _problems_as_issuer([last, one], 1)):
            return why
    if namesakes:
        return [f'the signature is not by the key of "{issuer}"; it is another CA of that name']
    if last in anchors:
        return [f'ends at "{end}", which is trusted here but no root; add its issuer "{issuer}" to --ca']
    return [f'the issuer "{issuer}" is neither sent along nor trusted here; give it with --ca']


def _problems_of(certificate: x509.Certificate, place: int, when: datetime.datetime) -> list[str]:
    who = _who(certificate, place)
    found = []
    if when < certificate.not_valid_before_utc:
        found.append(f"{who} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC")
    if when > certificate.not_valid_after_utc:
        found.append(f"{who} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC")
    if (digest := facts.weak_digest(certificate)) is not None:
        found.append(f"{who} is signed with {digest}, which can be forged")
    try:
        key = certificate.public_key()
    except UnsupportedAlgorithm:
        key = None  # OpenSSL may know it
    if isinstance(key, rsa.RSAPublicKey) and (reason := unfit_for_tls(key)) is not None:
        found.append(f"{who} has a key that is refused: {reason.partition(';')[0]}")
    return found


def _words_for(found: _openssl.ChainVerdict, path: Sequence[x509.Certificate], use: Use | None) -> list[str]:
    """What OpenSSL objects to, with what can be seen of the reason; else in the words of a tunnel's log."""
    place = min(found.depth, len(path) - 1)
    who, said = _who(path[place], place), []
    if found.code in _POOR_ISSUER:
        said = [problem for above in range(1, len(path)) for problem in _problems_as_issuer(path, above)]
    elif found.code == _WRONG_PURPOSE:
        said = [f"{who} may not be used by {use or 'any'}s; have it issued with that extended key usage"]
    elif found.code == _UNKNOWN_CRITICAL:
        said = [
            f"{who} has a critical extension we do not know ({extension.oid.dotted_string})"
            for extension in path[place].extensions
            if extension.critical and isinstance(extension.value, x509.UnrecognizedExtension)
        ]
    elif found.code in _NAMES_FORBIDDEN:
        for above, issuer in enumerate(path[1:], 1):
            with contextlib.suppress(*PARSE_ERRORS):  # a stranger's names, written anew
                if reason := constraints.violation(alternative_names(path[0]), path[0].subject, issuer):
                    said.append(f"{_who(issuer, above)}: {reason.partition(';')[0]}")
    words = VERDICT_WORDS.get(found.code) or f"OpenSSL's verdict is {found.code}"
    return said or [f"{who} is refused: {words}"]


def _problems_as_issuer(path: Sequence[x509.Certificate], place: int) -> list[str]:
    issuer, found = path[place], []
    who = _who(issuer, place)
    basic = facts.extension(issuer, x509.BasicConstraints)
    between = sum(not facts.is_self_issued(below) for below in path[1:place])
    if basic is None or not basic.ca:
        found.append(f"{who} is not a CA")
    elif basic.path_length is not None and between > basic.path_length:
        found.append(f"{who} allows {basic.path_length} CAs below it and has {between}")
    usage = facts.extension(issuer, x509.KeyUsage)  # section 4.2.1.3: without one the key is good for everything
    if usage is not None and not usage.key_cert_sign:
        found.append(f"{who} may not sign certificates")
    return found


def alternative_names(certificate: x509.Certificate) -> tuple[x509.GeneralName, ...]:
    """The names a certificate is for; empty if it has none."""
    return tuple(facts.extension(certificate, x509.SubjectAlternativeName) or ())


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
            return printable(str(exc)).removeprefix("validation failed: ").partition(" (encountered")[0]
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
