"""Options that several `cert` commands share, and how a passphrase is come by.

A passphrase is never an argument: those are visible to every user of the machine. It comes from the first line of a
file, from an environment variable, or from the terminal. `--passphrase-*` belongs to the key or bundle the command is
about, `--ca-passphrase-*` to the key of the CA, and `--new-passphrase-*` to what is written where a command reads one
encrypted file and writes another.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from tlstunnel.errors import UsageError

if TYPE_CHECKING:  # cryptography is slow to import, and --help needs none of it
    from tlstunnel.tools.pki.authority import Authority
    from tlstunnel.tools.pki.keys import KeyKind, PrivateKey
    from tlstunnel.tools.pki.passphrase import Passphrase

OutDir = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the files made.")]
CADir = Annotated[Path, typer.Option("--ca", metavar="DIR", help="Folder of the CA.")]
Stem = Annotated[
    str | None, typer.Option("--file", metavar="NAME", help="File name without ending. (default: the first name)")
]
KeyType = Annotated[
    str,
    typer.Option("--key-type", metavar="TYPE", help="p256, p384, ed25519, rsa2048, rsa3072, rsa4096 or mldsa44/65/87."),
]
LeafDays = Annotated[int, typer.Option("--days", help="Lifetime in days.")]
CRLURL = Annotated[
    str | None, typer.Option("--crl-url", metavar="URL", help="Where verifiers may fetch the CA's revocation list.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]
Encrypt = Annotated[bool, typer.Option("--encrypt", help="Encrypt the key; asks for a passphrase.")]
PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", metavar="FILE", help="Its first line is the passphrase.")
]
PassphraseEnv = Annotated[
    str | None, typer.Option("--passphrase-env", metavar="VAR", help="Environment variable with the passphrase.")
]
NewPassphraseFile = Annotated[
    Path | None, typer.Option("--new-passphrase-file", metavar="FILE", help="Its first line is the new passphrase.")
]
NewPassphraseEnv = Annotated[
    str | None, typer.Option("--new-passphrase-env", metavar="VAR", help="Environment variable with the new one.")
]
CAPassphraseFile = Annotated[
    Path | None, typer.Option("--ca-passphrase-file", metavar="FILE", help="Its first line opens the CA's key.")
]
CAPassphraseEnv = Annotated[
    str | None, typer.Option("--ca-passphrase-env", metavar="VAR", help="Environment variable that opens the CA's key.")
]
ServerNames = Annotated[
    list[str] | None,
    typer.Option("--server", metavar="NAME,NAME", help="For a TLS server: host names, *.wildcards, IP addresses."),
]
ClientName = Annotated[str | None, typer.Option("--client", metavar="NAME", help="For a TLS client of this name.")]
Units = Annotated[list[str] | None, typer.Option("--ou", metavar="UNIT", help="Organizational unit; repeatable.")]
URIs = Annotated[list[str] | None, typer.Option("--uri", metavar="URI", help="URI name (spiffe://...); repeatable.")]
DNSNames = Annotated[list[str] | None, typer.Option("--dns", metavar="NAME", help="More host names; repeatable.")]
Emails = Annotated[list[str] | None, typer.Option("--email", metavar="ADDRESS", help="Mail address; repeatable.")]

Opened = TypeVar("Opened")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a passphrase comes from; `prefix` is what the options begin with."""

    file: Path | None = None
    variable: str | None = None
    prefix: str = "passphrase"

    @property
    def is_given(self) -> bool:
        """Whether the command line says where to find it."""
        return self.file is not None or self.variable is not None

    def read(self) -> Passphrase | None:
        """The passphrase from file or environment; None if neither is given."""
        from tlstunnel.tools.pki import passphrase

        if self.file is not None and self.variable is not None:
            raise UsageError(f"--{self.prefix}-file", f"is given beside --{self.prefix}-env; give one of them")
        if self.file is not None:
            return passphrase.from_file(self.file)
        return None if self.variable is None else passphrase.from_environment(self.variable)

    def ask(self, what: str) -> Passphrase:
        """An existing passphrase from the terminal."""
        from tlstunnel.tools.pki.passphrase import Passphrase

        self._need_terminal(what)
        return Passphrase(_prompt(f"passphrase of {what}: "), where=what)

    def choose(self, what: str) -> Passphrase:
        """A new passphrase: given on the command line's say, or typed twice."""
        from tlstunnel.tools.pki.passphrase import Passphrase

        given = self.read()
        if given is not None:
            return given
        self._need_terminal(what)
        typed = _prompt(f"new passphrase for {what}: ")
        if typed != _prompt("the same again: "):
            raise UsageError(what, "the two passphrases differ; type the same one twice")
        return Passphrase(typed, where=what)

    def _need_terminal(self, what: str) -> None:
        if not sys.stdin.isatty():
            what_to_do = f"give it with --{self.prefix}-file or --{self.prefix}-env"
            raise UsageError(what, f"needs a passphrase, and there is no terminal to ask on; {what_to_do}")


def _prompt(text: str) -> str:
    try:
        return getpass.getpass(text, stream=sys.stderr)
    except (EOFError, KeyboardInterrupt) as exc:
        print(file=sys.stderr)
        raise typer.Exit(130) from exc


def for_new_key(source: Source, what: str, *, encrypt: bool) -> Passphrase | None:
    """The passphrase a new key is encrypted with, or None if it is not."""
    return source.choose(what) if encrypt or source.is_given else None


def open_with(source: Source, what: str, *, encrypted: bool, load: Callable[[Passphrase | None], Opened]) -> Opened:
    """Open something that may be encrypted: with the passphrase given, or else with one typed."""
    given = source.read()
    if given is None and encrypted:
        given = source.ask(what)
    return load(given)


def open_key(path: Path, source: Source) -> PrivateKey:
    """Read a private key."""
    from tlstunnel.tools.pki import files, keys

    data = files.read(path)
    return open_with(
        source,
        str(path),
        encrypted=keys.is_encrypted(data),
        load=lambda secret: keys.parse(data, where=str(path), passphrase=secret),
    )


def open_ca(folder: Path, file: Path | None, variable: str | None) -> Authority:
    """Open a CA; its passphrase is asked for before anything is locked."""
    from tlstunnel.tools.pki import authority, files, keys

    authority.load_certificates(folder)
    return open_with(
        Source(file, variable, "ca-passphrase"),
        str(folder / "ca.key"),
        encrypted=keys.is_encrypted(files.read(folder / "ca.key")),
        load=lambda secret: authority.load(folder, secret),
    )


def key_kind(text: str) -> KeyKind:
    """The kind of key meant by `--key-type`: `p256`, `rsa2048`, `ML-DSA-65`."""
    from tlstunnel.tools.pki.keys import KeyKind

    try:
        return KeyKind(text.lower().replace("-", "").replace("_", ""))
    except ValueError as exc:
        known = ", ".join(KeyKind)
        raise UsageError("--key-type", f'"{text}" is no type of key; write one of {known}') from exc


def split(values: list[str] | None) -> tuple[str, ...]:
    """`a,b` and repeated options alike."""
    return tuple(part.strip() for value in values or () for part in value.split(",") if part.strip())


def say(text: str) -> None:
    """A message to the operator, beside the results on stdout."""
    print(text, file=sys.stderr)


def made(**paths: Path | None) -> None:
    """The results: one `what: path` on each line."""
    for what, path in paths.items():
        if path is not None:
            print(f"{what}: {path}")
