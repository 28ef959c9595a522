"""`cert key make|encrypt|decrypt|passphrase`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlstunnel.cli.cert import options
from tlstunnel.cli.cert.options import Source
from tlstunnel.errors import UsageError

if TYPE_CHECKING:
    from tlstunnel.tools.pki.keys import PrivateKey
    from tlstunnel.x509.passphrase import Passphrase

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Make, encrypt and decrypt private keys, change their passphrase."
)

KeyFile = Annotated[Path, typer.Argument(metavar="FILE", help="The private key.")]
OutFile = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write to this file.")]
InPlace = Annotated[bool, typer.Option("--force", help="Replace a file that exists; without --out the key itself.")]


@app.command("make")
def make(
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to make, readable by you alone.")],
    key_type: options.KeyType = "p256",
    encrypt: options.Encrypt = False,
    passphrase_file: options.PassphraseFile = None,
    passphrase_env: options.PassphraseEnv = None,
    force: options.Force = False,
) -> None:
    """Make a private key."""
    from tlstunnel.tools.pki import files, keys

    kind = options.key_kind(key_type)
    files.refuse_existing(out, force=force)
    secret = options.for_new_key(Source(passphrase_file, passphrase_env), str(out), encrypt=encrypt)
    keys.write(out, keys.generate(kind), secret, replace=force)
    options.made(key=out)


@app.command("encrypt")
def encrypt(
    *,
    file: KeyFile,
    out: OutFile = None,
    passphrase_file: options.PassphraseFile = None,
    passphrase_env: options.PassphraseEnv = None,
    force: InPlace = False,
) -> None:
    """Encrypt a key that is not."""
    from tlstunnel.tools.pki import files, keys

    target = _target(file, out, force=force)
    if keys.is_encrypted(files.read(file)):
        raise UsageError(str(file), "encrypted already; change its passphrase with tlstunnel cert key passphrase")
    opened = keys.load(file)
    secret = Source(passphrase_file, passphrase_env).choose(str(target))
    _write(target, opened, secret, force=force)


@app.command("decrypt")
def decrypt(
    *,
    file: KeyFile,
    out: OutFile = None,
    passphrase_file: options.PassphraseFile = None,
    passphrase_env: options.PassphraseEnv = None,
    force: InPlace = False,
) -> None:
    """Write a key without encryption."""
    from tlstunnel.tools.pki import keys

    target = _target(file, out, force=force)
    opened = keys.load(file, Source(passphrase_file, passphrase_env).opening())
    _write(target, opened, None, force=force)


@app.command("passphrase")
def passphrase(
    *,
    file: KeyFile,
    out: OutFile = None,
    passphrase_file: options.PassphraseFile = None,
    passphrase_env: options.PassphraseEnv = None,
    new_passphrase_file: options.NewPassphraseFile = None,
    new_passphrase_env: options.NewPassphraseEnv = None,
    force: InPlace = False,
) -> None:
    """Change the passphrase of a key."""
    from tlstunnel.tools.pki import keys

    target = _target(file, out, force=force)
    opened = keys.load(file, Source(passphrase_file, passphrase_env).opening())
    secret = Source(new_passphrase_file, new_passphrase_env, "new-passphrase").choose(str(target))
    _write(target, opened, secret, force=force)


def _target(file: Path, out: Path | None, *, force: bool) -> Path:
    from tlstunnel.tools.pki import files

    target = file if out is None else out
    if out is None and not force:
        raise UsageError(str(file), "would be replaced; name another file with --out, or add --force")
    files.refuse_existing(target, force=force)
    return target


def _write(target: Path, key: PrivateKey, secret: Passphrase | None, *, force: bool) -> None:
    from tlstunnel.tools.pki import keys

    keys.write(target, key, secret, replace=force)
    options.made(key=target)
