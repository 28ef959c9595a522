"""Options that several `cert` commands share, and how a passphrase is come by.

A passphrase comes from the first line of a file, from an environment variable, or from the terminal. `--passphrase-*`
belongs to the key or bundle the command is about, `--ca-passphrase-*` to the key of the CA, and `--new-passphrase-*` to
what is written where a command reads one encrypted file and writes another.
"""

from __future__ import annotations

import getpass
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlstunnel.errors import UsageError

if TYPE_CHECKING:  # cryptography is slow to import, and --help needs none of it
    from tlstunnel.tools.pki.authority import Authority
    from tlstunnel.tools.pki.keys import KeyKind
    from tlstunnel.x509.passphrase import Passphrase, PassphraseSource

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

MAX_BYTES = 1024
"""OpenSSL's tools read passphrases into a buffer of this size (PEM_BUFSIZE), so longer ones would not travel."""


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

    def opening(self) -> PassphraseSource:
        """For what is encrypted already: the passphrase given, or else one typed."""
        from tlstunnel.x509.passphrase import PassphraseSource, read_passphrase_file

        if self.file is not None and self.variable is not None:
            raise UsageError(f"--{self.prefix}-file", f"is given beside --{self.prefix}-env; give one of them")
        if self.variable is not None and self.variable not in os.environ:
            raise UsageError("environment", f'"{self.variable}" is not set; put the passphrase in it')
        return PassphraseSource(
            {} if self.variable is None else os.environ,
            _prompt if sys.stdin.isatty() else None,
            file=None if self.file is None else read_passphrase_file(self.file),
            variable=self.variable or "",
            given_with=self._options,
        )

    def choose(self, what: str) -> Passphrase:
        """A new passphrase: given on the command line's say, or typed twice."""
        from tlstunnel.x509.passphrase import Passphrase

        source = self.opening()
        if self.is_given:
            chosen = next(source.attempts(Path(what), None))
        elif source.prompt is None:
            raise UsageError(
                what, f"needs a passphrase, and there is no terminal to ask on; give it with {self._options}"
            )
        else:
            typed = _prompt(f"new passphrase for {what}: ")
            if typed != _prompt("the same again: "):
                raise UsageError(what, "the two passphrases differ; type the same one twice")
            chosen = Passphrase(os.fsencode(typed))
        if not 0 < len(chosen.value) <= MAX_BYTES:
            raise UsageError(what, f"{chosen.origin} is empty, or longer than {MAX_BYTES} bytes; give another")
        return chosen

    @property
    def _options(self) -> str:
        return f"--{self.prefix}-file or --{self.prefix}-env"


def _prompt(text: str) -> str:
    try:
        return getpass.getpass(text, stream=sys.stderr)
    except (EOFError, KeyboardInterrupt) as exc:
        print(file=sys.stderr)
        raise typer.Exit(130) from exc


def for_new_key(source: Source, what: str, *, encrypt: bool) -> Passphrase | None:
    """The passphrase a new key is encrypted with, or None if it is not."""
    return source.choose(what) if encrypt or source.is_given else None


def open_ca(folder: Path, file: Path | None, variable: str | None) -> Authority:
    """Open a CA; its passphrase is asked for before anything is locked."""
    from tlstunnel.tools.pki import authority

    return authority.load(folder, Source(file, variable, "ca-passphrase").opening())


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
