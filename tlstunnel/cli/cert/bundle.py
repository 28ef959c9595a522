"""`cert bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlstunnel.cli.cert import options
from tlstunnel.cli.cert.options import Source
from tlstunnel.errors import UsageError


def bundle(
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="What to write: PKCS#12 if it ends in .p12 or .pfx, else PEM.")
    ],
    cert: Annotated[Path | None, typer.Option("--cert", metavar="PEM", help="Certificate, with its chain.")] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="PEM", help="Its key (default: in the certificate's file).")
    ] = None,
    chain: Annotated[
        list[Path] | None, typer.Option("--chain", metavar="PEM", help="More certificates of the chain; repeatable.")
    ] = None,
    p12: Annotated[Path | None, typer.Option("--p12", metavar="FILE", help="Read this PKCS#12 file instead.")] = None,
    key_out: Annotated[
        Path | None, typer.Option("--key-out", metavar="FILE", help="PEM: the key in a file of its own.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="PKCS#12: the friendly name (default: the common name).")
    ] = None,
    legacy: Annotated[
        bool, typer.Option("--legacy", help="PKCS#12: triple DES and SHA-1, for readers from before 2020.")
    ] = False,
    unencrypted: Annotated[bool, typer.Option("--unencrypted", help="PKCS#12: without a passphrase.")] = False,
    encrypt: options.Encrypt = False,
    passphrase_file: options.PassphraseFile = None,
    passphrase_env: options.PassphraseEnv = None,
    new_passphrase_file: options.NewPassphraseFile = None,
    new_passphrase_env: options.NewPassphraseEnv = None,
    force: options.Force = False,
) -> None:
    """Convert: PEM files to PKCS#12 and back, several PEM files to one, old encryption to new."""
    from tlstunnel.tools.pki import bundle as bundling
    from tlstunnel.tools.pki import files, keys

    if (cert is None) == (p12 is None):
        raise UsageError("--cert, --p12", "give one of them: what to read")
    to_pkcs12 = out.suffix.lower() in (".p12", ".pfx")
    if to_pkcs12 and key_out is not None:
        raise UsageError("--key-out", "PKCS#12 is one file; leave it out, or end --out in .pem")
    if not to_pkcs12 and (legacy or unencrypted or name):
        raise UsageError("--out", "--legacy, --unencrypted and --name are for PKCS#12; end it in .p12")
    files.refuse_existing(out, *(() if key_out is None else (key_out,)), force=force)
    secrets = Source(passphrase_file, passphrase_env).opening()
    if p12 is not None:
        opened = bundling.parse_pkcs12(files.read(p12), where=str(p12), passphrases=secrets)
    else:
        opened = bundling.from_pem(cert or Path(), key, chain or [], secrets)
    new = Source(new_passphrase_file, new_passphrase_env, "new-passphrase")
    secret = None
    if to_pkcs12:
        if unencrypted and (new.is_given or encrypt):
            raise UsageError("--unencrypted", "is given beside a passphrase; give one of them")
        secret = None if unencrypted else new.choose(str(out))
        data = bundling.to_pkcs12(opened, secret, name=name, legacy=legacy)
    else:
        secret = options.for_new_key(new, str(key_out or out), encrypt=encrypt)
        data = bundling.to_pem(opened, secret, with_key=key_out is None)
    if key_out is not None:
        if opened.key is None:
            raise UsageError(str(p12), "holds no private key; leave --key-out out")
        keys.write(key_out, opened.key, secret, replace=force)
    files.write(out, data, secret=key_out is None, replace=force)
    options.made(bundle=out, key=key_out)
