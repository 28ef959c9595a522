"""The two scenes of `tlstunnel explain`: both ends in this process, or our client and a real server."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlstunnel.address import AddressError, TCPAddress, parse_target
from tlstunnel.cli import explain_network
from tlstunnel.config.model import CertificateFiles
from tlstunnel.config.units import UnitError, parse_duration
from tlstunnel.errors import TunnelError, UsageError
from tlstunnel.tools.pki import chain as chains
from tlstunnel.tools.pki import readers
from tlstunnel.tools.pki.profile import Use
from tlstunnel.tools.tls13 import rehearsal
from tlstunnel.tools.tls13.client import Client
from tlstunnel.tools.tls13.client_config import ChainVerdict, ChainVerifier, ClientConfig
from tlstunnel.tools.tls13.keyexchange import supported_groups
from tlstunnel.tools.tls13.names import CipherSuite, NamedGroup, group_name, scheme_name
from tlstunnel.tools.tls13.narrate import Narrator, TaggedNote
from tlstunnel.tools.tls13.server_config import ClientAuth, ServerConfig
from tlstunnel.tools.tls13.signature import Credential, make_credential
from tlstunnel.tools.tls13.story import Story
from tlstunnel.x509.key import parse_private_key
from tlstunnel.x509.material import load_credential
from tlstunnel.x509.passphrase import PassphraseSource

_ALIASES = {"p-256": NamedGroup.SECP256R1, "prime256v1": NamedGroup.SECP256R1, "p-384": NamedGroup.SECP384R1}


@dataclass(frozen=True, slots=True)
class Offer:
    """What the client offers in either scene."""

    groups: tuple[int, ...]
    suites: tuple[int, ...]
    alpn: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The options of a handshake in this process, as they were written."""

    key_type: str
    client_auth: str
    hello_retry: bool
    key_update: bool
    resume: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """The options of a handshake with a real server, as they were written."""

    address: str
    server_name: str | None
    ca: Path | None
    cert: Path | None
    key: Path | None
    key_passphrase_file: Path | None
    resume: bool
    connect_timeout: str
    handshake_timeout: str


def parse_groups(text: str | None) -> tuple[int, ...]:
    """`X25519MLKEM768:X25519:P-256`, or with commas; None is every group there is."""
    known = {group.name.lower(): group for group in supported_groups()}
    names = ", ".join(group_name(group) for group in known.values())
    return _parse_list("--groups", text, known | _ALIASES, tuple(known.values()), f"no group known here; use {names}")


def parse_suites(text: str | None) -> tuple[int, ...]:
    """`TLS_AES_256_GCM_SHA384:...`, or with commas; None is every suite of TLS 1.3."""
    known = {suite.name.lower(): suite for suite in CipherSuite}
    names = ", ".join(suite.name for suite in CipherSuite)
    return _parse_list("--ciphersuites", text, known, tuple(CipherSuite), f"no suite known here; use {names}")


def parse_alpn(texts: list[str]) -> tuple[str, ...]:
    """Protocol names, each of 1 to 255 ASCII characters."""
    found = [name for text in texts for name in text.split(",")]
    for name in found:
        if not name.isascii() or not 0 < len(name) < 256:
            raise UsageError("--alpn", f'"{name}" is no protocol name; write names such as "h2,http/1.1"')
    return tuple(found)


def _parse_list(option: str, text: str | None, known: dict[str, Any], default: Any, wrong: str) -> tuple[int, ...]:
    if text is None:
        return tuple(default)
    found = []
    for name in text.replace(",", ":").split(":"):
        value = known.get(name.strip().lower())
        if value is None:
            raise UsageError(option, f'"{name}" is {wrong}')
        if value not in found:
            found.append(value)
    return tuple(found)


def in_this_process(offer: Offer, options: Rehearsal) -> Story:
    """Let a client and a server of ours talk, and tell it."""
    if options.key_type not in rehearsal.KEY_TYPES:
        choices = ", ".join(rehearsal.KEY_TYPES)
        raise UsageError("--key-type", f'"{options.key_type}" is no type of key here; use {choices}')
    if options.client_auth not in [each.value for each in ClientAuth]:
        raise UsageError("--client-auth", f'"{options.client_auth}" is no choice; use none, optional or required')
    cast = rehearsal.make_cast(options.key_type)
    anchors = readers.certificates(cast.ca, where="our own CA")
    auth = ClientAuth(options.client_auth)
    server_groups = offer.groups
    key_shares = None
    if options.hello_retry:
        key_shares, server_groups = offer.groups[:1], offer.groups[1:]
        if not server_groups:
            raise UsageError("--hello-retry", "the client needs a second group that the server can ask for")
    client_config = ClientConfig(
        server_name=rehearsal.SERVER_NAME, cipher_suites=offer.suites, groups=offer.groups, key_shares=key_shares,
        alpn=offer.alpn, credential=cast.client, verify=_verifier(anchors, rehearsal.SERVER_NAME),
    )  # fmt: skip
    server_config = ServerConfig(
        credentials=(cast.server,), cipher_suites=offer.suites, groups=server_groups, alpn=offer.alpn,
        client_auth=auth, verify_client=_verifier(anchors, None, Use.CLIENT),
    )  # fmt: skip
    notes, client = rehearsal.rehearse(client_config, server_config)
    if options.resume:
        client_config = replace(client_config, session=client.sessions[-1])
    if options.resume or options.key_update:
        notes, client = rehearsal.rehearse(client_config, server_config, update_keys=options.key_update)
    return _story("A TLS 1.3 handshake inside this process", "in this process", client, notes, None)


def with_server(offer: Offer, visit: Visit) -> Story:
    """Let our client talk to a real server, and tell it, as far as it went."""
    try:
        address = parse_target(visit.address)
    except AddressError as exc:
        raise UsageError("HOST:PORT", str(exc)) from exc
    connect_s = _duration("--connect-timeout", visit.connect_timeout)
    handshake_s = _duration("--handshake-timeout", visit.handshake_timeout)
    host = visit.server_name or (address.host if isinstance(address, TCPAddress) else "")
    sent_name = host if _is_name(host) else ""
    anchors = chains.load_trust(visit.ca)[1]
    config = ClientConfig(
        server_name=sent_name, cipher_suites=offer.suites, groups=offer.groups, alpn=offer.alpn,
        credential=_credential(visit), verify=_verifier(anchors, host or None),
    )  # fmt: skip
    notes, client, failure = explain_network.talk(address, config, connect_s, handshake_s)
    if visit.resume and failure is None:
        if not client.sessions:
            failure = "the server gave no ticket, so there is nothing to resume; leave --resume out"
        else:
            config = replace(config, session=client.sessions[-1])
            notes, client, failure = explain_network.talk(address, config, connect_s, handshake_s)
    return _story(f"A TLS 1.3 handshake with {address}", str(address), client, notes, failure)


def _is_name(host: str) -> bool:
    """Whether a server can be asked for it: SNI takes no IP addresses (RFC 6066 section 3)."""
    return bool(host) and host.isascii() and not TCPAddress(host, 0).is_literal


def _duration(option: str, text: str) -> float | None:
    try:
        seconds = parse_duration(text)
    except UnitError as exc:
        raise UsageError(option, str(exc)) from exc
    return None if seconds == math.inf else seconds  # as a socket wants it


def _credential(visit: Visit) -> Credential | None:
    if visit.cert is None and visit.key is None:
        return None
    if visit.cert is None or visit.key is None:
        missing, given = ("--cert", "--key") if visit.cert is None else ("--key", "--cert")
        raise UsageError(missing, f"missing; {given} needs the other half of the pair")
    files = CertificateFiles(certificate=visit.cert, key=visit.key, key_passphrase_file=visit.key_passphrase_file)
    read = load_credential(files, PassphraseSource.of_this_process())
    key = parse_private_key(read.key_der, None)
    return make_credential((read.certificate_der, *read.chain_der), key, str(visit.key))


def _verifier(anchors: Any, host: str | None, use: Use = Use.SERVER) -> ChainVerifier:
    """Judges a chain without ending the handshake: a story says what is wrong and goes on."""

    def verify(chain: tuple[bytes, ...]) -> ChainVerdict:
        try:
            found = [readers.certificates(each, where=f"certificate {at}")[0] for at, each in enumerate(chain)]
            verdict = chains.verify(found[0], found[1:], anchors, host=host, use=use)
        except TunnelError as exc:
            return ChainVerdict(False, f"the chain does not verify: {exc}")
        if not verdict.verifies:
            return ChainVerdict(False, f"the chain does not verify: {'; '.join(verdict.problems)}")
        who = f" and the certificate is for {host}" if host else ""
        return ChainVerdict(True, f"the chain leads to a trusted CA, every certificate in it is valid now{who}")

    return verify


def _story(title: str, server: str, client: Client, notes: list[TaggedNote], failure: str | None) -> Story:
    narrator = Narrator()
    narrator.tell(notes)
    checks = [check for step in narrator.steps if step.title == "Server's Certificate" for check in step.checks]
    summary: dict[str, Any] = {
        "version": "TLS 1.3",
        "complete": failure is None,
        "cipher_suite": client.suite.name if client.suite else None,
        "group": _named(client.group, group_name),
        "signature": _named(client.server_scheme, scheme_name),
        "alpn": client.alpn,
        "resumed": client.is_resumed,
        "hello_retry_request": client.was_retried,
        "client_certificate_requested": client.certificate_request is not None,
        "chain_verifies": checks[0].passed if checks else None,
        "chain": checks[0].text if checks else None,
        "tickets": len(client.sessions),
        "bytes_from_client": sum(each.length for each in narrator.records if each.sender == "client"),
        "bytes_from_server": sum(each.length for each in narrator.records if each.sender == "server"),
    }
    return Story(title, server, summary, narrator.steps, narrator.records, failure)


def _named(value: int | None, name: Callable[[int], str]) -> str | None:
    return None if value is None else name(value)
