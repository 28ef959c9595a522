"""Encrypted keys: written so that a guess of the passphrase is costly.

The library's own PKCS#8 encryption derives its key with 2048 rounds of PBKDF2, which a single graphics card tries
millions of times a second. The key of a CA deserves better, so the same standard form (PBES2 of RFC 8018 section 6.2:
PBKDF2-HMAC-SHA256, AES-256-CBC) is put together here with more rounds. Every library reads it: the number of rounds is
part of the file.
"""

from __future__ import annotations

import os

from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from tlstunnel.x509.der import INTEGER, OCTETS, SEQUENCE, wrap
from tlstunnel.x509.passphrase import Passphrase

ROUNDS = 600_000
"""OWASP's figure for PBKDF2-HMAC-SHA256 (password storage cheat sheet, 2023): about 0.1 s here."""

_OID_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_OID_PBKDF2 = bytes.fromhex("06092a864886f70d01050c")
_OID_HMAC_SHA256 = bytes.fromhex("06082a864886f70d0209")
_OID_AES_256_CBC = bytes.fromhex("060960864801650304012a")


def encrypt_pkcs8(plain: bytes, passphrase: Passphrase, *, rounds: int = ROUNDS) -> bytes:
    """An EncryptedPrivateKeyInfo in DER (RFC 5958 section 3) around a PrivateKeyInfo in DER."""
    salt, iv = os.urandom(16), os.urandom(16)
    key = PBKDF2HMAC(hashes.SHA256(), 32, salt, rounds).derive(passphrase.value)
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    encrypted = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    count = wrap(INTEGER, rounds.to_bytes(rounds.bit_length() // 8 + 1, "big"))
    parameters = wrap(SEQUENCE, wrap(OCTETS, salt), count, wrap(SEQUENCE, _OID_HMAC_SHA256, b"\x05\x00"))
    derivation = wrap(SEQUENCE, _OID_PBKDF2, parameters)
    scheme = wrap(SEQUENCE, _OID_AES_256_CBC, wrap(OCTETS, iv))
    algorithm = wrap(SEQUENCE, _OID_PBES2, wrap(SEQUENCE, derivation, scheme))
    return wrap(SEQUENCE, algorithm, wrap(OCTETS, encrypted))
