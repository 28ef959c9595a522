"""Private keys: decrypted, judged fit for TLS, and named the way people name them."""

from __future__ import annotations

import base64
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tlstunnel.x509 import private_key as x509
from tlstunnel.x509.passphrase_source import PassphraseSource
from tlstunnel.x509.pem import Block, SourceFile
from tlstunnel.x509.private_key import MAX_RSA_BITS, MIN_RSA_BITS

_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
# TLS 1.3 has signature schemes for these (RFC 8734), few peers do.
_RARE_CURVES = ("brainpoolP256r1", "brainpoolP384r1", "brainpoolP512r1")
# By the name of the class: older releases of cryptography that we support have no module for ML-DSA.
_OTHER_KINDS = {
    "Ed25519PublicKey": "Ed25519",
    "Ed448PublicKey": "Ed448",
    "MLDSA44PublicKey": "ML-DSA-44",
    "MLDSA65PublicKey": "ML-DSA-65",
    "MLDSA87PublicKey": "ML-DSA-87",
}
# Version 1 and the tag of the private value.
_EC_VERSION = b"\x02\x01\x01\x04"
_MISENCODED = "not encoded properly"
_WRITE_AGAIN = "its EC key is not encoded as RFC 5915 wants it (GnuTLS 3.7 does that); write it again with openssl"
_ENCRYPTED_BADLY = "is encrypted in a way that is not supported; write it again with openssl pkcs8 -topk8"


def key_type(public_key: Any) -> str:
    """`ECDSA P-256`, `RSA 2048`, `Ed25519`, `ML-DSA-65`, ..."""
    if isinstance(public_key, rsa.RSAPublicKey):
        return f"RSA {public_key.key_size}"
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return f"ECDSA {_CURVES.get(public_key.curve.name, public_key.curve.name)}"
    if isinstance(public_key, dsa.DSAPublicKey):
        return f"DSA {public_key.key_size}"
    kind = type(public_key).__name__
    return _OTHER_KINDS.get(kind, kind.removesuffix("PublicKey"))


def unfit_for_tls(public_key: Any) -> str | None:
    """Why no TLS peer would accept this key, or `None`."""
    name = key_type(public_key)
    if isinstance(public_key, rsa.RSAPublicKey):
        if public_key.key_size < MIN_RSA_BITS:
            return f"{name} is refused by OpenSSL (security level 2); use at least 2048 bits"
        if public_key.key_size > MAX_RSA_BITS:
            return f"{name} is more than OpenSSL takes; use at most {MAX_RSA_BITS} bits, of which 4096 are plenty"
        return None
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        if public_key.curve.name in _CURVES or public_key.curve.name in _RARE_CURVES:
            return None
        return f"TLS 1.3 has no signatures with {name}; use ECDSA P-256"
    if type(public_key).__name__ in _OTHER_KINDS:
        return None
    return f"{name} is of no use in TLS; use ECDSA P-256"


def is_rare(public_key: Any) -> bool:
    """Whether the curve works, but with few peers."""
    return isinstance(public_key, ec.EllipticCurvePublicKey) and public_key.curve.name in _RARE_CURVES


def spki(public_key: Any) -> bytes:
    """SubjectPublicKeyInfo in DER: equal for equal keys."""
    der: bytes = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def pkcs8(key: Any) -> bytes:
    """The key as unencrypted PKCS#8 in DER."""
    der: bytes = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return der


def load_private_key(
    file: SourceFile, block: Block, passphrase_file: SourceFile | None, passphrases: PassphraseSource
) -> Any:
    """The private key in a PEM block, decrypted if need be.

    Errors have no cause attached: what a parser says of a key may quote it.

    Raises:
        MaterialError: damaged, of a kind that is not supported, or the passphrase is missing or wrong.
    """
    if block.label == "OPENSSH PRIVATE KEY":
        raise file.error("holds an OpenSSH key; convert a copy of it with ssh-keygen -p -m PKCS8 -f COPY")
    if not block.is_encrypted:
        try:
            return x509.load_private_key(_without_sign_byte(block), None)
        except (ValueError, TypeError) as exc:
            if _MISENCODED in str(exc):
                raise file.error(_WRITE_AGAIN) from None
            raise file.error(f"line {block.line}: {block.label} is damaged; copy it anew") from None
        except UnsupportedAlgorithm:
            raise file.error(
                f"line {block.line}: {block.label} is of a kind that TLS does not use; use ECDSA P-256"
            ) from None
    return decrypt(file, passphrase_file, passphrases, lambda secret: x509.load_private_key(block.text, secret))


def decrypt(file: SourceFile, passphrase_file: SourceFile | None, passphrases: PassphraseSource, load: Any) -> Any:
    """Call `load` on what `file` holds, with one passphrase after the other until one fits.

    Raises:
        MaterialError: none fits, or the encryption is not supported.
    """
    origin = ""
    for attempt in passphrases.attempts(file.path, passphrase_file):
        origin = attempt.origin
        try:
            opened = load(attempt.value)
        except UnsupportedAlgorithm:
            raise file.error(_ENCRYPTED_BADLY) from None
        except (ValueError, TypeError) as exc:
            # That the passphrase was right, and what else is wrong, cryptography says in words alone.
            if "unknown" in str(exc).lower():
                raise file.error(_ENCRYPTED_BADLY) from None
            if _MISENCODED in str(exc):
                raise file.error(_WRITE_AGAIN) from None
            continue
        passphrases.remember(file.path, attempt)
        return opened
    raise file.error(f"is encrypted, and {origin} does not open it; correct the passphrase")


def _without_sign_byte(block: Block) -> bytes:
    """The block's text, repaired if it is an EC key from GnuTLS 3.7.

    RFC 5915 section 3 gives the private value the length of the curve's order. GnuTLS puts a zero before it when its
    first bit is set, so half of the keys certtool makes are a byte too long. OpenSSL does not mind, cryptography does.
    """
    if block.label != "EC PRIVATE KEY" or block.is_encrypted:
        return block.text
    head = 2 + (block.der[1] & 0x7F if block.der[1:2] >= b"\x80" else 0)
    body = block.der[head:]
    if not body.startswith(_EC_VERSION) or len(body) < 6 or body[4] not in (33, 49, 67) or body[5] != 0:
        return block.text
    repaired = body[:4] + bytes([body[4] - 1]) + body[6:]
    length = len(repaired)
    size = bytes([length]) if length < 0x80 else bytes([0x81, length]) if length < 0x100 else b""
    if not size:
        return block.text
    encoded = base64.encodebytes(b"\x30" + size + repaired)
    return b"-----BEGIN EC PRIVATE KEY-----\n" + encoded + b"-----END EC PRIVATE KEY-----\n"
