"""Staples out of files, and warnings about certificates and their staples: the reading side of `tls.ocsp`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tlstunnel.config.model import OCSPStaple
from tlstunnel.tls.ocsp import MAX_RESPONSE, NotOursError, OCSPError, Staple, issuer_of, judge
from tlstunnel.x509.material import Credential
from tlstunnel.x509.pem import read_file
from tlstunnel.x509.trust import CABundle

_NO_STAPLE = {
    OCSPStaple.OFF: 'set ocsp_staple to "auto"',
    OCSPStaple.FILE: "name one with ocsp_response",
}


def issuer_for(credential: Credential, bundle: CABundle | None) -> bytes | None:
    """The certificate (DER) of who issued the credential: out of its own chain, or one of these CAs."""
    known = credential.chain_der if bundle is None else (*credential.chain_der, *bundle.certificates_der)
    return issuer_of(credential.certificate_der, known)


def load_staple(path: Path, credentials: Sequence[Credential], bundle: CABundle | None) -> tuple[bytes, Staple]:
    """Read a response, and find the certificate it is for.

    Args:
        credentials: those of the service.
        bundle: CAs among which an issuer is looked for, beside the chains.

    Returns:
        The certificate (DER) and its staple.

    Raises:
        MaterialError: unreadable, not good, or for none of the certificates.
    """
    file = read_file(path, MAX_RESPONSE)
    issuers = [(credential, issuer_for(credential, bundle)) for credential in credentials]
    try:
        for credential, issuer in issuers:
            if issuer is not None:
                try:
                    return credential.certificate_der, judge(file.data, credential.certificate_der, issuer)
                except NotOursError:
                    continue
    except OCSPError as exc:
        raise file.error(str(exc)) from None
    unknown = [credential.source for credential, issuer in issuers if issuer is None]
    if unknown:
        raise file.error(
            f"cannot be verified: who issued {unknown[0]} is not known; append the issuer's certificate there"
        )
    sources = ", ".join(dict.fromkeys(credential.source for credential in credentials))
    raise file.error(f"is for another certificate than {sources or 'ours'}; fetch it for that one")


def staple_warnings(
    mode: OCSPStaple, credentials: Sequence[Credential], found: Mapping[bytes, Staple], bundle: CABundle | None
) -> list[str]:
    """Certificates that clients will refuse for want of a staple, and those for which none can be fetched."""
    lines = []
    for credential in dict.fromkeys(credentials):
        where = f"{credential.source}: "
        if mode is OCSPStaple.AUTO:
            if not usable_responders(credential):
                lines.append(
                    f"{where}names no OCSP responder with an http:// address; nothing can be fetched to staple"
                )
            elif issuer_for(credential, bundle) is None:
                lines.append(f"{where}holds no issuer to verify OCSP responses with; append the issuer's certificate")
        elif credential.must_staple and credential.certificate_der not in found:
            lines.append(f"{where}demands a stapled OCSP response (must-staple) and none is given; {_NO_STAPLE[mode]}")
    return lines


def usable_responders(credential: Credential) -> tuple[str, ...]:
    """The responders that can be asked: over HTTP, since a response carries its own signature."""
    return tuple(url for url in credential.ocsp_responders if url.lower().startswith("http://") and url.isascii())
