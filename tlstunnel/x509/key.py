"""Private keys: read in every form that OpenSSL writes, decrypted, judged fit for TLS, and named as people do.

RFC 9881 section 6 has three forms of an ML-DSA key in PKCS#8: the seed, from which everything else is computed; the
expanded key; or both, which is what OpenSSL 3.5 writes. `cryptography` reads the seed alone. Of a key with both the
seed is taken, once OpenSSL has compared it with the expanded key. A seed cannot be computed from an expanded key, so
that one stays as it is: OpenSSL signs with it in TLS, and `ExpandedKey` stands for it here.
"""

from __future__ import annotations

import base64
import hashlib
import warnings
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
)

from tlstunnel.x509.cost import check_cost
from tlstunnel.x509.der import OCTETS, SEQUENCE, element, wrap
from tlstunnel.x509.passphrase import PassphraseSource
from tlstunnel.x509.pem import Block, SourceFile, write_pem

MIN_RSA_BITS = 2048
"""OpenSSL's security level 2, its default, refuses less (112 bits of security), and no public CA signs it."""
MAX_RSA_BITS = 16384
"""OpenSSL makes and verifies no signatures with more (OPENSSL_RSA_MAX_MODULUS_BITS)."""

# AlgorithmIdentifier of ML-DSA-44, -65 and -87 (RFC 9881 section 2) up to the last byte, which tells them apart.
_MLDSA = bytes.fromhex("300b06096086480165030403")
_SEED = 0x80
_VERSION = b"\x02\x01\x00"
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
_ENCRYPTED_BADLY = (
    "is encrypted in a way that is not supported; write it again with openssl pkcs8 -topk8 or openssl pkcs12"
)


def key_type(key: Any) -> str:
    """What people call a key, or its public half: `ECDSA P-256`, `RSA 2048`, `Ed25519`, `ML-DSA-65`, ..."""
    public_key = key.public_key() if hasattr(key, "public_key") else key
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


def pin(public_key: Any) -> str:
    """What `--allow-spki-pin` takes: `sha256:` and the hash of the SubjectPublicKeyInfo (RFC 7469 section 2.4)."""
    return f"sha256:{base64.b64encode(hashlib.sha256(spki(public_key)).digest()).decode()}"


def pkcs8(key: Any) -> bytes:
    """The key as unencrypted PKCS#8 in DER."""
    der: bytes = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return der


def key_block(file: SourceFile, blocks: list[Block], is_sought: bool = False) -> Block:
    """The one block that is a key.

    Args:
        is_sought: whether the key may be in another file that is not named.

    Raises:
        MaterialError: there is none, or more than one.
    """
    keys = [block for block in blocks if block.is_key]
    if len(keys) == 1:
        return keys[0]
    if keys:
        raise file.error(f"holds {len(keys)} private keys; leave only the certificate's own")
    if is_sought:
        raise file.error("holds no private key; name the key's file with key (--key), or append the key")
    if any(block.is_certificate for block in blocks):
        raise file.error("holds a certificate but no private key; are certificate and key swapped?")
    raise file.error(f"holds {blocks[0].label} but no private key; name another file")


def load_private_key(
    file: SourceFile, block: Block, passphrase_file: SourceFile | None, passphrases: PassphraseSource
) -> Any:
    """The key in a block, decrypted if need be.

    Raises:
        MaterialError: damaged, or no passphrase opens it.
    """
    if not block.is_encrypted:
        return load_plain_key(file, block)
    check_cost(file, block.der)
    return decrypt(file, passphrase_file, passphrases, lambda secret: parse_private_key(block.text, secret))


def load_plain_key(file: SourceFile, block: Block) -> Any:
    """The key in a block that is not encrypted.

    Errors have no cause attached: what a parser says of a key may quote it.

    Raises:
        MaterialError: it is damaged, or of another use than TLS.
    """
    if block.label == "OPENSSH PRIVATE KEY":
        raise file.error("holds an OpenSSH key; convert a copy of it with ssh-keygen -p -m PKCS8 -f COPY")
    try:
        return parse_private_key(_without_sign_byte(block), None)
    except (ValueError, TypeError, OverflowError) as exc:
        if _MISENCODED in str(exc):
            raise file.error(_WRITE_AGAIN) from None
        raise file.error(f"line {block.line}: {block.label} is damaged; copy it anew") from None
    except UnsupportedAlgorithm:
        raise file.error(
            f"line {block.line}: {block.label} is of a kind that TLS does not use; use ECDSA P-256"
        ) from None


def decrypt(file: SourceFile, passphrase_file: SourceFile | None, passphrases: PassphraseSource, load: Any) -> Any:
    """Call `load` on what `file` holds, with one passphrase after the other until one fits.

    Raises:
        MaterialError: none fits, or the encryption is not supported.
    """
    origin = ""
    for attempt in passphrases.attempts(file.path, passphrase_file):
        origin = attempt.origin
        if (opened := _open_with(file, attempt.value, load)) is not None:
            passphrases.remember(file.path, attempt)
            return opened
    raise file.error(f"is encrypted, and {origin} does not open it; correct the passphrase")


def _open_with(file: SourceFile, secret: bytes, load: Any) -> Any:
    """What `load` makes of a passphrase; None where that is wrong."""
    try:
        return load(secret)
    except UnsupportedAlgorithm:
        raise file.error(_ENCRYPTED_BADLY) from None
    except (ValueError, TypeError, OverflowError) as exc:
        # That the passphrase was right, and what else is wrong, cryptography says in words alone.
        if "unknown" in str(exc).lower():
            raise file.error(_ENCRYPTED_BADLY) from None
        if _MISENCODED in str(exc):
            raise file.error(_WRITE_AGAIN) from None
        return None


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
    return write_pem(block.label, wrap(SEQUENCE, repaired))


class ExpandedKey:
    """An ML-DSA key without its seed. It has as much of the interface of cryptography's keys as we use to read one."""

    def __init__(self, pkcs8: bytes, public_key: Any) -> None:
        self._pkcs8, self._public_key = pkcs8, public_key

    def public_key(self) -> Any:
        """Its public half."""
        return self._public_key

    def private_bytes(self, encoding: Encoding, _format: object, _encryption: object) -> bytes:
        """Unencrypted PKCS#8 in DER or PEM."""
        return self._pkcs8 if encoding is Encoding.DER else write_pem("PRIVATE KEY", self._pkcs8)


def parse_private_key(data: bytes, passphrase: bytes | None) -> Any:
    """The private key in one PEM block, or in DER.

    Raises:
        ValueError: damaged, or the passphrase is wrong.
        TypeError: there is a passphrase and no encryption, or the other way round.
        UnsupportedAlgorithm: of a kind that cryptography does not know.
    """
    is_pem = data.startswith(b"-----")
    with warnings.catch_warnings():
        # What is deprecated is judged in our own words, when it is known what it is for.
        warnings.simplefilter("ignore")
        load = load_pem_private_key if is_pem else load_der_private_key
        try:
            return _proved(load(data, passphrase, unsafe_skip_rsa_key_validation=True))
        except ValueError:
            from tlstunnel._openssl import read_key  # noqa: PLC0415 - the TLS library, which few keys need

            label = "PRIVATE KEY" if passphrase is None else "ENCRYPTED PRIVATE KEY"
            found = read_key(data if is_pem else write_pem(label, data), passphrase)
            if found is None or _MLDSA not in found[0][:32]:
                raise
            return _of_mldsa(*found)


def _proved(key: Any) -> Any:
    """The key itself, if it is an RSA key that works.

    The library's own check asks whether the factors are primes, which takes half a minute for 16384 bits. That the key
    signs what its public half verifies is enough to know here, and takes less for every size.
    """
    if isinstance(key, rsa.RSAPrivateKey) and MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        try:
            signature = key.sign(b"", padding.PKCS1v15(), hashes.SHA256())
            key.public_key().verify(signature, b"", padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            raise ValueError("the halves of the key do not fit") from None
    return key


def _of_mldsa(pkcs8: bytes, public: bytes) -> Any:
    at = pkcs8.index(_MLDSA)
    algorithm = pkcs8[at : at + len(_MLDSA) + 1]
    _, inner = _open(pkcs8[at + len(algorithm) :])
    tag, content = _open(inner)
    if tag == OCTETS:
        return ExpandedKey(pkcs8, load_der_public_key(public))
    seed = content if tag == _SEED else _open(content)[1]
    key = wrap(OCTETS, wrap(_SEED, seed))
    return load_der_private_key(wrap(SEQUENCE, _VERSION + algorithm + key), None)


def _open(der: bytes) -> tuple[int, bytes]:
    """Tag and content of the first element of what OpenSSL has written."""
    found = element(der, 0, len(der))
    assert found is not None  # noqa: S101 - OpenSSL knows how
    return found[0], der[found[1] : found[2]]
