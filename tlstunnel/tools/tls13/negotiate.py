"""What a server makes of a ClientHello: what the client offers, and what to use of it (RFC 8446 section 4.1.1).

`read_offer` checks that the hello is one TLS 1.3 allows, `choose` picks. Neither knows keys or transcripts.
"""

from __future__ import annotations

from dataclasses import dataclass

from tlstunnel.tools.tls13 import extensions as ext
from tlstunnel.tools.tls13.extension_block import find
from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.messages import ClientHello
from tlstunnel.tools.tls13.names import (
    TLS_1_3,
    AlertDescription,
    CipherSuite,
    SignatureScheme,
    extension_name,
    group_name,
    version_name,
)
from tlstunnel.tools.tls13.names import ExtensionType as Ext
from tlstunnel.tools.tls13.server_config import ServerConfig
from tlstunnel.tools.tls13.session import Session
from tlstunnel.tools.tls13.signature import Credential


@dataclass(frozen=True, slots=True)
class ClientOffer:
    """A ClientHello, understood."""

    hello: ClientHello
    groups: tuple[int, ...]
    shares: tuple[ext.KeyShare, ...]
    schemes: tuple[int, ...]
    server_name: str
    alpn: tuple[str, ...]
    psk: ext.OfferedPSK | None
    offers_early_data: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """What the server will use. `share` is None where a HelloRetryRequest must ask for one of `group` first."""

    suite: CipherSuite
    group: int
    share: ext.KeyShare | None
    alpn: str | None
    session: Session | None
    psk_index: int


def read_offer(hello: ClientHello) -> ClientOffer:
    """Understand a ClientHello.

    Raises:
        Violation: it is not for TLS 1.3, or breaks a rule of sections 4.1.2, 4.2 or 9.2.
    """
    body = find(hello.extensions, Ext.SUPPORTED_VERSIONS)
    versions = ext.read_client_versions(body) if body is not None else (hello.legacy_version,)
    if TLS_1_3 not in versions:
        offered = ", ".join(version_name(version) for version in versions)
        raise Violation(AlertDescription.PROTOCOL_VERSION, f"the client offers {offered}, and not TLS 1.3")
    if hello.compression_methods != b"\0":
        raise _illegal("the client offers compression")
    if len(hello.session_id) > 32:
        raise Violation(AlertDescription.DECODE_ERROR, "the session id is longer than 32 bytes")
    psk = _read_psk(hello)
    groups_body, shares_body = (find(hello.extensions, kind) for kind in (Ext.SUPPORTED_GROUPS, Ext.KEY_SHARE))
    schemes_body = find(hello.extensions, Ext.SIGNATURE_ALGORITHMS)
    for kind, found in ((Ext.SUPPORTED_GROUPS, groups_body), (Ext.KEY_SHARE, shares_body)):
        if found is None:
            raise _missing(kind)
    if schemes_body is None and psk is None:
        raise _missing(Ext.SIGNATURE_ALGORITHMS)
    groups = ext.read_numbers(groups_body or b"", "supported_groups")
    shares = ext.read_client_shares(shares_body or b"")
    share_groups = [share.group for share in shares]
    if len(set(share_groups)) != len(share_groups):
        raise _illegal("key_share names a group twice")
    if any(group not in groups for group in share_groups):
        raise _illegal("key_share has a group that supported_groups lacks")
    name, protocols = find(hello.extensions, Ext.SERVER_NAME), find(hello.extensions, Ext.ALPN)
    return ClientOffer(
        hello=hello,
        groups=groups,
        shares=shares,
        schemes=ext.read_numbers(schemes_body, "signature_algorithms") if schemes_body is not None else (),
        server_name=ext.read_server_name(name) if name is not None else "",
        alpn=ext.read_alpn(protocols) if protocols is not None else (),
        psk=psk,
        offers_early_data=find(hello.extensions, Ext.EARLY_DATA) is not None,
    )


def choose(config: ServerConfig, offer: ClientOffer) -> Choice:
    """Pick what to use; the server's order decides.

    Raises:
        Violation: handshake_failure or no_application_protocol if nothing fits.
    """
    suites = [CipherSuite(suite) for suite in config.cipher_suites if suite in offer.hello.cipher_suites]
    if not suites:
        raise Violation(AlertDescription.HANDSHAKE_FAILURE, "no cipher suite in common")
    group, share = _choose_group(config, offer)
    session, index = _choose_session(config, offer, suites)
    if session is not None:
        # A PSK belongs to a hash (section 4.2.11), so it decides among the suites.
        suites = [suite for suite in suites if suite.hash.name == session.suite.hash.name]
        suites.sort(key=lambda suite: suite is not session.suite)
    protocol = next((each for each in config.alpn if each in offer.alpn), None)
    if config.alpn and offer.alpn and protocol is None:
        raise Violation(AlertDescription.NO_APPLICATION_PROTOCOL, "no application protocol in common")
    return Choice(suites[0], group, share, protocol, session, index)


def choose_credential(config: ServerConfig, offer: ClientOffer) -> tuple[Credential, SignatureScheme]:
    """The certificate to use, and the scheme to sign with.

    Raises:
        Violation: handshake_failure if the client can verify none of ours.
    """
    for credential in config.credentials:
        scheme = credential.choose_scheme(offer.schemes)
        if scheme is not None:
            return credential, scheme
    raise Violation(AlertDescription.HANDSHAKE_FAILURE, "no signature algorithm in common that fits a certificate")


def _choose_group(config: ServerConfig, offer: ClientOffer) -> tuple[int, ext.KeyShare | None]:
    shares = {share.group: share for share in offer.shares}
    for group in config.groups:
        if group in shares:
            return group, shares[group]
    for group in config.groups:
        if group in offer.groups:
            return group, None
    names = ", ".join(group_name(group) for group in offer.groups)
    raise Violation(AlertDescription.HANDSHAKE_FAILURE, f"no key-exchange group in common; the client offers {names}")


def _choose_session(config: ServerConfig, offer: ClientOffer, suites: list[CipherSuite]) -> tuple[Session | None, int]:
    if offer.psk is None:
        return None, 0
    modes = find(offer.hello.extensions, Ext.PSK_KEY_EXCHANGE_MODES)
    if modes is None:
        raise _missing(Ext.PSK_KEY_EXCHANGE_MODES)
    if ext.PSK_DHE_KE not in ext.read_psk_modes(modes):
        return None, 0
    hashes = {suite.hash.name for suite in suites}
    for index, (identity, _) in enumerate(offer.psk.identities):
        session = config.sessions.get(identity)
        if session is not None and session.suite.hash.name in hashes:
            return session, index
    return None, 0


def _read_psk(hello: ClientHello) -> ext.OfferedPSK | None:
    body = find(hello.extensions, Ext.PRE_SHARED_KEY)
    if body is None:
        return None
    if hello.extensions[-1].type != Ext.PRE_SHARED_KEY:
        raise _illegal("pre_shared_key is not the last extension")
    psk = ext.read_offered_psk(body)
    if len(psk.identities) != len(psk.binders):
        raise _illegal("pre_shared_key has not one binder for each identity")
    return psk


def _missing(kind: Ext) -> Violation:
    return Violation(AlertDescription.MISSING_EXTENSION, f"ClientHello lacks the extension {extension_name(kind)}")


def _illegal(text: str) -> Violation:
    return Violation(AlertDescription.ILLEGAL_PARAMETER, text)
