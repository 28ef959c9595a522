"""What a client offers, and whom it believes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tlstunnel.tools.tls13.extension_block import Extensions
from tlstunnel.tools.tls13.names import CipherSuite, NamedGroup, SignatureScheme
from tlstunnel.tools.tls13.session import Session
from tlstunnel.tools.tls13.signature import Credential


@dataclass(frozen=True, slots=True)
class ChainVerdict:
    """Whether a chain is trusted, and a sentence that says why."""

    trusted: bool
    text: str


ChainVerifier = Callable[[tuple[bytes, ...]], ChainVerdict]
"""Takes a chain in DER. It raises `Violation`, with the alert to send, to refuse a chain; one that is returned as not
trusted is only noted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """What a `Client` offers. The defaults are the tunnel's own: post-quantum first, every suite of TLS 1.3."""

    server_name: str = ""
    """The name to ask for (SNI); empty sends none, as for an IP address."""
    cipher_suites: tuple[int, ...] = tuple(CipherSuite)
    groups: tuple[int, ...] = tuple(NamedGroup[name] for name in ("X25519MLKEM768", "X25519", "SECP256R1", "SECP384R1"))
    key_shares: tuple[int, ...] | None = None
    """The groups to send a share for at once; None is the first of `groups` and X25519, as browsers do."""
    signature_schemes: tuple[int, ...] = tuple(SignatureScheme)
    alpn: tuple[str, ...] = ()
    credential: Credential | None = None
    """What to answer a CertificateRequest with; None answers with an empty list."""
    verify: ChainVerifier | None = None
    """Judges the server's chain; None believes anybody who holds the key."""
    session: Session | None = None
    """A session to resume."""
    ticket_age_ms: int = 0
    """Time since that session's ticket came, in milliseconds; a clock is the caller's."""
    early_data: bytes = b""
    """0-RTT data to send at once; needs a session that allows it."""
    compatibility_mode: bool = True
    """Whether to look like a TLS 1.2 resumption to middleboxes (RFC 8446 appendix D.4)."""
    pad_hello: bool = False
    """Whether to lengthen a ClientHello of 256 to 511 bytes, which breaks some old servers, to 512 (RFC 7685)."""
    extra_extensions: Extensions = ()
    """Extensions to send as they are."""
    extension_order: tuple[int, ...] = field(default=())
    """Extension types in the order to send them; those not named follow, pre_shared_key always is last."""

    @property
    def share_groups(self) -> tuple[int, ...]:
        """The groups of the first ClientHello's key shares."""
        if self.key_shares is not None:
            return self.key_shares
        first = self.groups[:1]
        return (*first, NamedGroup.X25519) if NamedGroup.X25519 in self.groups[1:] else first
