"""What will go wrong with material that loads well: dates, purposes, names, weak signatures.

None of it stops a start, since a tunnel with an expired certificate is still the one that works for clients that do not
care, and an operator at three in the morning decides that better than a program. Every finding is a whole line:
the file, what is wrong, what would be right. `now` is given, so the same function answers `check`, the start, a reload
and a test.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from tlstunnel import _openssl
from tlstunnel.lifetime import Urgency, span, urgency
from tlstunnel.x509 import certificate as facts
from tlstunnel.x509.key import is_rare, key_type, unfit_for_tls
from tlstunnel.x509.material import Credential
from tlstunnel.x509.pem import printable
from tlstunnel.x509.trust import CRL, CABundle, signed_by

Use = Literal["server", "client"]

_LABEL = re.compile("[a-z0-9-]+")
"""What a wildcard stands for, with OpenSSL."""
_PURPOSES = {
    "server": (ExtendedKeyUsageOID.SERVER_AUTH, "servers (serverAuth)"),
    "client": (ExtendedKeyUsageOID.CLIENT_AUTH, "clients (clientAuth)"),
}


def warnings(
    credential: Credential, *, service_names: Sequence[str] = (), now: datetime, use: Use = "server"
) -> list[str]:
    """Everything a peer may hold against the credential, and what was remarkable about its files.

    Args:
        service_names: The names clients will ask for, as far as they are configured; `*.` for any first label.
        use: Whether it is shown to clients or to servers.
    """
    leaf = facts.load_certificate(credential.certificate_der)
    chain = [facts.load_certificate(der) for der in credential.chain_der]
    found = _dates("", leaf.not_valid_before_utc, leaf.not_valid_after_utc, now)
    for parent in chain:
        found += _dates(f"{facts.label(parent)}: ", parent.not_valid_before_utc, parent.not_valid_after_utc, now)
    found += _purpose(leaf, use)
    if use == "server":
        found += _names(credential, leaf, service_names)
    found += _strength([leaf, *chain])
    found += _completeness(leaf, chain)
    return [*credential.remarks, *(f"{credential.source}: {line}" for line in found)]


def chain_warnings(credentials: Sequence[Credential], bundle: CABundle) -> list[str]:
    """Chains that end before an intermediate which the file of CAs holds: only what `certificate` holds is sent."""
    found = []
    known = [facts.load_certificate(der) for der in bundle.certificates_der]
    for credential in credentials:
        last = facts.load_certificate((credential.certificate_der, *credential.chain_der)[-1])
        if facts.is_self_issued(last):
            continue
        missing = next((ca for ca in known if not facts.is_self_issued(ca) and facts.issued(ca, last)), None)
        if missing is not None:
            found.append(
                f"{credential.source}: the chain ends at {facts.label(last)}; its issuer {facts.label(missing)} is in "
                f"{bundle.source} alone, which is not sent; append it unless every client has that already"
            )
    return found


def ca_warnings(bundle: CABundle, *, now: datetime) -> list[str]:
    """What is remarkable about the CAs of a file: expired ones, and certificates that are no CAs.

    The system's own store has no warnings of this kind, since it always holds something old.
    """
    if bundle.is_system:
        return list(bundle.remarks)
    found = []
    subjects = {facts.load_certificate(der).subject for der in bundle.certificates_der}
    for der in bundle.certificates_der:
        ca = facts.load_certificate(der)
        found += _dates(f"{facts.label(ca)}: ", ca.not_valid_before_utc, ca.not_valid_after_utc, now)
        if facts.is_self_issued(ca):
            continue
        if not facts.is_ca(ca):
            found.append(f"{facts.label(ca)} is not a CA certificate; nothing can be verified with it")
        elif ca.issuer not in subjects:
            found.append(f"{facts.label(ca)} is not a root; add its issuer {facts.issuer(ca)}, where chains must end")
    return [*bundle.remarks, *(f"{bundle.source}: {line}" for line in found)]


def crl_problems(crls: Sequence[CRL], bundle: CABundle, *, now: datetime) -> list[str]:
    """Why certificates of these CAs would be refused under revocation checking, or lists be of no use.

    OpenSSL refuses every certificate whose issuer has no current list, so each line is an outage for somebody.
    """
    found = []
    bundle_names = {facts.subject(facts.load_certificate(der)) for der in bundle.certificates_der}
    for crl in crls:
        if crl.next_update is not None and crl.next_update < now:
            found.append(_expired(crl, crl.next_update))
        elif crl.this_update > now:
            found.append(
                f"{crl.source}: the list of {crl.issuer} is dated {facts.utc(crl.this_update)}; check the clock"
            )
        if crl.issuer not in bundle_names:
            found.append(
                f"{crl.source}: the list of {crl.issuer} is of use only where the peer sends that CA's certificate, "
                f"which is not in {bundle.source}; add it there if it is one of yours, or name the right list"
            )
        elif not signed_by(crl, bundle):
            found.append(f"{crl.source}: the list of {crl.issuer} is not signed by a CA in {bundle.source}")
    listed = {crl.issuer for crl in crls}
    for der in bundle.certificates_der:
        ca = facts.load_certificate(der)
        name = facts.subject(ca)
        if facts.is_ca(ca) and name not in listed:
            found.append(f"{bundle.source}: no revocation list of {name} is given; its certificates will be refused")
    return found


def expired_lists(crls: Sequence[CRL], *, now: datetime) -> dict[CRL, str]:
    """The lists past their date of issuers that have no current one here, and what to say about each."""
    current = {crl.issuer for crl in crls if crl.next_update is None or crl.next_update >= now}
    return {
        crl: _expired(crl, crl.next_update)
        for crl in crls
        if crl.next_update is not None and crl.next_update < now and crl.issuer not in current
    }


def _expired(crl: CRL, end: datetime) -> str:
    return f"{crl.source}: the list of {crl.issuer} expired on {facts.utc(end)}; fetch it anew"


def is_for(certificate: x509.Certificate, host: str) -> bool:
    """Whether a certificate is for a host name or IP address, as OpenSSL decides (RFC 9525 section 6)."""
    bare = host.strip("[]").lower().removesuffix(".")
    if bare.startswith("*."):  # a name to be issued for, which nobody connects to
        return covers(facts.names(certificate).dns, bare)
    try:
        return _openssl.is_for_host(certificate.public_bytes(Encoding.DER), bare)
    except _openssl.TLSError:
        return False


def covers(names: Iterable[str], wanted: str) -> bool:
    """The same of a certificate's names alone, where many are looked at for each connection.

    A `*` stands for exactly one whole first label. A wanted `*.example.org` is covered only by the same.
    """
    wanted = wanted.removesuffix(".").lower()
    label, _, parent = wanted.partition(".")
    try:
        address = str(ipaddress.ip_address(wanted.strip("[]")))
    except ValueError:
        address = ""
    is_host = not address and "." in parent and _LABEL.fullmatch(label) is not None
    return any(name.lower() in (wanted, address, f"*.{parent}" if is_host else wanted) for name in names)


def _dates(who: str, begin: datetime, end: datetime, now: datetime) -> list[str]:
    if end < now:
        return [f"{who}expired on {facts.utc(end)} ({span(now - end)} ago); renew it"]
    if begin > now:
        return [f"{who}is not valid before {facts.utc(begin)} (in {span(begin - now)}); check the clock"]
    if urgency(begin, end, now) is not Urgency.NONE:
        return [f"{who}expires in {span(end - now)}, on {facts.utc(end)}; renew it"]
    return []


def _purpose(leaf: x509.Certificate, use: Use) -> list[str]:
    found = []
    oid, who = _PURPOSES[use]
    purposes = facts.extension(leaf, x509.ExtendedKeyUsage)
    if purposes is not None and oid not in purposes and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in purposes:
        found.append(f"its extended key usage is not for {who}; peers will refuse it")
    usage = facts.extension(leaf, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        found.append("its key usage has no digitalSignature, which every handshake needs; peers will refuse it")
    if facts.is_ca(leaf):
        found.append("is a CA certificate; some peers refuse one in the place of a server's or client's own")
    return found


def _names(credential: Credential, leaf: x509.Certificate, service_names: Sequence[str]) -> list[str]:
    if not credential.has_san:
        return ["has no subject alternative name; clients do not look at the common name"]
    missing = [name for name in service_names if not is_for(leaf, name)]
    if not missing:
        return []
    known = ", ".join(credential.names[:5]) + (", ..." if len(credential.names) > 5 else "")
    wrong = f"is for {printable(known)}, not for" if known else "has no DNS name or IP address, so it is not for"
    return [f"{wrong} {', '.join(missing)}; have it issued for that too"]


def _strength(certificates: Sequence[x509.Certificate]) -> list[str]:
    found = []
    for place, one in enumerate(certificates):
        who = "" if place == 0 else f"{facts.label(one)}: "
        if (digest := facts.weak_digest(one)) is not None:
            found.append(f"{who}its signature uses {digest}; peers will refuse it")
        if place and (why := unfit_for_tls(one.public_key())) is not None:
            found.append(f"{who}{why}")
    if is_rare(certificates[0].public_key()):
        found.append(f"few TLS peers know {key_type(certificates[0].public_key())}, and none before TLS 1.3")
    return found


def _completeness(leaf: x509.Certificate, chain: Sequence[x509.Certificate]) -> list[str]:
    found = []
    published = facts.access_urls(leaf, AuthorityInformationAccessOID.CA_ISSUERS)
    if not chain and published and not facts.is_self_issued(leaf):
        found.append(f"holds no chain; append its issuer {facts.issuer(leaf)} unless every client has that already")
    return found
