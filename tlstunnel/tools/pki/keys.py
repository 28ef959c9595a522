"""Private keys: the kinds we make, and how they are read and written.

Keys are written as PKCS#8 PEM (RFC 5958, RFC 7468), the one form every current TLS library reads for every kind of
key. They are read in the older forms of openssl(1) too.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPrivateKeyTypes,
    CertificatePublicKeyTypes,
)

from tlstunnel.errors import UsageError
from tlstunnel.tools.pki import encryption, files
from tlstunnel.x509.cost import check_cost
from tlstunnel.x509.key import (
    ExpandedKey,
    decrypt,
    key_block,
    key_type,
    load_private_key,
    parse_private_key,
    spki,
    unfit_for_tls,
)
from tlstunnel.x509.passphrase import Passphrase, PassphraseSource
from tlstunnel.x509.pem import SourceFile, is_encrypted_der, parse_pem, write_pem

PrivateKey: TypeAlias = CertificateIssuerPrivateKeyTypes
"""A key that can sign certificates."""

PublicKey: TypeAlias = CertificatePublicKeyTypes
"""A key that can stand in a certificate."""

MIN_RSA_EXPONENT = 65537
"""Smaller ones have no known break in signatures, but no one needs them (NIST FIPS 186-5 section 5.1)."""


class KeyKind(enum.StrEnum):
    """The kinds of key we make."""

    P256 = "p256"
    P384 = "p384"
    ED25519 = "ed25519"
    RSA2048 = "rsa2048"
    RSA3072 = "rsa3072"
    RSA4096 = "rsa4096"
    MLDSA44 = "mldsa44"
    MLDSA65 = "mldsa65"
    MLDSA87 = "mldsa87"


def generate(kind: KeyKind = KeyKind.P256) -> PrivateKey:
    """Make a key.

    Raises:
        UsageError: this build of `cryptography` cannot make such keys.
    """
    if kind is KeyKind.P256:
        return ec.generate_private_key(ec.SECP256R1())
    if kind is KeyKind.P384:
        return ec.generate_private_key(ec.SECP384R1())
    if kind is KeyKind.ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("rsa"):
        return rsa.generate_private_key(public_exponent=65537, key_size=int(kind.removeprefix("rsa")))
    return _generate_mldsa(kind)


def _generate_mldsa(kind: KeyKind) -> PrivateKey:
    # ML-DSA (FIPS 204) came to `cryptography` after the oldest version we run on, and depends on its OpenSSL.
    missing = UsageError("--key-type", f'"{kind}" needs a newer cryptography package; write "p256"')
    try:
        from cryptography.hazmat.primitives.asymmetric import mldsa  # noqa: PLC0415
    except ImportError as exc:
        raise missing from exc
    made: Any = {
        KeyKind.MLDSA44: mldsa.MLDSA44PrivateKey,
        KeyKind.MLDSA65: mldsa.MLDSA65PrivateKey,
        KeyKind.MLDSA87: mldsa.MLDSA87PrivateKey,
    }[kind]
    try:
        key: PrivateKey = made.generate()
    except UnsupportedAlgorithm as exc:
        raise missing from exc
    return key


def signature_hash(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None:
    """The hash to sign with: as strong as the key, None for keys that bring their own (RFC 8410, RFC 9881).

    Raises:
        UsageError: this key can sign in TLS, but nothing here.
    """
    if isinstance(key, ExpandedKey):
        what = "an ML-DSA key without its seed signs in TLS, but no certificates; give the file that holds the seed too"
        raise UsageError("key", what)
    if isinstance(key, rsa.RSAPrivateKey):
        return hashes.SHA256()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if key.curve.key_size <= 256:
            return hashes.SHA256()
        return hashes.SHA384() if key.curve.key_size <= 384 else hashes.SHA512()
    return None


def same_kind(public: PublicKey) -> KeyKind:
    """The kind to make when a key like this one is wanted; P-256 for kinds we do not make."""
    wanted = key_type(public).lower().replace("ecdsa ", "").replace("-", "").replace(" ", "")
    return KeyKind(wanted) if wanted in set(KeyKind) else KeyKind.P256


def public_bytes(key: PrivateKey | PublicKey) -> bytes:
    """The SubjectPublicKeyInfo in DER: equal for equal keys, and what an SPKI pin is the hash of."""
    return spki(key.public_key() if hasattr(key, "public_key") else key)


def to_pem(key: PrivateKey, passphrase: Passphrase | None = None) -> bytes:
    """PKCS#8 PEM, encrypted if there is a passphrase."""
    plain = serialization.NoEncryption()
    if passphrase is None:
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, plain)
    return write_pem("ENCRYPTED PRIVATE KEY", encryption.encrypt_pkcs8(der, passphrase))


def write(path: Path, key: PrivateKey, passphrase: Passphrase | None = None, *, replace: bool = False) -> None:
    """Write a key, readable by its owner only.

    Raises:
        UsageError: the file exists and `replace` is false.
        StartupError: it cannot be written.
    """
    files.write(path, to_pem(key, passphrase), secret=True, replace=replace)


def is_encrypted(data: bytes) -> bool:
    """Whether a key says that it is encrypted: PKCS#8 in its label or DER, the older form in a header (RFC 1421)."""
    is_pem = b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in data or b"Proc-Type: 4,ENCRYPTED" in data
    return is_pem or is_encrypted_der(data)


def load(path: Path, passphrases: PassphraseSource | None = None) -> PrivateKey:
    """Read a private key, PEM or DER.

    Raises:
        MaterialError: the file cannot be read.
        UsageError: it holds no private key, one we cannot use, or one that no passphrase opens.
    """
    return parse(files.read(path), where=str(path), passphrases=passphrases)


def parse(
    data: bytes, *, where: str, passphrases: PassphraseSource | None = None, is_sought: bool = False
) -> PrivateKey:
    """The private key in these bytes, PEM or DER; certificates beside it are ignored.

    Args:
        is_sought: whether the key may be in another file that is not named.

    Raises:
        UsageError: see `load`.
    """
    file, passphrases = SourceFile(Path(where), data, 0), passphrases or PassphraseSource()
    if data[:1] != b"0":
        return usable(load_private_key(file, key_block(file, parse_pem(file), is_sought), None, passphrases), where)
    if is_encrypted_der(data):
        check_cost(file, data)
        return usable(decrypt(file, None, passphrases, lambda secret: parse_private_key(data, secret)), where)
    try:
        return usable(parse_private_key(data, None), where)
    except (TypeError, ValueError, OverflowError, UnsupportedAlgorithm):
        raise file.error("is no private key in DER; give a PEM or DER file that holds one") from None


def weakness(key: PrivateKey | PublicKey) -> str | None:
    """Why a key should not be certified, and what would be right; None for a good one."""
    public = key.public_key() if hasattr(key, "public_key") else key
    if isinstance(public, rsa.RSAPublicKey) and public.public_numbers().e < MIN_RSA_EXPONENT:
        return f"RSA with the public exponent {public.public_numbers().e} is fragile; use {MIN_RSA_EXPONENT}"
    return unfit_for_tls(public)


def usable(key: Any, where: str) -> PrivateKey:
    """The key itself, if TLS can use it.

    Raises:
        UsageError: it is weak, or of a kind that cannot sign.
    """
    found = unfit_for_tls(key.public_key())
    if found is not None:
        raise UsageError(where, found)
    return key  # type: ignore[no-any-return]
