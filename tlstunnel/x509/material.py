"""Certificates and keys as values: read, proved to belong together, and ready to be handed to another process.

The supervisor reads files; workers get what is built here, over a channel, and never see a path or a passphrase. So
everything is frozen, holds DER instead of library objects, and can be pickled. A value exists only if OpenSSL will take
it: what OpenSSL would refuse (a key that does not match, too few bits) is refused here, in a sentence. What OpenSSL
takes but peers may not (expired, wrong purpose, no names) is for `certificate_checks.warnings`.

Certificate and key change as a pair or not at all: both come from one call, over bytes read once. `Credential.digest`
covers those bytes, and `contents_digest` computes the same over the files as they are now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tlstunnel.config.model import CertificateFiles
from tlstunnel.reading import is_pipe
from tlstunnel.x509 import certificate as facts
from tlstunnel.x509.key import key_block, key_type, load_private_key, pin, pkcs8, spki, unfit_for_tls
from tlstunnel.x509.passphrase import PassphraseSource, read_passphrase_file
from tlstunnel.x509.pem import (
    Block,
    MaterialError,
    SourceFile,
    add_to_digest,
    digest,
    hold_pipe,
    parse_pem,
    read_file,
)
from tlstunnel.x509.permissions import is_open_to_others
from tlstunnel.x509.pkcs12 import open_p12
from tlstunnel.x509.trust import CRL, CABundle, files_of_ca, load_ca, load_crls, load_system_ca, system_ca_file

__all__ = [
    "CRL",
    "CABundle",
    "Credential",
    "MaterialError",
    "contents_digest",
    "files_of",
    "load_ca",
    "load_credential",
    "load_crls",
    "load_system_ca",
    "system_ca_file",
]

_RSASSA_PSS = x509.ObjectIdentifier("1.2.840.113549.1.1.10")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A certificate, its chain and its key."""

    certificate_der: bytes = field(repr=False)
    chain_der: tuple[bytes, ...] = field(repr=False)
    """What is sent after the certificate, each issuer after what it issued."""
    key_der: bytes = field(repr=False)
    """PKCS#8, not encrypted: the secret."""
    key_type: str
    """`ECDSA P-256`, `RSA 2048`, `Ed25519`, `ML-DSA-65`, ..."""
    names: tuple[str, ...]
    """DNS names and IP addresses; the common name only where the certificate has no other name."""
    has_san: bool
    """Whether `names` comes from the subject alternative names, the only ones clients look at."""
    subject: str
    issuer: str
    serial: int
    not_before: datetime
    not_after: datetime
    fingerprint: str
    """SHA-256 of the certificate, in lower-case hex."""
    spki_pin: str
    """`sha256:BASE64` of the public key, as `--allow-spki-pin` takes it."""
    must_staple: bool
    """Whether clients should insist on a stapled OCSP response."""
    ocsp_responders: tuple[str, ...]
    """URLs that know whether the certificate is revoked."""
    source: str
    """The file the certificate is from, for messages."""
    remarks: tuple[str, ...] = ()
    """Whole lines about the files: harmless, repaired, or readable by too many."""
    digest: str = field(repr=False)
    """Of the contents of all files read, to notice a change."""


def load_credential(files: CertificateFiles, passphrases: PassphraseSource) -> Credential:
    """Read a certificate, its chain and its key, and prove that they belong together.

    Raises:
        MaterialError: with the file and one sentence. Nothing is returned by halves.
    """
    for path in files_of(files):
        hold_pipe(path)  # two who are forked to use the same pipe could not both read it
    key = files.p12 or files.key or files.certificate or Path()
    return passphrases.open_apart(key, files.key_passphrase_file, partial(_load, files, passphrases))


def _load(files: CertificateFiles, passphrases: PassphraseSource) -> Credential:
    secret = read_passphrase_file(files.key_passphrase_file) if files.key_passphrase_file is not None else None
    if files.p12 is not None:
        return _from_p12(read_file(files.p12), secret, passphrases)
    if files.certificate is None:
        raise MaterialError("certificate", "is missing; name a certificate and key, or a p12 file")
    file = read_file(files.certificate)
    blocks = parse_pem(file)
    certificates = _certificates(file, blocks)
    key_file = file if files.key is None or files.key == files.certificate else read_file(files.key)
    block = key_block(key_file, blocks if key_file is file else parse_pem(key_file), files.key is None)
    key = load_private_key(key_file, block, secret, passphrases)
    # The key's own DER is kept where there is one, since parsing loses that a key is for RSASSA-PSS only.
    key_der = block.der if block.label == "PRIVATE KEY" else pkcs8(key)
    remarks = _exposed(secret, "the passphrase") + ([] if block.is_encrypted else _exposed(key_file, "the private key"))
    read = [file] + [other for other in (key_file if key_file is not file else None, secret) if other is not None]
    return _Parts(file, key_file, certificates, key, key_der, True, remarks, read).assemble()


def files_of(files: CertificateFiles) -> tuple[Path, ...]:
    """The files a credential is read from, in the order its digest covers them."""
    named = [files.p12] if files.p12 is not None else [files.certificate, files.key]
    if files.key == files.certificate:
        named = named[:1]
    return tuple(path for path in (*named, files.key_passphrase_file) if path is not None)


def contents_digest(paths: Sequence[Path], limit: int = 64 << 20) -> str:
    """The digest of files as they are now, comparable with that of the value read from them.

    Pipes are passed over: what is in one is there for whoever uses it, and only once.

    Raises:
        MaterialError: one cannot be read, as in the middle of being replaced.
    """
    total = hashlib.sha256()
    for path in (path for named in paths for path in files_of_ca(named)):
        if not is_pipe(path):
            add_to_digest(total, path, limit)
    return total.hexdigest()


def _from_p12(file: SourceFile, secret: SourceFile | None, passphrases: PassphraseSource) -> Credential:
    found = open_p12(file, secret, passphrases)
    if found.key is None:
        raise file.error("holds no private key; export it with its key (openssl pkcs12 -export -inkey ...)")
    exposed = _exposed(secret, "the passphrase") + ([] if found.is_encrypted else _exposed(file, "the private key"))
    read = [file] if secret is None else [file, secret]
    return _Parts(file, file, found.certificates, found.key, pkcs8(found.key), False, exposed, read).assemble()


def certificate_of(
    key: Any, certificates: Sequence[x509.Certificate], file: SourceFile, key_file: SourceFile
) -> x509.Certificate:
    """The certificate the key belongs to. Loading a key checks that its halves fit, so the public one decides.

    Raises:
        MaterialError: it is none of those in `file`.
    """
    public_key = key.public_key()
    wanted = spki(public_key)
    for certificate in certificates:
        if spki(certificate.public_key()) == wanted:
            return certificate
    first = certificates[0]
    kinds = key_type(public_key), key_type(first.public_key())
    of_kind = f" ({kinds[0]}; the certificate's is {kinds[1]})" if kinds[0] != kinds[1] else ""
    if len(certificates) == 1:
        what = f"the certificate {facts.label(first)}"
    else:
        what = f"any of the {len(certificates)} certificates, the first of which is {facts.label(first)}"
    inside = f" in {file.where}" if file.path != key_file.path else ""
    raise key_file.error(f"the private key{of_kind} does not belong to {what}{inside}; name the key it was made with")


def _certificates(file: SourceFile, blocks: list[Block]) -> list[x509.Certificate]:
    count = sum(block.is_certificate for block in blocks)
    if count > facts.MAX_CHAIN:
        raise file.error(f"holds {count} certificates; a chain has a few, so this looks like a CA bundle")
    if count:
        return facts.load_certificates(file, blocks)
    raise file.error(facts.no_certificate(blocks))


@dataclass(frozen=True, slots=True)
class _Parts:
    """What was read, on its way to a `Credential`."""

    file: SourceFile
    key_file: SourceFile
    certificates: list[x509.Certificate]
    key: Any = field(repr=False)
    key_der: bytes = field(repr=False)
    is_ordered: bool
    """Whether the order of the certificates is the operator's; in PKCS#12 it means nothing."""
    remarks: list[str]
    read: list[SourceFile]

    def assemble(self) -> Credential:
        """Prove that the parts fit, and put the chain in order."""
        if (why := unfit_for_tls(self.key.public_key())) is not None:
            raise self.key_file.error(why)
        leaf = certificate_of(self.key, self.certificates, self.file, self.key_file)
        if leaf.public_key_algorithm_oid == _RSASSA_PSS and self.key_der == pkcs8(self.key):
            raise self.key_file.error(
                "the certificate is for RSASSA-PSS; its key is read only from unencrypted PKCS#8 PEM"
            )
        chain, strangers = facts.order_chain(leaf, [one for one in self._unique() if one != leaf])
        named = facts.names(leaf)
        der = leaf.public_bytes(Encoding.DER)
        return Credential(
            certificate_der=der,
            chain_der=tuple(one.public_bytes(Encoding.DER) for one in chain),
            key_der=self.key_der,
            key_type=key_type(leaf.public_key()),
            names=named.dns + named.ip if named.has_san else (named.common,) if named.common else (),
            has_san=named.has_san,
            subject=facts.subject(leaf),
            issuer=facts.issuer(leaf),
            serial=facts.serial(leaf),
            not_before=leaf.not_valid_before_utc,
            not_after=leaf.not_valid_after_utc,
            fingerprint=hashlib.sha256(der).hexdigest(),
            spki_pin=pin(leaf.public_key()),
            must_staple=facts.is_must_staple(leaf),
            ocsp_responders=facts.ocsp_responders(leaf),
            source=self.file.where,
            remarks=(*self.remarks, *self._repairs(leaf, chain, strangers)),
            digest=digest(self.read),
        )

    def _repairs(
        self, leaf: x509.Certificate, chain: list[x509.Certificate], strangers: list[x509.Certificate]
    ) -> list[str]:
        """What is sent otherwise than the file has it."""
        found = []
        unique = self._unique()
        if len(unique) < len(self.certificates):
            found.append("holds a certificate twice; it is sent once")
        if strangers:
            found.append(f"{facts.label(strangers[0])} is not in the chain of {facts.label(leaf)}; it is not sent")
        if self.is_ordered and unique[0] != leaf:
            place = f"certificate {self.certificates.index(leaf) + 1} of {len(self.certificates)}"
            found.append(f"the key belongs to {place}, which is sent first; put it first")
        elif self.is_ordered and [one for one in unique if one not in strangers] != [leaf, *chain]:
            found.append("the chain is out of order and is sent in order; put each issuer after what it issued")
        if chain and facts.is_self_issued(chain[-1]):
            found.append(
                f"the chain includes its root {facts.label(chain[-1])}; sending it is a waste, clients have it"
            )
        return [f"{self.file.where}: {line}" for line in found]

    def _unique(self) -> list[x509.Certificate]:
        return list(dict.fromkeys(self.certificates))


def _exposed(file: SourceFile | None, secret: str) -> list[str]:
    if file is None or not is_open_to_others(file):
        return []
    return [
        f"{file.where}: {secret} can be read by every user of this machine (mode {file.mode & 0o777:04o}); chmod 640"
    ]
