"""ML-DSA keys in the three forms of RFC 9881 section 6, of which our library writes the seed alone."""

from __future__ import annotations

import base64
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tlstunnel._openssl import read_key
from tlstunnel.tools.pki import encryption
from tlstunnel.x509.passphrase import Passphrase
from tlstunnel.x509.pem import write_pem

FORMS = ("seed", "expanded", "both")


def pkcs8(key: Any, form: str) -> bytes:
    """The key as PKCS#8 in DER."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    read = read_key(pem, None)  # OpenSSL expands the seed, and writes both
    assert read is not None
    both = read[0]
    algorithm, inner = parts(both)
    if form == "both":
        return both
    seed, expanded = elements(elements(inner)[0][1])
    content = tlv(0x80, seed[1]) if form == "seed" else tlv(0x04, expanded[1])
    return tlv(0x30, b"\x02\x01\x00" + algorithm + tlv(0x04, content))


def pem(der: bytes, label: str = "PRIVATE KEY") -> bytes:
    """As PEM."""
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n".encode()


def encrypted(der: bytes, passphrase: str) -> bytes:
    """Encrypted, as PEM."""
    return write_pem(
        "ENCRYPTED PRIVATE KEY", encryption.encrypt_pkcs8(der, Passphrase(passphrase.encode()), rounds=1000)
    )


def parts(der: bytes) -> tuple[bytes, bytes]:
    """The AlgorithmIdentifier of PKCS#8, and what its key holds."""
    _, algorithm, key = elements(elements(der)[0][1])
    return tlv(0x30, algorithm[1]), key[1]


def elements(der: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each element in a row."""
    found = []
    while der:
        count = der[1] & 0x7F if der[1] & 0x80 else 0
        length = int.from_bytes(der[2 : 2 + count], "big") if count else der[1]
        found.append((der[0], der[2 + count : 2 + count + length]))
        der = der[2 + count + length :]
    return found


def tlv(tag: int, content: bytes) -> bytes:
    """One element."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
