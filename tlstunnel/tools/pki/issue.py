"""Certificates with their keys, as files: `NAME.pem` (the certificate, then its chain) and `NAME.key`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from tlstunnel.errors import UsageError
from tlstunnel.tools.pki import authority, files, keys, names, profile
from tlstunnel.tools.pki.authority import Authority
from tlstunnel.x509.passphrase import Passphrase


@dataclass(frozen=True, slots=True)
class Issued:
    """Where things are now, and the certificate itself."""

    certificate: Path
    """PEM: the certificate, then its chain without the root."""
    key: Path | None
    """PEM, 0600; None where only the certificate was made."""
    ca: Path
    """PEM: what peers must trust."""
    parsed: x509.Certificate


def server(
    ca: Authority | Path | str,
    hosts: Sequence[str],
    out_dir: Path | str = ".",
    *,
    stem: str | None = None,
    kind: keys.KeyKind = keys.KeyKind.P256,
    days: int = profile.LEAF_DAYS,
    dates: profile.Validity | None = None,
    crl_url: str | None = None,
    passphrase: Passphrase | None = None,
    force: bool = False,
) -> Issued:
    """Issue a server's certificate for host names and IP addresses.

    Args:
        ca: A CA folder whose key is not encrypted, or an opened CA.
        hosts: `localhost`, `127.0.0.1`, `*.example.org`; files are named after the first.
        stem: Name of the files without their endings, instead.
        dates: Instead of `days`: any dates at all, also bad ones (for tests of what refuses them).
        passphrase: Encrypts the key.
        force: Replace files of that name.

    Raises:
        UsageError: a name is wrong, forbidden by the CA, or its file exists.
        StartupError: a file cannot be written.
    """
    leaf = profile.server(tuple(hosts), crl_url=crl_url)
    return issue(
        ca, leaf, out_dir, stem=stem, first=hosts[0], kind=kind, days=days, dates=dates, passphrase=passphrase,
        force=force,
    )  # fmt: skip


def client(
    ca: Authority | Path | str,
    name: str,
    out_dir: Path | str = ".",
    *,
    ou: str | Sequence[str] | None = None,
    uris: Iterable[str] = (),
    dns: Iterable[str] = (),
    emails: Iterable[str] = (),
    stem: str | None = None,
    kind: keys.KeyKind = keys.KeyKind.P256,
    days: int = profile.LEAF_DAYS,
    dates: profile.Validity | None = None,
    crl_url: str | None = None,
    passphrase: Passphrase | None = None,
    force: bool = False,
) -> Issued:
    """Issue a client's certificate: `name` is its common name, `ou` its organizational units.

    The other arguments and the errors are those of `server`.
    """
    leaf = profile.client(name, units=ou, uris=uris, dns=dns, emails=emails, crl_url=crl_url)
    return issue(
        ca, leaf, out_dir, stem=stem, first=name, kind=kind, days=days, dates=dates, passphrase=passphrase,
        force=force,
    )  # fmt: skip


def issue(
    ca: Authority | Path | str,
    leaf: profile.Leaf,
    out_dir: Path | str,
    *,
    stem: str | None,
    first: str,
    kind: keys.KeyKind,
    days: int,
    dates: profile.Validity | None,
    passphrase: Passphrase | None,
    force: bool,
) -> Issued:
    """Make a key and have the CA sign it; see `server`."""
    opened = ca if isinstance(ca, Authority) else authority.load(ca)
    certificate, key_path = paths(out_dir, stem=stem, first=first)
    refuse_ca_files(opened.folder, certificate, key_path)
    files.refuse_existing(certificate, key_path, force=force)
    if dates is None:
        dates = profile.validity(days, issuer=opened.certificate)
    leaf = opened.permitted(leaf)
    key = keys.generate(kind)

    def deliver(made: x509.Certificate) -> None:
        # Whoever watches these files sees the key first; until the certificate follows the two do not match, which
        # the tunnel takes as "not yet".
        keys.write(key_path, key, passphrase, replace=force)
        files.write(certificate, authority.to_pem(made, *opened.chain), secret=False, replace=force)

    with files.delivering(certificate, key_path):
        made = opened.sign(leaf, key.public_key(), dates, deliver=deliver)
    return Issued(certificate, key_path, opened.anchor, made)


def self_signed(
    leaf: profile.Leaf,
    out_dir: Path | str = ".",
    *,
    first: str,
    stem: str | None = None,
    kind: keys.KeyKind = keys.KeyKind.P256,
    days: int = profile.LEAF_DAYS,
    passphrase: Passphrase | None = None,
    force: bool = False,
) -> Issued:
    """Make a key and a certificate signed by itself: peers must trust the very certificate.

    Raises:
        UsageError: the lifetime is not sane, or a file exists.
        StartupError: a file cannot be written.
    """
    certificate, key_path = paths(out_dir, stem=stem, first=first)
    files.refuse_existing(certificate, key_path, force=force)
    key = keys.generate(kind)
    made = profile.build_leaf(leaf, key.public_key(), profile.validity(days), issuer=None, issuer_key=key)
    with files.delivering(certificate, key_path):
        keys.write(key_path, key, passphrase, replace=force)
        files.write(certificate, authority.to_pem(made), secret=False, replace=force)
    return Issued(certificate, key_path, certificate, made)


def paths(out_dir: Path | str, *, stem: str | None, first: str, ending: str = ".pem") -> tuple[Path, Path]:
    """Where the certificate and its key go.

    Raises:
        UsageError: the stem is no file name.
    """
    chosen = names.file_stem(first) if stem is None else names.check_file_stem(stem, where="--file")
    return Path(out_dir) / f"{chosen}{ending}", Path(out_dir) / f"{chosen}.key"


def refuse_ca_files(folder: Path, *targets: Path) -> None:
    """Never let a leaf take the place of the CA's own files, whatever was forced.

    Raises:
        UsageError: a target is one of them.
    """
    own = {(folder / name).resolve() for name in authority.RESERVED}
    for target in targets:
        if target.resolve() in own:
            raise UsageError(str(target), "belongs to the CA itself; choose another directory, or another --file")
