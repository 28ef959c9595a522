"""Key exchange: the two halves of Diffie-Hellman, and ML-KEM beside it (RFC 8446 sections 4.2.8 and 7.4).

X25519 and the NIST curves are symmetric: each end sends a public value and combines the other's with its own private
one. ML-KEM is not: the client sends an encapsulation key, the server answers with a ciphertext, so the two ends do
different things. X25519MLKEM768 does both at once and joins the results, ML-KEM's first
(draft-ietf-tls-ecdhe-mlkem); whoever wants the key has to break both.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, mlkem
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.names import AlertDescription, NamedGroup, group_name

# A source of random bytes: how many, and what for. Tests that replay a trace answer from it.
Entropy = Callable[[int, str], bytes]
Parts = tuple[tuple[str, bytes], ...]

_MLKEM_KEY, _MLKEM_CIPHERTEXT, _X25519_KEY = 1184, 1088, 32
_CURVES: dict[int, tuple[ec.EllipticCurve, int]] = {
    NamedGroup.SECP256R1: (ec.SECP256R1(), 32),
    NamedGroup.SECP384R1: (ec.SECP384R1(), 48),
}


def system_entropy(count: int, purpose: str) -> bytes:
    """`count` bytes from the operating system, whatever the purpose."""
    return os.urandom(count)


class Offer(Protocol):
    """The private half a client keeps of a key share it sent."""

    group: int
    public: bytes

    def finish(self, answer: bytes) -> tuple[bytes, Parts]:
        """The shared secret, and for a hybrid group the parts it is made of."""
        ...


def offer(group: int, entropy: Entropy = system_entropy) -> Offer:
    """What a client generates for one key share."""
    if group in _CURVES:
        return _CurveOffer(group, entropy)
    return _HybridOffer(entropy) if group == NamedGroup.X25519MLKEM768 else _X25519Offer(entropy)


def answer(group: int, peer_public: bytes, entropy: Entropy = system_entropy) -> tuple[bytes, bytes, Parts]:
    """What a server does with a client's share: its own share, the shared secret and the secret's parts.

    Raises:
        Violation: illegal_parameter if the share is no valid one.
    """
    if group != NamedGroup.X25519MLKEM768:
        own = offer(group, entropy)
        return own.public, *own.finish(peer_public)
    _expect(len(peer_public) == _MLKEM_KEY + _X25519_KEY, group)
    try:
        encapsulation_key = mlkem.MLKEM768PublicKey.from_public_bytes(peer_public[:_MLKEM_KEY])
    except ValueError:
        raise _bad_share(group) from None
    kem_secret, ciphertext = encapsulation_key.encapsulate()
    curve = _X25519Offer(entropy)
    curve_secret, _ = curve.finish(peer_public[_MLKEM_KEY:])
    return ciphertext + curve.public, kem_secret + curve_secret, _hybrid_parts(kem_secret, curve_secret)


def supported_groups() -> tuple[NamedGroup, ...]:
    """Every group that the library beneath can compute, the post-quantum one first."""
    classical = (NamedGroup.X25519, NamedGroup.SECP256R1, NamedGroup.SECP384R1)
    try:
        mlkem.MLKEM768PrivateKey.generate()
    except UnsupportedAlgorithm:
        return classical
    return (NamedGroup.X25519MLKEM768, *classical)


class _X25519Offer:
    def __init__(self, entropy: Entropy) -> None:
        self.group: int = NamedGroup.X25519
        self._private = X25519PrivateKey.from_private_bytes(entropy(32, "x25519 private key"))
        self.public = self._private.public_key().public_bytes_raw()

    def finish(self, answer: bytes) -> tuple[bytes, Parts]:
        _expect(len(answer) == _X25519_KEY, self.group)
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(answer)), ()
        except ValueError:
            # The result would be zero: a point of small order, which RFC 8446 section 7.4.2 tells us to refuse.
            raise _bad_share(self.group) from None


class _CurveOffer:
    def __init__(self, group: int, entropy: Entropy) -> None:
        self.group = group
        self._curve, size = _CURVES[group]
        scalar = 0
        while not 0 < scalar < self._curve.group_order:
            scalar = int.from_bytes(entropy(size, f"{group_name(group)} private key"))
        self._private = ec.derive_private_key(scalar, self._curve)
        self.public = self._private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def finish(self, answer: bytes) -> tuple[bytes, Parts]:
        # Only the uncompressed form is allowed (section 4.2.8.2).
        _expect(answer[:1] == b"\4", self.group)
        try:
            point = ec.EllipticCurvePublicKey.from_encoded_point(self._curve, answer)
        except ValueError:
            raise _bad_share(self.group) from None
        return self._private.exchange(ec.ECDH(), point), ()


class _HybridOffer:
    def __init__(self, entropy: Entropy) -> None:
        self.group: int = NamedGroup.X25519MLKEM768
        self._kem = mlkem.MLKEM768PrivateKey.from_seed_bytes(entropy(64, "ML-KEM-768 seed"))
        self._curve = _X25519Offer(entropy)
        self.public = self._kem.public_key().public_bytes_raw() + self._curve.public

    def finish(self, answer: bytes) -> tuple[bytes, Parts]:
        _expect(len(answer) == _MLKEM_CIPHERTEXT + _X25519_KEY, self.group)
        kem_secret = self._kem.decapsulate(answer[:_MLKEM_CIPHERTEXT])
        curve_secret, _ = self._curve.finish(answer[_MLKEM_CIPHERTEXT:])
        return kem_secret + curve_secret, _hybrid_parts(kem_secret, curve_secret)


def _hybrid_parts(kem_secret: bytes, curve_secret: bytes) -> Parts:
    return (("ML-KEM-768 shared secret", kem_secret), ("X25519 shared secret", curve_secret))


def _expect(is_right: bool, group: int) -> None:
    if not is_right:
        raise _bad_share(group)


def _bad_share(group: int) -> Violation:
    return Violation(AlertDescription.ILLEGAL_PARAMETER, f"the peer's {group_name(group)} share is no valid one")
