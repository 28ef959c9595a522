"""The bodies of the extensions a handshake turns on (RFC 8446 section 4.2), encoded and decoded.

Some extensions have one form in a ClientHello and another in the server's answer; the function names say which.
"""

from __future__ import annotations

from dataclasses import dataclass

from tlstunnel.tools.tls13.extension_block import Extension
from tlstunnel.tools.tls13.names import ExtensionType as Ext
from tlstunnel.tools.tls13.wire import Reader, uint, uints, vector

PSK_DHE_KE = 1  # Section 4.2.9: resumption with a fresh key exchange, the only mode used here.


@dataclass(frozen=True, slots=True)
class KeyShare:
    """A group and the public value for it (section 4.2.8)."""

    group: int
    key_exchange: bytes

    def encode(self) -> bytes:
        """The entry as both hellos carry it."""
        return uint(self.group, 2) + vector(self.key_exchange, 2)


@dataclass(frozen=True, slots=True)
class OfferedPSK:
    """The client's pre_shared_key extension: tickets with obfuscated ages, and one binder for each (4.2.11)."""

    identities: tuple[tuple[bytes, int], ...]
    binders: tuple[bytes, ...]

    @property
    def binders_length(self) -> int:
        """Bytes that the binders take at the end of the ClientHello; the binders themselves do not cover them."""
        return 2 + sum(1 + len(binder) for binder in self.binders)

    def encode(self) -> Extension:
        """The extension."""
        identities = b"".join(vector(identity, 2) + uint(age, 4) for identity, age in self.identities)
        binders = b"".join(vector(binder, 1) for binder in self.binders)
        return Extension(Ext.PRE_SHARED_KEY, vector(identities, 2) + vector(binders, 2))


def server_name(name: str) -> Extension:
    """RFC 6066 section 3."""
    return Extension(Ext.SERVER_NAME, vector(b"\0" + vector(name.encode("ascii"), 2), 2))


def read_server_name(data: bytes) -> str:
    """The host name a client asked for, with what is not ASCII made visible; empty if it named none."""
    outer = Reader(data, "server_name")
    names = outer.inner(2, least=1)
    outer.end()
    while names:
        kind, name = names.uint(1), names.vector(2, least=1)
        if kind == 0:
            return name.decode("ascii", "backslashreplace")
    return ""


def groups(values: tuple[int, ...]) -> Extension:
    """Section 4.2.7."""
    return Extension(Ext.SUPPORTED_GROUPS, uints(values, 2))


def signature_algorithms(values: tuple[int, ...]) -> Extension:
    """Section 4.2.3."""
    return Extension(Ext.SIGNATURE_ALGORITHMS, uints(values, 2))


def read_numbers(data: bytes, what: str) -> tuple[int, ...]:
    """The 16-bit numbers of supported_groups or signature_algorithms."""
    reader = Reader(data, what)
    values = reader.uints(2)
    reader.end()
    return values


def client_versions(values: tuple[int, ...]) -> Extension:
    """Section 4.2.1, in a ClientHello."""
    return Extension(Ext.SUPPORTED_VERSIONS, uints(values, 1))


def read_client_versions(data: bytes) -> tuple[int, ...]:
    """The versions a client offers, most wanted first."""
    reader = Reader(data, "supported_versions")
    values = reader.uints(1)
    reader.end()
    return values


def single(kind: int, value: int) -> Extension:
    """An extension that is one 16-bit number: supported_versions, pre_shared_key or a retry's key_share."""
    return Extension(kind, uint(value, 2))


def read_single(data: bytes, what: str, size: int = 2) -> int:
    """The number in an extension that is one number of `size` bytes."""
    reader = Reader(data, what)
    value = reader.uint(size)
    reader.end()
    return value


def client_shares(shares: tuple[KeyShare, ...]) -> Extension:
    """Section 4.2.8, in a ClientHello."""
    return Extension(Ext.KEY_SHARE, vector(b"".join(share.encode() for share in shares), 2))


def read_client_shares(data: bytes) -> tuple[KeyShare, ...]:
    """The shares a client offers, most wanted first."""
    outer = Reader(data, "key_share")
    inner = outer.inner(2)
    outer.end()
    found = []
    while inner:
        found.append(KeyShare(inner.uint(2), inner.vector(2, least=1)))
    return tuple(found)


def server_share(share: KeyShare) -> Extension:
    """Section 4.2.8, in a ServerHello."""
    return Extension(Ext.KEY_SHARE, share.encode())


def read_server_share(data: bytes) -> KeyShare:
    """The server's share."""
    reader = Reader(data, "key_share")
    share = KeyShare(reader.uint(2), reader.vector(2, least=1))
    reader.end()
    return share


def cookie(value: bytes) -> Extension:
    """Section 4.2.2."""
    return Extension(Ext.COOKIE, vector(value, 2))


def read_cookie(data: bytes) -> bytes:
    """What the server wants to see again."""
    reader = Reader(data, "cookie")
    value = reader.vector(2, least=1)
    reader.end()
    return value


def psk_modes() -> Extension:
    """Section 4.2.9, with psk_dhe_ke alone."""
    return Extension(Ext.PSK_KEY_EXCHANGE_MODES, vector(bytes([PSK_DHE_KE]), 1))


def read_psk_modes(data: bytes) -> tuple[int, ...]:
    """The ways in which a client would use a PSK."""
    reader = Reader(data, "psk_key_exchange_modes")
    modes = reader.uints(1, item=1, least=1)
    reader.end()
    return modes


def read_offered_psk(data: bytes) -> OfferedPSK:
    """The client's tickets and binders."""
    reader = Reader(data, "pre_shared_key")
    inner = reader.inner(2, least=7)
    identities = []
    while inner:
        identities.append((inner.vector(2, least=1), inner.uint(4)))
    inner = reader.inner(2, least=33)
    binders = []
    while inner:
        binders.append(inner.vector(1, least=32))
    reader.end()
    return OfferedPSK(tuple(identities), tuple(binders))


def alpn(protocols: tuple[str, ...]) -> Extension:
    """RFC 7301 section 3.1."""
    names = b"".join(vector(protocol.encode("ascii"), 1) for protocol in protocols)
    return Extension(Ext.ALPN, vector(names, 2))


def read_alpn(data: bytes) -> tuple[str, ...]:
    """The protocols named."""
    outer = Reader(data, "application_layer_protocol_negotiation")
    inner = outer.inner(2, least=2)
    outer.end()
    found = []
    while inner:
        found.append(inner.vector(1, least=1).decode("ascii", "backslashreplace"))
    return tuple(found)


def certificate_authorities(names: tuple[bytes, ...]) -> Extension:
    """Section 4.2.4: distinguished names in DER."""
    return Extension(Ext.CERTIFICATE_AUTHORITIES, vector(b"".join(vector(name, 2) for name in names), 2))


def read_certificate_authorities(data: bytes) -> tuple[bytes, ...]:
    """The names of the CAs, in DER."""
    outer = Reader(data, "certificate_authorities")
    inner = outer.inner(2, least=3)
    outer.end()
    found = []
    while inner:
        found.append(inner.vector(2, least=1))
    return tuple(found)
