"""A certificate, its chain and its key as one thing: out of PEM files or PKCS#12 (RFC 7292), into either."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from tlstunnel.errors import UsageError, printable
from tlstunnel.tools.pki import authority, files, keys, names
from tlstunnel.x509 import certificate as facts
from tlstunnel.x509.key import key_type
from tlstunnel.x509.material import certificate_of
from tlstunnel.x509.passphrase import Passphrase, PassphraseSource
from tlstunnel.x509.pem import SourceFile
from tlstunnel.x509.pkcs12 import open_p12

PKCS12_ROUNDS = 100_000
"""For the key and the certificates; NSS and Java refuse much larger figures. The library has no way to set the rounds
of the MAC, which stay at 2048, so a bundle is as good as its passphrase is long."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a TLS peer shows and proves."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    """The issuer, its issuer and so on; then whatever else was there."""
    key: keys.PrivateKey | None
    name: str | None = None
    """PKCS#12's friendly name."""


def from_pem(
    certificate: Path,
    key: Path | None = None,
    others: Iterable[Path] = (),
    passphrases: PassphraseSource | None = None,
) -> Bundle:
    """Put PEM files together.

    Args:
        certificate: The certificate, perhaps with its chain and its key.
        key: The key, if it is not in that file.
        others: More certificates of the chain.
        passphrases: Open the key.

    Raises:
        MaterialError: a file cannot be read.
        UsageError: a file is damaged, there is no key, or it is another certificate's.
    """
    read = [SourceFile(path, files.read(path), 0) for path in (certificate, *others)]
    found = [each for file in read for each in facts.read_certificates(file)[0]]
    holder = read[0] if key is None else SourceFile(key, files.read(key), 0)
    opened = keys.parse(holder.data, where=holder.where, passphrases=passphrases, is_sought=key is None)
    leaf = certificate_of(opened, found, read[0], holder)
    return Bundle(leaf, _ordered(leaf, found), opened)


def parse_pkcs12(data: bytes, *, where: str, passphrases: PassphraseSource | None = None) -> Bundle:
    """The bundle in the bytes of a PKCS#12 file.

    Raises:
        UsageError: it is damaged, no passphrase opens it, or it holds no certificate.
    """
    file = SourceFile(Path(where), data, 0)
    found = open_p12(file, None, passphrases or PassphraseSource(), is_key_needed=False)
    key = None if found.key is None else keys.usable(found.key, where)
    leaf = found.certificates[0]
    name = printable(found.name.decode("utf-8", "replace")) if found.name else None
    return Bundle(leaf, _ordered(leaf, found.certificates), key, name)


def to_pkcs12(bundle: Bundle, passphrase: Passphrase | None, *, name: str | None = None, legacy: bool = False) -> bytes:
    """The bundle as PKCS#12.

    Args:
        passphrase: None leaves it unencrypted.
        name: The friendly name; the common name by default.
        legacy: Encrypt as readers from before 2020 expect: triple DES and SHA-1. It protects little.

    Raises:
        UsageError: there is no key, or PKCS#12 cannot hold one of its kind.
    """
    if bundle.key is None:
        raise UsageError("--key", "there is no private key to put into the bundle; name its file")
    friendly = name or bundle.name or names.common_name(bundle.certificate.subject) or "certificate"
    method: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        builder = serialization.PrivateFormat.PKCS12.encryption_builder()
        if legacy:
            builder = builder.key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC).hmac_hash(hashes.SHA1())  # noqa: S303
            builder = builder.kdf_rounds(2048)
        else:
            builder = builder.key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC).hmac_hash(hashes.SHA256())
            builder = builder.kdf_rounds(PKCS12_ROUNDS)
        method = builder.build(passphrase.value)
    try:
        return pkcs12.serialize_key_and_certificates(
            friendly.encode(),
            bundle.key,  # type: ignore[arg-type]  # what is not allowed raises
            bundle.certificate,
            bundle.chain,
            method,
        )
    except (TypeError, ValueError, UnsupportedAlgorithm) as exc:
        what = f"this PKCS#12 writer knows no {key_type(bundle.key)} keys; write PEM instead"
        raise UsageError("--out", what) from exc


def to_pem(bundle: Bundle, passphrase: Passphrase | None, *, with_key: bool = True) -> bytes:
    """The certificate, its chain, then its key, in one PEM file."""
    data = authority.to_pem(bundle.certificate, *bundle.chain)
    return data + keys.to_pem(bundle.key, passphrase) if with_key and bundle.key is not None else data


def _ordered(leaf: x509.Certificate, found: Iterable[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    others = tuple(other for other in dict.fromkeys(found) if other != leaf)
    above, strangers = facts.order_chain(leaf, others)
    return (*above, *strangers)
