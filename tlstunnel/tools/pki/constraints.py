"""Name constraints: which names a CA may vouch for (RFC 5280 section 4.2.1.10).

Verifiers apply them later, on someone else's machine; OpenSSL's own verifier is asked before we sign, so that the
operator learns of a forbidden name from us and not from a failed handshake.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tlstunnel import _openssl
from tlstunnel.errors import UsageError, printable
from tlstunnel.tools.pki import names
from tlstunnel.tools.pki.profile import Subtrees
from tlstunnel.x509.certificate import extension

_ALL_ADDRESSES = (
    x509.IPAddress(ipaddress.ip_network("0.0.0.0/0")),
    x509.IPAddress(ipaddress.ip_network("::/0")),
)
_ALL_HOSTS = x509.DNSName("")
_ISSUER = names.subject("asks OpenSSL about name constraints", where="")


def parse(permit: Iterable[str], exclude: Iterable[str]) -> Subtrees:
    """Constraints from the operator's words: `example.org` (and all below), `10.0.0.0/8`, `uri:HOST`, `email:HOST`.

    RFC 5280 leaves every kind of name free that no permitted subtree mentions. Someone who permits one domain does not
    expect a certificate for an IP address, so if only one of the two is permitted the other is excluded altogether.

    Raises:
        UsageError: a word is none of these.
    """
    permitted = tuple(dict.fromkeys(_parse_one(text, "--permit") for text in permit))
    excluded = tuple(dict.fromkeys(_parse_one(text, "--exclude") for text in exclude))
    kinds = {type(name) for name in permitted}
    if permitted:
        # Each version by itself: GnuTLS takes a permitted IPv4 network to say nothing about IPv6.
        versions = {name.value.version for name in permitted if isinstance(name, x509.IPAddress)}
        excluded += tuple(tree for tree in _ALL_ADDRESSES if tree.value.version not in versions)
    if permitted and x509.DNSName not in kinds:
        excluded += (_ALL_HOSTS,)
    return Subtrees(permitted, tuple(dict.fromkeys(excluded)))


def _parse_one(text: str, where: str) -> x509.GeneralName:
    kind, colon, rest = text.partition(":")
    if colon and kind in ("uri", "email"):
        host = names.dns(rest.removeprefix("."), where=where).value
        dotted = "." + host if rest.startswith(".") else host
        return x509.UniformResourceIdentifier(dotted) if kind == "uri" else x509.RFC822Name(dotted)
    try:
        return x509.IPAddress(ipaddress.ip_network(text))
    except ValueError as exc:
        if "/" in text:
            raise UsageError(where, f'"{printable(text)}" is not a network ({exc}); write 10.0.0.0/8') from exc
    found = names.dns(text.removeprefix("."), where=where)
    if found.value.startswith("*."):
        raise UsageError(where, f'"{text}" needs no star: "{found.value[2:]}" stands for everything below it')
    return found


def check(
    wanted: Iterable[x509.GeneralName], subject: x509.Name, issuers: Iterable[x509.Certificate], *, where: str
) -> None:
    """Fail if any issuer's constraints forbid any of the names.

    Raises:
        UsageError: which name, and what is permitted.
    """
    wanted = tuple(wanted)
    for issuer in dict.fromkeys(issuers):
        reason = violation(wanted, subject, issuer)
        if reason is not None:
            raise UsageError(where, reason)


def violation(wanted: Sequence[x509.GeneralName], subject: x509.Name, issuer: x509.Certificate) -> str | None:
    """Why an issuer's constraints forbid a certificate with these names, or None.

    OpenSSL decides, but says neither which name it objects to nor why, so it is asked about one name after the other;
    then about all with the subject, whose common name counts where it looks like a host name (X509_check_host(3)).
    """
    found = extension(issuer, x509.NameConstraints)
    if found is None:
        return None
    for name in wanted:
        if _is_forbidden((name,), x509.Name([]), found) or any(
            _reaches(name, tree) for tree in found.excluded_subtrees or ()
        ):
            return _words(name, found)
    if _is_forbidden(wanted, subject, found):
        return _words(x509.DNSName(names.common_name(subject) or names.text_of(subject)), found)
    return None


def _is_forbidden(wanted: Sequence[x509.GeneralName], subject: x509.Name, constraints: x509.NameConstraints) -> bool:
    """Whether OpenSSL refuses a certificate with these names, and nothing else in it, under these constraints."""
    key = ec.generate_private_key(ec.SECP256R1())
    today = datetime.datetime.now(datetime.UTC)

    def begin(subject: x509.Name) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder(_ISSUER, subject, key.public_key(), x509.random_serial_number())
        return builder.not_valid_before(today).not_valid_after(today)

    root = begin(_ISSUER).add_extension(x509.BasicConstraints(True, None), True).add_extension(constraints, True)
    leaf = begin(subject)
    if wanted:
        leaf = leaf.add_extension(x509.SubjectAlternativeName(wanted), True)
    of_leaf, of_root = (each.sign(key, hashes.SHA256()).public_bytes(Encoding.DER) for each in (leaf, root))
    try:
        return _openssl.verify_chain(of_leaf, (), [of_root], when=None).code != 0
    except _openssl.TLSError:
        return True


def _words(name: x509.GeneralName, constraints: x509.NameConstraints) -> str:
    what = f'the CA may not vouch for "{names.short(name)}"'
    permitted, excluded = (
        ", ".join(names.short(tree) or empty for tree in trees or () if type(tree) is type(name))
        for trees, empty in ((constraints.permitted_subtrees, "nothing"), (constraints.excluded_subtrees, "everything"))
    )
    if permitted:
        return f"{what}; choose a name within {permitted}" + (f", but not within {excluded}" if excluded else "")
    return f"{what}: it excludes {excluded or 'it'}; choose another name"


def _reaches(name: x509.GeneralName, tree: x509.GeneralName) -> bool:
    # OpenSSL does not see that a wildcard also stands for the excluded host: *.example.org for bad.example.org.
    if not isinstance(name, x509.DNSName) or not isinstance(tree, x509.DNSName) or not name.value.startswith("*."):
        return False
    return tree.value.removeprefix(".").lower().partition(".")[2] == name.value[2:].lower()
