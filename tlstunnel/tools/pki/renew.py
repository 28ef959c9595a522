"""Renewal: the same names and uses for another term.

By default the key stays: then one file changes, at once, and pins of the key go on matching. Everything the old
certificate said is repeated except its serial number, its dates and the identifiers of keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from tlstunnel.errors import UsageError
from tlstunnel.tools.pki import authority, files, index, issue, keys, profile, readers
from tlstunnel.tools.pki.authority import Authority
from tlstunnel.x509 import certificate as facts
from tlstunnel.x509.passphrase import Passphrase


@dataclass(frozen=True, slots=True)
class NewKey:
    """Make a new key while renewing."""

    kind: keys.KeyKind | None = None
    """None: the kind the old key is of."""
    passphrase: Passphrase | None = None


def by_authority(
    ca: Authority,
    path: Path,
    *,
    days: int | None = None,
    out: Path | None = None,
    new_key: NewKey | None = None,
    force: bool = False,
) -> issue.Issued:
    """Renew a certificate that this CA issued: a leaf, or an intermediate.

    Args:
        path: The certificate; replaced unless `out` names another file.
        days: Lifetime; by default as long as the old one's.
        new_key: Also replace the key, in the file beside the certificate that ends in `.key`.
        force: Replace a key, or the file `out`.

    Raises:
        UsageError: the CA did not issue it, or has revoked it, or a file exists.
        StartupError: a file cannot be written.
    """
    old = readers.load_certificates(path)[0]
    _check_issued(ca, old, where=str(path))
    target = path if out is None else out
    key_path = target.with_suffix(".key")
    if out is not None:
        issue.refuse_ca_files(ca.folder, target)
        files.refuse_existing(target, force=force)
    if new_key is not None:
        issue.refuse_ca_files(ca.folder, key_path)
        files.refuse_existing(key_path, force=force)
    dates = profile.validity(_days(old, days, ca.certificate), issuer=ca.certificate)
    key = None if new_key is None else keys.generate(new_key.kind or keys.same_kind(old.public_key()))
    public_key = old.public_key() if key is None else key.public_key()
    made = _again(old, public_key, dates, issuer=ca.certificate, issuer_key=ca.key)

    def deliver(made: x509.Certificate) -> None:
        if key is not None and new_key is not None:
            keys.write(key_path, key, new_key.passphrase, replace=force)
        files.write(target, authority.to_pem(made, *ca.chain), secret=False, replace=out is None or force)

    ca.record(made, deliver=deliver)
    return issue.Issued(target, None if key is None else key_path, ca.anchor, made)


def self_signed(
    path: Path, key: keys.PrivateKey, *, days: int | None = None, out: Path | None = None, force: bool = False
) -> issue.Issued:
    """Renew a certificate signed by its own key: a self-signed leaf, or a root CA (what it issued stays valid).

    Raises:
        UsageError: it is not self-signed, the key is another's, or a file exists.
        StartupError: a file cannot be written.
    """
    old = readers.load_certificates(path)[0]
    if old.issuer != old.subject:
        raise UsageError(str(path), "not self-signed; name the folder of the CA that issued it with --ca")
    if keys.public_bytes(key) != keys.public_bytes(old.public_key()):
        raise UsageError(str(path), "the key is not this certificate's; give the one it was made with")
    target = path if out is None else out
    if out is not None:
        files.refuse_existing(target, force=force)
    made = _again(old, key.public_key(), profile.validity(_days(old, days, None)), issuer=None, issuer_key=key)
    files.write(target, authority.to_pem(made), secret=False, replace=out is None or force)
    return issue.Issued(target, None, target, made)


def _check_issued(ca: Authority, old: x509.Certificate, *, where: str) -> None:
    try:
        old.verify_directly_issued_by(ca.certificate)
    except (InvalidSignature, ValueError, TypeError) as exc:
        what = f"not issued by the CA in {ca.folder}; name the folder of the CA that issued it"
        raise UsageError(where, what) from exc
    for entry in index.load(ca.folder / "index.txt"):
        if entry.serial == facts.serial(old) and entry.revoked_at is not None:
            raise UsageError(where, f"revoked on {entry.revoked_at:%Y-%m-%d}; issue a new one instead")


def _days(old: x509.Certificate, days: int | None, issuer: x509.Certificate | None) -> int:
    if days is not None:
        return days
    before = max(1, (old.not_valid_after_utc - old.not_valid_before_utc - profile.BACKDATED).days)
    return before if issuer is None else min(before, max(1, profile.days_left(issuer)))


def _again(
    old: x509.Certificate,
    public_key: keys.PublicKey,
    dates: profile.Validity,
    *,
    issuer: x509.Certificate | None,
    issuer_key: keys.PrivateKey,
) -> x509.Certificate:
    builder = profile.begin(old.subject, public_key, dates, issuer)
    for extension in old.extensions:
        if extension.oid not in (x509.SubjectKeyIdentifier.oid, x509.AuthorityKeyIdentifier.oid):
            builder = builder.add_extension(extension.value, critical=extension.critical)
    return builder.sign(issuer_key, keys.signature_hash(issuer_key))
