"""A certificate authority in a folder.

```
DIR/ca.pem          the CA's certificate; for an intermediate, those above it follow, without the root
DIR/root.pem        only for an intermediate: the root, what peers must trust
DIR/ca.key          its key, readable by its owner only
DIR/index.txt       what was issued and revoked (see `index`); index.txt.attr lets openssl(1) read it
DIR/issued/SERIAL.pem   every certificate issued, without chain
DIR/crl.pem         the newest revocation list, once there is one
DIR/lock            held while anything above changes
```

Theory of operation. Whoever changes the folder holds the lock, so two processes that issue at once take turns. Every
file is replaced as a whole, and the order of the steps makes each crash harmless: the index names a certificate
before the certificate exists anywhere, so one that was signed can always be revoked; a serial in the index without
its file is one that was never handed out. While the folder is being made it holds the file `unfinished`; what is found
beside that file is worthless and is made again.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tlstunnel.errors import UsageError
from tlstunnel.tools.pki import constraints, files, index, keys, names, profile, readers
from tlstunnel.x509 import certificate as facts
from tlstunnel.x509.passphrase import Passphrase, PassphraseSource

DEFAULT_NAME = "tlstunnel CA"
RESERVED = ("ca.pem", "ca.key", "root.pem", "index.txt", "index.txt.attr", "crl.pem", "lock", "unfinished")
"""File names in a CA folder that nothing else may take."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA that can sign: its folder, its certificate, the certificates above it, its key."""

    folder: Path
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    """What a peer needs besides the leaf to reach the root: nothing for a root, else this CA and those above."""
    root: x509.Certificate
    key: keys.PrivateKey

    @property
    def anchor(self) -> Path:
        """The file that peers must trust."""
        return anchor_of(self.folder)

    def sign(
        self, leaf: profile.Leaf, public_key: keys.PublicKey, dates: profile.Validity, *, deliver: Deliver
    ) -> x509.Certificate:
        """Sign a leaf, record it, and hand it to `deliver` while the lock is still held.

        Raises:
            UsageError: the CA's name constraints forbid one of its names.
            StartupError: a file cannot be written.
        """
        leaf = self.permitted(leaf)
        made = profile.build_leaf(leaf, public_key, dates, issuer=self.certificate, issuer_key=self.key)
        self.record(made, deliver=deliver)
        return made

    def permitted(self, leaf: profile.Leaf) -> profile.Leaf:
        """The leaf as this CA may sign it: without a common name that the name constraints forbid a server.

        Raises:
            UsageError: they forbid one of its names.
        """
        issuers = (self.certificate, *self.chain, self.root)
        if leaf.use is profile.Use.SERVER and any(
            constraints.violation(leaf.names, leaf.subject, issuer) for issuer in issuers
        ):
            # A server's common name only repeats an address: better without it than refused because of it.
            leaf = dataclasses.replace(leaf, subject=x509.Name([]))
        constraints.check(leaf.names, leaf.subject, issuers, where=str(self.folder))
        return leaf

    def record(self, made: x509.Certificate, *, deliver: Deliver) -> None:
        """Enter a certificate this CA has just signed into the index, keep a copy, and hand it to `deliver`.

        Raises:
            StartupError: a file cannot be written.
        """
        entry = index.entry_for(made)
        with locked(self.folder):
            entries = index.load(self.folder / "index.txt")
            index.store(self.folder / "index.txt", [*entries, entry])
            files.write(self.folder / entry.file, to_pem(made), secret=False, replace=True)
            deliver(made)


Deliver = Callable[[x509.Certificate], None]


def create(
    folder: Path | str,
    *,
    name: str = DEFAULT_NAME,
    organization: str | None = None,
    kind: keys.KeyKind = keys.KeyKind.P256,
    days: int | None = None,
    path_length: int | None = None,
    subtrees: profile.Subtrees = profile.Subtrees(),  # noqa: B008 - frozen
    passphrase: Passphrase | None = None,
    parent: Authority | None = None,
) -> Authority:
    """Make a CA: a root, or an intermediate below `parent`.

    Args:
        folder: Made if it is missing; it must not hold a CA yet.
        days: Lifetime; ten years by default, for an intermediate as long as its parent lasts at most.
        path_length: How many CAs may stand between this one and a leaf; None is no limit for a root and 0 for an
            intermediate (RFC 5280 section 4.2.1.9).
        passphrase: Encrypts the key.

    Raises:
        UsageError: the folder holds a CA, or an argument is wrong.
        StartupError: a file cannot be written.
    """
    folder = Path(folder)
    subject = names.subject(name, organization=organization, where="--name")
    key = keys.generate(kind)
    if parent is None:
        dates = profile.validity(profile.CA_DAYS if days is None else days)
    else:
        path_length = _path_length_below(parent, path_length)
        dates = _dates_below(parent, days)
        if subject == parent.certificate.subject:
            raise UsageError("--name", f'"{name}" is the name of the parent CA; write another one')
    made = profile.build_ca(
        subject,
        key.public_key(),
        dates,
        issuer=None if parent is None else parent.certificate,
        issuer_key=key if parent is None else parent.key,
        path_length=path_length,
        subtrees=subtrees,
    )
    files.make_directory(folder / "issued")
    with locked(folder):
        interrupted = (folder / "unfinished").exists()
        files.refuse_existing(*(folder / taken for taken in RESERVED[:6]), force=interrupted)
        files.write(folder / "unfinished", b"", secret=False, replace=True)
        if parent is not None:
            parent.record(made, deliver=lambda _: None)
            files.write(folder / "root.pem", to_pem(parent.root), secret=False, replace=True)
        # More than one certificate may have the same subject: they are told apart by their serial numbers.
        files.write(folder / "index.txt.attr", b"unique_subject = no\n", secret=False, replace=True)
        index.store(folder / "index.txt", [])
        keys.write(folder / "ca.key", key, passphrase, replace=True)
        chain = () if parent is None else (made, *parent.chain)
        files.write(folder / "ca.pem", to_pem(*(chain or (made,))), secret=False, replace=True)
        (folder / "unfinished").unlink()
    return Authority(folder, made, chain, made if parent is None else parent.root, key)


def load(folder: Path | str, passphrases: PassphraseSource | None = None) -> Authority:
    """Open a CA to sign with it.

    Raises:
        MaterialError: a file cannot be read.
        UsageError: the folder holds no CA, its key does not open or does not belong to it.
    """
    folder = Path(folder)
    certificates = load_certificates(folder)
    made = certificates[0]
    key_path = folder / "ca.key"
    key = keys.load(key_path, passphrases)
    if keys.public_bytes(key) != keys.public_bytes(made.public_key()):
        raise UsageError(str(key_path), f"not the key of {folder / 'ca.pem'}; restore both from the same backup")
    if (folder / "root.pem").exists():
        return Authority(folder, made, certificates, readers.load_certificates(folder / "root.pem")[0], key)
    return Authority(folder, made, (), made, key)


def anchor_of(folder: Path) -> Path:
    """The file of a CA folder that peers must trust: the root's certificate."""
    root = folder / "root.pem"
    return root if root.exists() else folder / "ca.pem"


def load_certificates(folder: Path) -> tuple[x509.Certificate, ...]:
    """The CA's certificate and those above it, without touching its key.

    Raises:
        MaterialError: a file cannot be read.
        UsageError: the folder holds no CA.
    """
    if folder.is_file():
        raise UsageError(str(folder), f"is a file; name the CA's folder, {folder.parent}")
    if not folder.is_dir():
        raise UsageError(str(folder), "no such CA folder; make one with tlstunnel cert ca --out")
    if (folder / "unfinished").exists() or not (folder / "ca.pem").exists():
        raise UsageError(str(folder), "holds no finished CA; make one with tlstunnel cert ca --out")
    found = readers.load_certificates(folder / "ca.pem")
    if not facts.is_ca(found[0]):
        raise UsageError(str(folder / "ca.pem"), "not a CA's certificate; make one with tlstunnel cert ca --out")
    return found


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: nobody else changes it meanwhile, so what others left half-written can go.

    Raises:
        StartupError: the lock file cannot be opened.
    """
    with files.locked(folder / "lock"):
        files.remove_stale(folder)
        yield


def to_pem(*certificates: x509.Certificate) -> bytes:
    """PEM of one certificate, or of a chain in its order."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def _path_length_below(parent: Authority, wanted: int | None) -> int:
    allowed = parent.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    wanted = 0 if wanted is None else wanted
    if allowed == 0:
        raise UsageError(str(parent.folder), "its path length of 0 forbids CAs below it; choose another parent")
    if allowed is not None and wanted >= allowed:
        raise UsageError("--path-length", f'"{wanted}" is too long below this parent; write {allowed - 1} or less')
    return wanted


def _dates_below(parent: Authority, days: int | None) -> profile.Validity:
    if days is not None:
        return profile.validity(days, issuer=parent.certificate)
    left = profile.days_left(parent.certificate)
    return profile.validity(max(1, min(profile.CA_DAYS, left)), issuer=parent.certificate)
