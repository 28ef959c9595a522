"""Name constraints: which names a CA may vouch for (RFC 5280 section 4.2.1.10).

Verifiers apply them later, on someone else's machine; we apply the same rules before signing, so that the operator
learns of a forbidden name from us and not from a failed handshake.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from cryptography import x509

from tlstunnel.errors import UsageError, printable
from tlstunnel.tools.pki import names
from tlstunnel.tools.pki.profile import Subtrees

_ALL_ADDRESSES = (
    x509.IPAddress(ipaddress.ip_network("0.0.0.0/0")),
    x509.IPAddress(ipaddress.ip_network("::/0")),
)
_HOST_LIKE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)+")
_ALL_HOSTS = x509.DNSName("")


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


def names_to_check(alternative: Iterable[x509.GeneralName], subject: x509.Name) -> tuple[x509.GeneralName, ...]:
    """The names that constraints apply to: the alternative names, and a common name that looks like a host name.

    OpenSSL holds such a common name against the constraints if there is no host name among the alternative names
    (X509_check_host(3)), be it an IPv4 address or a client's name with dots.
    """
    alternative = tuple(alternative)
    common_name = names.common_name(subject)
    if common_name is None or any(isinstance(name, x509.DNSName) for name in alternative):
        return alternative
    return (*alternative, x509.DNSName(common_name)) if _HOST_LIKE.fullmatch(common_name) else alternative


def check(wanted: Iterable[x509.GeneralName], issuers: Iterable[x509.Certificate], *, where: str) -> None:
    """Fail if any issuer's constraints forbid any of the names.

    Raises:
        UsageError: which name, and what is permitted.
    """
    wanted = tuple(wanted)
    for issuer in issuers:
        reason = violation(wanted, issuer)
        if reason is not None:
            raise UsageError(where, reason)


def violation(wanted: Iterable[x509.GeneralName], issuer: x509.Certificate) -> str | None:
    """Why an issuer's constraints forbid one of the names, or None."""
    try:
        found = issuer.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return None
    for name in wanted:
        permitted = [tree for tree in found.permitted_subtrees or () if type(tree) is type(name)]
        if permitted and not any(is_within(name, tree) for tree in permitted):
            allowed = ", ".join(names.short(tree) or "nothing" for tree in permitted)
            return f'the CA may not vouch for "{names.short(name)}"; choose a name within {allowed}'
        for tree in found.excluded_subtrees or ():
            if type(tree) is type(name) and (is_within(name, tree) or _reaches(name, tree)):
                what = names.short(tree) or "every host name"
                return f'the CA may not vouch for "{names.short(name)}": {what} is excluded; choose another name'
    return None


def is_within(name: x509.GeneralName, tree: x509.GeneralName) -> bool:
    """Whether a name is in a subtree of its own kind."""
    if isinstance(name, x509.DNSName) and isinstance(tree, x509.DNSName):
        return _host_within(name.value, tree.value.removeprefix("."))
    if isinstance(name, x509.IPAddress) and isinstance(tree, x509.IPAddress):
        network = tree.value
        if not isinstance(network, ipaddress.IPv4Network | ipaddress.IPv6Network):
            return False
        return name.value in network if name.value.version == network.version else False
    if isinstance(name, x509.RFC822Name) and isinstance(tree, x509.RFC822Name):
        domain = name.value.rpartition("@")[2]
        if "@" in tree.value:
            return name.value == tree.value
        return _exact_or_below(domain, tree.value)
    if isinstance(name, x509.UniformResourceIdentifier) and isinstance(tree, x509.UniformResourceIdentifier):
        try:
            return _exact_or_below(urlsplit(name.value).hostname or "", tree.value)
        except ValueError:
            return False
    return False


def _reaches(name: x509.GeneralName, tree: x509.GeneralName) -> bool:
    # A wildcard also stands for the excluded host itself: *.example.org for bad.example.org.
    if not isinstance(name, x509.DNSName) or not isinstance(tree, x509.DNSName) or not name.value.startswith("*."):
        return False
    return tree.value.removeprefix(".").lower().partition(".")[2] == name.value[2:].lower()


def _host_within(host: str, tree: str) -> bool:
    host, tree = host.lower(), tree.lower()
    return not tree or host == tree or host.endswith("." + tree)


def _exact_or_below(host: str, tree: str) -> bool:
    # For URIs and mail addresses a leading period means "below it", and no period means exactly this host.
    host, tree = host.lower(), tree.lower()
    return host.endswith(tree) if tree.startswith(".") else host == tree
