"""Certificate requests (PKCS#10, RFC 2986): made here, or by a stranger and signed here.

A request proves only that whoever wrote it holds the key. Everything else in it is a wish, so signing takes from it the
key and the names, which pass the same checks as names typed by the operator, and nothing more: no dates, no
extensions, and never the wish to be a CA.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tlstunnel.errors import UsageError
from tlstunnel.tools.pki import authority, files, issue, keys, names, profile, readers
from tlstunnel.tools.pki.authority import Authority
from tlstunnel.x509.certificate import extension
from tlstunnel.x509.passphrase import Passphrase

Extension = TypeVar("Extension", bound=x509.ExtensionType)

_SIGNABLE = (x509.DNSName, x509.IPAddress, x509.UniformResourceIdentifier, x509.RFC822Name)


@dataclass(frozen=True, slots=True)
class Requested:
    """Where a request and its key are now."""

    request: Path
    key: Path


def make(
    leaf: profile.Leaf,
    out_dir: Path | str = ".",
    *,
    first: str,
    stem: str | None = None,
    kind: keys.KeyKind = keys.KeyKind.P256,
    existing: tuple[Path, keys.PrivateKey] | None = None,
    passphrase: Passphrase | None = None,
    force: bool = False,
) -> Requested:
    """Write `NAME.csr`, and `NAME.key` unless an existing key is used.

    Args:
        existing: A key that is there already, and where; instead of a new one of `kind`.
        passphrase: Encrypts a new key.

    Raises:
        UsageError: a file exists, or the key cannot be used.
        StartupError: a file cannot be written.
    """
    request_path, new_key_path = issue.paths(out_dir, stem=stem, first=first, ending=".csr")
    files.refuse_existing(request_path, *(() if existing else (new_key_path,)), force=force)
    key_path, key = existing or (new_key_path, keys.generate(kind))
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(leaf.subject)
        .add_extension(x509.SubjectAlternativeName(leaf.names), critical=not list(leaf.subject))
        .add_extension(x509.ExtendedKeyUsage([leaf.use.oid]), critical=False)
    )
    made = builder.sign(key, keys.signature_hash(key))
    with files.delivering(request_path, *(() if existing else (new_key_path,))):
        if existing is None:
            keys.write(new_key_path, key, passphrase, replace=force)
        files.write(request_path, made.public_bytes(Encoding.PEM), secret=False, replace=force)
    return Requested(request_path, key_path)


def sign(
    ca: Authority,
    path: Path,
    out_dir: Path | str = ".",
    *,
    use: profile.Use | None = None,
    replacement: Iterable[str] | None = None,
    stem: str | None = None,
    days: int = profile.LEAF_DAYS,
    crl_url: str | None = None,
    force: bool = False,
) -> issue.Issued:
    """Sign a request; writes `NAME.pem`.

    Args:
        use: What the certificate is for, if the request does not say it or says it wrong.
        replacement: Names instead of those the request asks for.

    Raises:
        UsageError: the request is damaged, its signature is wrong, or it asks for what may not be signed.
        StartupError: a file cannot be written.
    """
    asked = readers.request(files.read(path), where=str(path))
    public_key = _checked_key(asked, where=str(path))
    leaf = _leaf(asked, use, replacement, crl_url, where=str(path))
    is_client = leaf.use is profile.Use.CLIENT
    first = (names.common_name(leaf.subject) if is_client else None) or names.short(leaf.names[0])
    certificate, _ = issue.paths(out_dir, stem=stem, first=first)
    issue.refuse_ca_files(ca.folder, certificate)
    files.refuse_existing(certificate, force=force)
    dates = profile.validity(days, issuer=ca.certificate)
    leaf = ca.permitted(leaf)

    def deliver(made: x509.Certificate) -> None:
        files.write(certificate, authority.to_pem(made, *ca.chain), secret=False, replace=force)

    with files.delivering(certificate):
        made = ca.sign(leaf, public_key, dates, deliver=deliver)
    return issue.Issued(certificate, None, ca.anchor, made)


def _checked_key(asked: x509.CertificateSigningRequest, *, where: str) -> keys.PublicKey:
    public_key = asked.public_key()
    weakness = keys.weakness(public_key)
    if weakness is not None:
        raise UsageError(where, weakness)
    try:
        valid = asked.is_signature_valid
    except (UnsupportedAlgorithm, ValueError, TypeError) as exc:
        raise UsageError(where, "signed with an algorithm we do not know; make the request with another key") from exc
    if not valid:
        raise UsageError(where, "its signature is not by its own key; have the request made again")
    return public_key


def _leaf(
    asked: x509.CertificateSigningRequest,
    use: profile.Use | None,
    replacement: Iterable[str] | None,
    crl_url: str | None,
    *,
    where: str,
) -> profile.Leaf:
    basic = extension(asked, x509.BasicConstraints)
    if basic is not None and basic.ca:
        raise UsageError(where, "asks to be a CA; make one below yours with tlstunnel cert ca --intermediate")
    chosen = _use(asked, where) if use is None else use
    texts = tuple(replacement) if replacement is not None else _names(asked, where)
    if chosen is profile.Use.SERVER:
        return profile.server(texts, crl_url=crl_url, where=where)
    found = names.parse(texts, where=where)
    common_name = names.common_name(asked.subject) or names.short(found[0])
    units = [str(part.value) for part in asked.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
    subject = names.subject(common_name, units=units, where=where)
    return profile.Leaf(subject, found, profile.Use.CLIENT, crl_url)


def _use(asked: x509.CertificateSigningRequest, where: str) -> profile.Use:
    usage = extension(asked, x509.ExtendedKeyUsage)
    wanted = [use for use in profile.Use if usage is not None and use.oid in usage]
    if len(wanted) != 1:
        raise UsageError(where, "does not say whether it is for a server or a client; add --use server or --use client")
    return wanted[0]


def _names(asked: x509.CertificateSigningRequest, where: str) -> tuple[str, ...]:
    alternative = extension(asked, x509.SubjectAlternativeName)
    if alternative is None:
        raise UsageError(where, "asks for no alternative name, and a common name alone counts nowhere; add --names")
    for name in alternative:
        if not isinstance(name, _SIGNABLE):
            raise UsageError(where, f'asks for "{names.long(name)}", which we do not sign; replace it with --names')
    return tuple(names.short(name) for name in alternative)
