"""Whom to trust: CA files, the system's CAs, and revocation lists, as values for the workers.

These files hold no secret. They are read whole and every certificate in them is parsed at the start, so that a damaged
one stops the start instead of a handshake; only in the system's own store, which the operator did not write, a damaged
certificate is skipped with a remark.
"""

from __future__ import annotations

import functools
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tlstunnel.errors import words_of
from tlstunnel.parse_errors import PARSE_ERRORS
from tlstunnel.x509 import certificate as facts
from tlstunnel.x509.pem import (
    MAX_CA_BYTES,
    MAX_CRL_BYTES,
    Block,
    MaterialError,
    SourceFile,
    digest,
    parse_pem,
    read_file,
    shown,
)

# Where systems keep their CAs in one file: the OpenSSL we use was built elsewhere and looks where nothing is.
SYSTEM_CA_FILES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Ubuntu, Alpine, Arch, Gentoo
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora, RHEL before 10
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),  # RHEL 7 and newer
    Path("/etc/ssl/ca-bundle.pem"),  # openSUSE
    Path("/etc/ssl/cert.pem"),  # Alpine, the BSDs
    Path("/var/lib/ca-certificates/ca-bundle.pem"),  # openSUSE, newer
)

_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")
_ENDINGS = (".pem", ".crt", ".cer")


@dataclass(frozen=True, slots=True, kw_only=True)
class CABundle:
    """The CAs of one file; subjects, begins and expiries in the order of the certificates."""

    certificates_der: tuple[bytes, ...] = field(repr=False)
    subjects: tuple[str, ...] = field(repr=False)
    begins: tuple[datetime, ...] = field(repr=False)
    expiries: tuple[datetime, ...] = field(repr=False)
    source: str
    is_system: bool = False
    """The machine's own trust store: nothing in it is the operator's to repair."""
    remarks: tuple[str, ...] = ()
    """Whole lines about the file."""
    digest: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CRL:
    """One revocation list."""

    der: bytes = field(repr=False)
    issuer: str
    this_update: datetime
    next_update: datetime | None
    """When it expires; OpenSSL takes a list without this as current for ever."""
    entries: int
    """How many certificates it revokes."""
    source: str
    digest: str = field(repr=False)
    """Of the whole file."""


def load_ca(path: Path) -> CABundle:
    """Read the CAs of a PEM file, the one of a DER file, or those of a folder: the one that `tlstunnel cert ca` made it
    for, else the links that `openssl rehash` makes, else every .pem, .crt and .cer file.

    Raises:
        MaterialError: unreadable, no certificate in it, or one is damaged.
    """
    if path.is_dir():
        if (made := _of_our_ca(path)) is not None:
            return load_ca(made)
        return replace(_from_folders([path], ""), is_system=False)
    file = read_file(path, MAX_CA_BYTES)
    try:
        certificates, blocks = facts.read_certificates(file)
    except MaterialError as exc:
        what = exc.problems[0].what.replace("are certificate and key swapped?", "a CA needs no key here")
        raise file.error(what) from exc
    for block in blocks:
        _refuse_limited(file, block)
    remarks = []
    if any(block.is_key for block in blocks):
        remarks.append(f"{file.where}: holds a private key, which is not needed to trust a CA; keep it elsewhere")
    return _bundle(certificates, file.where, remarks, [file])


def files_of_ca(path: Path) -> list[Path]:
    """The files that `load_ca` reads."""
    if not path.is_dir():
        return [path]
    made = _of_our_ca(path)
    return _files_in(path) if made is None else [made]


def load_system_ca(environ: Mapping[str, str] | None = None) -> CABundle:
    """Read the CAs this machine trusts: those of SSL_CERT_FILE and SSL_CERT_DIR where set, else the system's file.

    As with OpenSSL, both variables count; where both are set, one of them may lead to nothing.

    Raises:
        MaterialError: there are none, or they cannot be read.
    """
    environ = os.environ if environ is None else environ
    if not environ.get("SSL_CERT_DIR"):
        return _from_system_file(environ)
    folders = [Path(part) for part in environ["SSL_CERT_DIR"].split(os.pathsep) if part]
    if not environ.get("SSL_CERT_FILE"):
        return _from_folders(folders, "SSL_CERT_DIR")
    found: list[CABundle] = []
    problems: list[MaterialError] = []
    for load in (
        functools.partial(_from_system_file, environ),
        functools.partial(_from_folders, folders, "SSL_CERT_DIR"),
    ):
        try:
            found.append(load())
        except MaterialError as exc:
            problems.append(exc)
    if not found:
        raise problems[0]
    return found[0] if len(found) == 1 else _joined(*found)


def _joined(one: CABundle, other: CABundle) -> CABundle:
    known = set(one.certificates_der)
    more = [place for place, der in enumerate(other.certificates_der) if der not in known]
    if not more:
        return one
    return replace(
        one,
        certificates_der=one.certificates_der + tuple(other.certificates_der[place] for place in more),
        subjects=one.subjects + tuple(other.subjects[place] for place in more),
        begins=one.begins + tuple(other.begins[place] for place in more),
        expiries=one.expiries + tuple(other.expiries[place] for place in more),
        source=f"{one.source} and {other.source}",
        remarks=one.remarks + other.remarks,
        digest=f"{one.digest}{other.digest}",
    )


def _from_system_file(environ: Mapping[str, str]) -> CABundle:
    file = read_file(system_ca_file(environ), MAX_CA_BYTES)
    certificates, remarks = _tolerant(file, parse_pem(file))
    if not certificates:
        raise file.error("holds no certificate that can be read; name a file with ca")
    return _bundle(certificates, file.where, remarks, [file], is_system=True)


def has_system_ca() -> bool:
    """Whether this machine names or has CAs that it trusts."""
    named = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
    return bool(named) or any(path.is_file() for path in SYSTEM_CA_FILES)


def system_ca_file(environ: Mapping[str, str] | None = None) -> Path:
    """The file of CAs this machine trusts.

    Raises:
        MaterialError: none of the usual places has one.
    """
    environ = os.environ if environ is None else environ
    if named := environ.get("SSL_CERT_FILE"):
        return Path(named)
    for path in SYSTEM_CA_FILES:
        if path.is_file():
            return path
    raise MaterialError(
        "ca", "this system has no CA certificates; install ca-certificates or name a file with ca", True
    )


def load_crls(path: Path) -> tuple[CRL, ...]:
    """Read the revocation lists of a PEM file, or the one of a DER file (CAs publish them as DER).

    Whether a list is current is not checked here: see `certificate_checks.crl_problems`.

    Raises:
        MaterialError: unreadable, no list in it, one is damaged, or one is a delta list.
    """
    file = read_file(path, MAX_CRL_BYTES)
    return tuple(_crl(file, place, found) for place, found in read_lists(file))


def read_lists(file: SourceFile) -> list[tuple[str, x509.CertificateRevocationList]]:
    """The revocation lists of a file, full and delta, each with its place in it for messages.

    Raises:
        MaterialError: there is none, or one is damaged.
    """
    if file.data.startswith(b"0"):
        return [("", _parse_list(file, "", file.data))]
    blocks = parse_pem(file)
    found = [(f"line {block.line}: ", block.der) for block in blocks if block.label == "X509 CRL"]
    if not found:
        raise file.error(f"holds {blocks[0].label} but no revocation list (X509 CRL); name another file")
    return [(place, _parse_list(file, place, der)) for place, der in found]


def signed_by(crl: CRL, bundle: CABundle) -> bool:
    """Whether a CA of the bundle signed the list. OpenSSL uses no other."""
    revocations = x509.load_der_x509_crl(crl.der)
    for der in bundle.certificates_der:
        ca = facts.load_certificate(der)
        if ca.subject == revocations.issuer:
            try:
                if revocations.is_signature_valid(ca.public_key()):  # type: ignore[arg-type]
                    return True
            except TypeError:
                continue  # a key that signs nothing
    return False


def _bundle(
    certificates: Iterable[x509.Certificate],
    source: str,
    remarks: list[str],
    read: Iterable[SourceFile],
    *,
    is_system: bool = False,
) -> CABundle:
    unique = list(dict.fromkeys(certificates))
    return CABundle(
        certificates_der=tuple(one.public_bytes(Encoding.DER) for one in unique),
        subjects=tuple(facts.label(one) for one in unique),
        begins=tuple(one.not_valid_before_utc for one in unique),
        expiries=tuple(one.not_valid_after_utc for one in unique),
        source=source,
        is_system=is_system,
        remarks=tuple(remarks),
        digest=digest(read),
    )


def _refuse_limited(file: SourceFile, block: Block) -> None:
    if block.is_limited:
        what = "is trusted for some purposes only, which is not looked at here; write it without them (openssl x509)"
        raise file.error(f"line {block.line}: {block.label} {what}")


def _of_our_ca(folder: Path) -> Path | None:
    """The root, which peers trust of an intermediate CA, too; None for a folder of another kind."""
    if _hashed(folder):
        return None
    made = next((folder / name for name in ("root.pem", "ca.pem") if (folder / name).exists()), None)
    is_ours = (folder / "ca.key").exists() or _files_in(folder) == [made]
    return made if is_ours else None


def _hashed(folder: Path, variable: str = "") -> list[Path]:
    return [path for path in _listed(folder, variable) if _HASHED.fullmatch(path.name)]


def _files_in(folder: Path, variable: str = "") -> list[Path]:
    """Those with hashed names, as OpenSSL finds them; without any, those that are called certificates."""
    named = (path for path in _listed(folder, variable) if path.suffix.lower() in _ENDINGS)
    return _hashed(folder, variable) or [path for path in named if not path.is_dir()]


def _listed(folder: Path, variable: str) -> list[Path]:
    try:
        return [folder / entry for entry in sorted(os.listdir(folder))]
    except OSError as exc:
        what = f"cannot be read: {words_of(exc)}; correct the {'variable' if variable else 'path'}"
        raise MaterialError(f"{variable}={folder}" if variable else shown(folder), what, True) from exc


def _tolerant(file: SourceFile, blocks: list[Block]) -> tuple[list[x509.Certificate], list[str]]:
    certificates, remarks = [], []
    for block in blocks:
        try:
            _refuse_limited(file, block)
            certificates += facts.load_certificates(file, [block])
        except MaterialError as exc:
            remarks.append(f"{exc}; skipped")
    return certificates, remarks


def _from_folders(folders: list[Path], variable: str) -> CABundle:
    files = [read_file(path, MAX_CA_BYTES) for folder in folders for path in _files_in(folder, variable)]
    certificates: list[x509.Certificate] = []
    remarks: list[str] = []
    for file in files:
        try:
            if file.data.startswith(b"0"):
                certificates += facts.read_certificates(file)[0]
            else:
                more, said = _tolerant(file, parse_pem(file))
                certificates, remarks = certificates + more, remarks + said
        except MaterialError as exc:
            remarks.append(f"{exc}; skipped")
    named = os.pathsep.join(map(shown, folders))
    where = f"{variable}={named}" if variable else named
    if not certificates:
        what = "holds no certificates; name a folder with .pem, .crt or .cer files, or links made by openssl rehash"
        raise MaterialError(where, what)
    return _bundle(certificates, where, remarks, files, is_system=True)


def _parse_list(file: SourceFile, place: str, der: bytes) -> x509.CertificateRevocationList:
    """Parsing is lazy in cryptography: whatever is used later is looked at here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about certificates that are odd but readable
            found = x509.load_der_x509_crl(der)
            _ = len(found), found.extensions, facts.issuer(found), found.last_update_utc, found.next_update_utc
    except PARSE_ERRORS as exc:
        if not place:
            raise file.error("is neither PEM nor a revocation list in DER, or is damaged; fetch it anew") from exc
        raise file.error(f"{place}X509 CRL {facts.reason(exc)}") from exc
    return found


def _crl(file: SourceFile, place: str, found: x509.CertificateRevocationList) -> CRL:
    issuer = facts.issuer(found)
    if any(isinstance(extension.value, x509.DeltaCRLIndicator) for extension in found.extensions):
        raise file.error(f"{place}the list of {issuer} is a delta list; only full lists are supported")
    return CRL(
        der=found.public_bytes(Encoding.DER),
        issuer=issuer,
        this_update=found.last_update_utc,
        next_update=found.next_update_utc,
        entries=len(found),
        source=file.where,
        digest=digest([file]),
    )
