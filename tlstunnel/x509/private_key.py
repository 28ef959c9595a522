"""Private keys out of PEM or DER, in every form that OpenSSL writes.

RFC 9881 section 6 has three forms of an ML-DSA key in PKCS#8: the seed, from which everything else is computed; the
expanded key; or both, which is what OpenSSL 3.5 writes. `cryptography` reads the seed alone. Of a key with both the
seed is taken, once OpenSSL has compared it with the expanded key. A seed cannot be computed from an expanded key, so
that one stays as it is: OpenSSL signs with it in TLS, and `ExpandedKey` stands for it here.
"""

from __future__ import annotations

import base64
import warnings
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
)

MIN_RSA_BITS = 2048
"""OpenSSL's security level 2, its default, refuses less (112 bits of security), and no public CA signs it."""
MAX_RSA_BITS = 16384
"""OpenSSL makes and verifies no signatures with more (OPENSSL_RSA_MAX_MODULUS_BITS)."""

# AlgorithmIdentifier of ML-DSA-44, -65 and -87 (RFC 9881 section 2) up to the last byte, which tells them apart.
_MLDSA = bytes.fromhex("300b06096086480165030403")
_SEED, _OCTETS, _SEQUENCE = 0x80, 0x04, 0x30
_VERSION = b"\x02\x01\x00"


class ExpandedKey:
    """An ML-DSA key without its seed. It has as much of the interface of cryptography's keys as we use to read one."""

    def __init__(self, pkcs8: bytes, public_key: Any) -> None:
        self._pkcs8, self._public_key = pkcs8, public_key

    def public_key(self) -> Any:
        """Its public half."""
        return self._public_key

    def private_bytes(self, encoding: Encoding, _format: object, _encryption: object) -> bytes:
        """Unencrypted PKCS#8 in DER or PEM."""
        return self._pkcs8 if encoding is Encoding.DER else _to_pem("PRIVATE KEY", self._pkcs8)


def load_private_key(data: bytes, passphrase: bytes | None) -> Any:
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
            found = read_key(data if is_pem else _to_pem(label, data), passphrase)
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
    if tag == _OCTETS:
        return ExpandedKey(pkcs8, load_der_public_key(public))
    seed = content if tag == _SEED else _open(content)[1]
    key = _wrap(_OCTETS, _wrap(_SEED, seed))
    return load_der_private_key(_wrap(_SEQUENCE, _VERSION + algorithm + key), None)


def _open(der: bytes) -> tuple[int, bytes]:
    """Tag and content of the first element of what OpenSSL has written."""
    count = der[1] & 0x7F if der[1] & 0x80 else 0
    length = int.from_bytes(der[2 : 2 + count], "big") if count else der[1]
    return der[0], der[2 + count : 2 + count + length]


def _wrap(tag: int, content: bytes) -> bytes:
    return bytes([tag, len(content)]) + content  # a seed and what stands around it take less than 128 bytes


def _to_pem(label: str, der: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n".encode()
