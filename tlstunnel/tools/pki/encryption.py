"""Encrypted keys: how costly a guess of the passphrase is, and how costly a stranger may make it for us.

Writing. The library's own PKCS#8 encryption derives its key with 2048 rounds of PBKDF2, which a single graphics card
tries millions of times a second. The key of a CA deserves better, so the same standard form (PBES2 of RFC 8018 section
6.2: PBKDF2-HMAC-SHA256, AES-256-CBC) is put together here with more rounds. Every library reads it: the number of
rounds is part of the file.

Reading. Because the number of rounds is part of the file, a hostile file can ask for four billion and keep us busy for
an hour, deaf to Ctrl-C. `check_cost` walks the DER without interpreting it and refuses such a file before any key is
derived.
"""

from __future__ import annotations

import base64
import os

from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from tlstunnel.errors import UsageError
from tlstunnel.tools.pki.passphrase import Passphrase

ROUNDS = 600_000
"""OWASP's figure for PBKDF2-HMAC-SHA256 (password storage cheat sheet, 2023): about 0.1 s here."""

MAX_ROUNDS = 10_000_000
"""Some seconds of work, and far above every tool's default. For scrypt it bounds the product N * r * p."""

_MAX_DEPTH = 24
_MAX_ELEMENTS = 200_000
_TAG_INTEGER, _TAG_OCTETS, _CONSTRUCTED = 0x02, 0x04, 0x20
_LONGEST_COST = 16  # bytes of a number that are looked at; whatever is longer is too much anyway

_OID_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_OID_PBKDF2 = bytes.fromhex("06092a864886f70d01050c")
_OID_HMAC_SHA256 = bytes.fromhex("06082a864886f70d0209")
_OID_AES_256_CBC = bytes.fromhex("060960864801650304012a")


def encrypt_pkcs8(plain: bytes, passphrase: Passphrase, *, rounds: int = ROUNDS) -> bytes:
    """An EncryptedPrivateKeyInfo in DER (RFC 5958 section 3) around a PrivateKeyInfo in DER."""
    salt, iv = os.urandom(16), os.urandom(16)
    key = PBKDF2HMAC(hashes.SHA256(), 32, salt, rounds).derive(passphrase.reveal())
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    encrypted = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    derivation = _sequence(
        _OID_PBKDF2, _sequence(_octets(salt), _integer(rounds), _sequence(_OID_HMAC_SHA256, b"\x05\x00"))
    )
    scheme = _sequence(_OID_AES_256_CBC, _octets(iv))
    return _sequence(_sequence(_OID_PBES2, _sequence(derivation, scheme)), _octets(encrypted))


def to_pem(label: str, der: bytes) -> bytes:
    """PEM with lines of 64 characters (RFC 7468 section 2)."""
    text = base64.b64encode(der).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


def check_cost(data: bytes, *, where: str) -> None:
    """Refuse a key or PKCS#12 in DER whose key derivation would take unreasonably long.

    Raises:
        UsageError: it asks for more rounds, or more memory, than any honest file.
    """
    # A derivation is a salt followed by numbers in one sequence (PBKDF2-params, scrypt-params, pkcs-12PbeParams, the
    # end of PKCS#12's MacData). PKCS#12 hides more of them inside octet strings that hold exactly one DER sequence.
    elements_left = _MAX_ELEMENTS
    pending = [(0, len(data), 0)]
    while pending:
        position, end, depth = pending.pop()
        salted, numbers = False, list[int]()
        while position < end and elements_left > 0:
            elements_left -= 1
            element = _element(data, position, end)
            if element is None:
                break
            tag, body, after = element
            if tag == _TAG_INTEGER and salted:
                numbers.append(
                    int.from_bytes(data[body:after][:_LONGEST_COST], "big")
                    * (256 if after - body > _LONGEST_COST else 1)
                )
            salted = salted or tag == _TAG_OCTETS
            if depth < _MAX_DEPTH and (tag & _CONSTRUCTED or (tag == _TAG_OCTETS and _is_sequence(data[body:after]))):
                pending.append((body, after, depth + 1))
            position = after
        if _is_too_costly(numbers):
            what = f"its encryption asks for more than {MAX_ROUNDS} rounds of work; do not trust where it came from"
            raise UsageError(where, what)


def _is_too_costly(numbers: list[int]) -> bool:
    # Three numbers are scrypt's N, r and p, which multiply; else they are rounds, and perhaps the key's length.
    cost = numbers[0] * numbers[1] * numbers[2] if len(numbers) >= 3 else max(numbers, default=0)
    return cost > MAX_ROUNDS


def _is_sequence(data: bytes) -> bool:
    if data[:1] != b"\x30":
        return False
    element = _element(data, 0, len(data))
    return element is not None and element[2] == len(data)


def _element(data: bytes, position: int, end: int) -> tuple[int, int, int] | None:
    """Tag, start and end of the content of the element here; None if it is not well-formed."""
    if position + 2 > end:
        return None
    tag, length = data[position], data[position + 1]
    body = position + 2
    if length == 0x80:  # indefinite (BER): its content runs to the end as far as we care
        return tag, body, end
    if length > 0x80:
        count = length & 0x7F
        if count > 4 or body + count > end:
            return None
        length = int.from_bytes(data[body : body + count], "big")
        body += count
    return (tag, body, body + length) if body + length <= end else None


def _sequence(*parts: bytes) -> bytes:
    return _tagged(0x30, b"".join(parts))


def _octets(content: bytes) -> bytes:
    return _tagged(0x04, content)


def _integer(value: int) -> bytes:
    return _tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _tagged(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
