"""Certificates for tests, made on demand and once per process: a CA, and whatever it is asked to issue.

    from tests.support import certificates
    pair = certificates.server("localhost", "127.0.0.1")     # pair.certificate, pair.key, pair.combined are paths
    certificates.ca().certificate                            # the CA's path
    certificates.client("billing", ou=("finance",), uris=("spiffe://example.org/billing",))
    certificates.expired("localhost"), certificates.server("a.example", key_type="RSA 2048", through_intermediate=True)

Calls with the same arguments give the same files. They lie in a folder that is removed when the process ends, so tests
must not change them; copy first.
"""

from __future__ import annotations

import atexit
import functools
import ipaddress
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

MAKERS: dict[str, Callable[[], Any]] = {
    "ECDSA P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ECDSA P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ECDSA P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ECDSA secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "ECDSA brainpoolP256r1": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
    "RSA 1024": lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505  there to be refused
    "RSA 2048": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
    "X25519": x25519.X25519PrivateKey.generate,
    "ML-DSA-44": mldsa.MLDSA44PrivateKey.generate,
    "ML-DSA-65": mldsa.MLDSA65PrivateKey.generate,
    "ML-DSA-87": mldsa.MLDSA87PrivateKey.generate,
}
NOW = datetime.now(UTC).replace(microsecond=0)
_DAY = timedelta(days=1)
_PURPOSES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


@dataclass(frozen=True)
class Pair:
    """A certificate with its chain, and its key, as PEM files and as objects."""

    certificate: Path
    """The leaf, then its intermediates."""
    key: Path
    combined: Path
    """Certificate, chain and key in one file."""
    leaf: x509.Certificate = field(repr=False)
    chain: tuple[x509.Certificate, ...] = field(repr=False)
    private_key: Any = field(repr=False)

    @property
    def leaf_der(self) -> bytes:
        return self.leaf.public_bytes(Encoding.DER)

    @property
    def key_der(self) -> bytes:
        return key_bytes(self.private_key, Encoding.DER)


@functools.cache
def folder() -> Path:
    """Where the files of this process are."""
    path = Path(tempfile.mkdtemp(prefix="tlstunnel-certificates-"))
    owner = os.getpid()  # a forked child that ends must not take the folder with it
    atexit.register(lambda: shutil.rmtree(path, ignore_errors=True) if os.getpid() == owner else None)
    return path


@functools.cache
def new_key(key_type: str, serial: int = 0) -> Any:
    """A key; the same for the same arguments, since making RSA keys is slow."""
    return MAKERS[key_type]()


def ca(name: str = "tlstunnel test CA", *, not_after: datetime = NOW + 3650 * _DAY) -> Pair:
    """A self-signed root."""
    return _ca(name, not_after)


@functools.cache
def _ca(name: str, not_after: datetime) -> Pair:
    key = new_key("ECDSA P-256", hash(name))
    return _store(_sign(_name(name), key, None, ca_path_length=1, dates=(NOW - 800 * _DAY, not_after)), (), key)


def intermediate(
    root: str = "tlstunnel test CA",
    name: str = "tlstunnel test intermediate",
    *,
    key_type: str = "ECDSA P-256",
    not_after: datetime = NOW + 3650 * _DAY,
) -> Pair:
    """A CA below the root."""
    return _intermediate(root, name, key_type, not_after)


@functools.cache
def _intermediate(root: str, name: str, key_type: str, not_after: datetime) -> Pair:
    key = new_key(key_type, hash(name))
    return _store(_sign(_name(name), key, ca(root), ca_path_length=0, dates=(NOW - 400 * _DAY, not_after)), (), key)


@functools.cache
def issue(
    common_name: str,
    *,
    dns: tuple[str, ...] = (),
    ips: tuple[str, ...] = (),
    uris: tuple[str, ...] = (),
    emails: tuple[str, ...] = (),
    ou: tuple[str, ...] = (),
    key_type: str = "ECDSA P-256",
    purpose: str | None = "server",
    not_before: datetime = NOW - _DAY,
    not_after: datetime = NOW + 90 * _DAY,
    authority: str = "tlstunnel test CA",
    through_intermediate: bool = False,
    under: Pair | None = None,
    self_signed: bool = False,
    extensions: tuple[x509.ExtensionType, ...] = (),
) -> Pair:
    """A leaf, with everything about it to choose. `under` names a CA of one's own, which is not put in the chain."""
    key = new_key(key_type, hash((common_name, dns, ips, uris, purpose)))
    parent = under or (intermediate(authority) if through_intermediate else ca(authority))
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns]
    names += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips]
    names += [x509.UniformResourceIdentifier(uri) for uri in uris]
    names += [x509.RFC822Name(email) for email in emails]
    certificate = _sign(
        _name(common_name, ou), key, None if self_signed else parent,
        names=names, purpose=purpose, dates=(not_before, not_after), extensions=extensions,
    )  # fmt: skip
    return _store(certificate, (parent.leaf,) if through_intermediate else (), key)


def server(*names: str, **options: Any) -> Pair:
    """A server certificate for DNS names and IP addresses."""
    dns = tuple(name for name in names if not _is_ip(name))
    return issue(names[0], dns=dns, ips=tuple(name for name in names if _is_ip(name)), **options)


def client(common_name: str, **options: Any) -> Pair:
    """A client certificate."""
    return issue(common_name, purpose="client", **options)


def expired(*names: str, **options: Any) -> Pair:
    """A certificate that ended yesterday."""
    return server(*names, not_before=NOW - 30 * _DAY, not_after=NOW - _DAY, **options)


def not_yet_valid(*names: str, **options: Any) -> Pair:
    """A certificate that begins tomorrow."""
    return server(*names, not_before=NOW + _DAY, not_after=NOW + 30 * _DAY, **options)


@functools.cache
def p12(pair: Pair, passphrase: str = "") -> Path:
    """The pair as PKCS#12; without a passphrase not encrypted."""
    how: KeySerializationEncryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    return _write(
        "p12", pkcs12.serialize_key_and_certificates(b"tlstunnel", pair.private_key, pair.leaf, pair.chain, how)
    )


@functools.cache
def encrypted_key(pair: Pair, passphrase: str) -> Path:
    """The pair's key as encrypted PKCS#8."""
    return _write("key", key_bytes(pair.private_key, Encoding.PEM, BestAvailableEncryption(passphrase.encode())), 0o600)


@functools.cache
def crl(
    *revoked: x509.Certificate,
    authority: str = "tlstunnel test CA",
    last_update: datetime = NOW - _DAY,
    next_update: datetime = NOW + 30 * _DAY,
    extensions: tuple[x509.ExtensionType, ...] = (),
) -> Path:
    """A revocation list of the CA, as PEM."""
    issuer = ca(authority)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.leaf.subject)
    builder = builder.last_update(last_update).next_update(next_update).add_extension(x509.CRLNumber(1), False)
    for extension in extensions:
        builder = builder.add_extension(extension, True)
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(NOW - _DAY).build())
    return _write("crl.pem", builder.sign(issuer.private_key, hashes.SHA256()).public_bytes(Encoding.PEM))


def key_bytes(key: Any, encoding: Encoding, how: KeySerializationEncryption | None = None) -> bytes:
    """A key as PKCS#8."""
    done: bytes = key.private_bytes(encoding, PrivateFormat.PKCS8, how or NoEncryption())
    return done


def pem(*certificates: x509.Certificate) -> bytes:
    """Certificates as PEM, one after the other."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def _sign(
    subject: x509.Name,
    key: Any,
    parent: Pair | None,
    *,
    names: list[x509.GeneralName] | None = None,
    purpose: str | None = None,
    dates: tuple[datetime, datetime] = (NOW - 10 * _DAY, NOW + 3650 * _DAY),
    ca_path_length: int | None = None,
    extensions: tuple[x509.ExtensionType, ...] = (),
) -> x509.Certificate:
    signer = key if parent is None else parent.private_key
    is_ca = ca_path_length is not None
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    usage |= {"digital_signature": True, "key_cert_sign": is_ca, "crl_sign": is_ca}
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if parent is None else parent.leaf.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dates[0])
        .not_valid_after(dates[1])
        .add_extension(x509.BasicConstraints(is_ca, ca_path_length), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
    )
    given = {type(extension) for extension in extensions}
    if x509.KeyUsage not in given:
        builder = builder.add_extension(x509.KeyUsage(**usage), True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    if purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([_PURPOSES[purpose]]), False)
    for extension in extensions:
        builder = builder.add_extension(extension, isinstance(extension, x509.KeyUsage))
    is_bare = isinstance(signer, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return builder.sign(signer, hashes.SHA256() if is_bare else None)


def _name(common_name: str, ou: tuple[str, ...] = ()) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in ou]
    common = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    return x509.Name(parts + common)


def _store(leaf: x509.Certificate, chain: tuple[x509.Certificate, ...], key: Any) -> Pair:
    certificates, secret = pem(leaf, *chain), key_bytes(key, Encoding.PEM)
    return Pair(
        _write("pem", certificates), _write("key", secret, 0o600), _write("both.pem", certificates + secret, 0o600),
        leaf, chain, key,
    )  # fmt: skip


def _write(suffix: str, content: bytes, mode: int = 0o644) -> Path:
    path = folder() / f"{len(list(folder().iterdir()))}.{suffix}"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
