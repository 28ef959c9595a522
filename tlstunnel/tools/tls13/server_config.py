"""What a server has to offer, and whom it lets in."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from tlstunnel.tools.tls13.client_config import ChainVerifier
from tlstunnel.tools.tls13.extension_block import Extensions
from tlstunnel.tools.tls13.names import CipherSuite, NamedGroup, SignatureScheme
from tlstunnel.tools.tls13.session import Session
from tlstunnel.tools.tls13.signature import Credential


class ClientAuth(Enum):
    """Whether the server asks for a certificate, and whether it insists."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """What a `Server` accepts, most wanted first."""

    credentials: tuple[Credential, ...] = ()
    """The first that fits the client's signature algorithms is used."""
    cipher_suites: tuple[int, ...] = tuple(CipherSuite)
    groups: tuple[int, ...] = tuple(NamedGroup[name] for name in ("X25519MLKEM768", "X25519", "SECP256R1", "SECP384R1"))
    """The first for which the client sent a share is used; if there is none, a HelloRetryRequest asks for the first
    that the client knows."""
    signature_schemes: tuple[int, ...] = tuple(SignatureScheme)
    """What a CertificateRequest allows a client to sign with."""
    alpn: tuple[str, ...] = ()
    client_auth: ClientAuth = ClientAuth.NONE
    verify_client: ChainVerifier | None = None
    """Judges a client's chain; None believes anybody who holds the key."""
    authorities: tuple[bytes, ...] = ()
    """Names of CAs, in DER, for CertificateRequest."""
    tickets: int = 1
    """How many tickets to give after a handshake."""
    ticket_lifetime: int = 7200
    """Seconds a client may keep one. No clock here enforces it: drop the session from `sessions` instead."""
    max_early_data: int = 0
    """Bytes of 0-RTT data to accept; 0 accepts none. An attacker can replay them (RFC 8446 section 8)."""
    sessions: dict[bytes, Session] = field(default_factory=dict, repr=False)
    """Tickets given and still good, by ticket. Share it between the servers of one service."""
    cookie: bytes = b""
    """A cookie for HelloRetryRequest; empty sends none."""
    acknowledge_name: bool = True
    """Whether to answer server_name, as a server that chose its certificate by it should (RFC 6066 section 3)."""
    encrypted_extensions: Extensions = ()
    """Extensions to put into EncryptedExtensions as they are."""
