"""What the library or the protocol does not have, found out and said in words; and what groups are called."""

from __future__ import annotations

from tlstunnel._openssl import Engine, TLSError
from tlstunnel.tools.bench.cases import Group, Handshake, Key, Suite

_GROUP_NAMES = {
    "x25519": "X25519", "x448": "X448", "secp256r1": "P-256", "prime256v1": "P-256", "secp384r1": "P-384",
    "secp521r1": "P-521",
}  # fmt: skip


class UnsupportedError(Exception):
    """The library refuses this combination; says why."""


def group_name(end: Engine) -> str:
    """The group negotiated, by the name people know; OpenSSL has other ones for some."""
    return _GROUP_NAMES.get(end.group(), end.group())


def refused(error: TLSError) -> str:
    """Why there was no handshake between two ends that want nothing but this."""
    if "no ciphers available" in error.reasons:
        return "forbidden by security level"
    return f"no handshake: {error}"


def groups(version: str, key: Key, group: Group) -> str:
    """The groups to offer. TLS 1.2 takes a certificate on a curve only where that is among them (RFC 8422, 5.1.1)."""
    if version == "1.3":
        return group.name
    names = [group.name_12 or group.name]
    curve = key.name.removeprefix("ECDSA ")
    if curve != key.name and curve not in names:
        names.append(curve)
    return ":".join(names)


def check_group(end: Engine, case: Handshake) -> None:
    """TLS 1.2 was offered a second group for the certificate's sake; it must not have been taken.

    Raises:
        UnsupportedError: it was.
    """
    if group_name(end) not in (case.group.name, case.group.name_12):
        raise UnsupportedError(f"TLS {case.version} does not use {case.group.name}")


def unknown(key: str, suite: Suite, identity: Key, group: Group) -> str:
    """What the library does not know, in words."""
    if key == "groups":
        return f"this library has no group {group.name}"
    if key == "certificate":
        return f"this library takes no {identity.name} certificates"
    return f"this library has no suite {suite.name}"
