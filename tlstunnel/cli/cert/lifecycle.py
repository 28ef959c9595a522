"""`cert renew`, `cert revoke`, `cert crl`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlstunnel.cli.cert import options
from tlstunnel.cli.cert.options import Source
from tlstunnel.errors import UsageError

CRLDays = Annotated[int, typer.Option("--crl-days", help="Days until the list must be renewed.")]


def renew(
    *,
    certificate: Annotated[Path, typer.Argument(metavar="FILE.pem", help="The certificate to renew.")],
    ca: Annotated[Path | None, typer.Option("--ca", metavar="DIR", help="Folder of the CA that issued it.")] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="PEM", help="For a self-signed one: its key (default: FILE.key).")
    ] = None,
    days: Annotated[int | None, typer.Option("--days", help="Lifetime in days (default: as long as before).")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.pem", help="Write here instead of replacing FILE.pem.")
    ] = None,
    new_key: Annotated[bool, typer.Option("--new-key", help="Make a new key too (pins of the old one break).")] = False,
    key_type: Annotated[
        str | None, typer.Option("--key-type", metavar="TYPE", help="Of the new key (default: as before).")
    ] = None,
    encrypt: options.Encrypt = False,
    passphrase_file: options.PassphraseFile = None,
    passphrase_env: options.PassphraseEnv = None,
    ca_passphrase_file: options.CAPassphraseFile = None,
    ca_passphrase_env: options.CAPassphraseEnv = None,
    force: options.Force = False,
) -> None:
    """Renew a certificate: the same names, uses and key for another term. FILE.pem is replaced at once."""
    from tlstunnel.tools.pki import keys
    from tlstunnel.tools.pki import renew as renewing

    source = Source(passphrase_file, passphrase_env)
    if ca is None:
        if new_key or key_type is not None or encrypt:
            raise UsageError("--new-key", "a self-signed certificate with another key is another one; make it anew")
        opened_key = keys.load(certificate.with_suffix(".key") if key is None else key, source.opening())
        made = renewing.self_signed(certificate, opened_key, days=days, out=out, force=force)
    else:
        if key is not None:
            raise UsageError("--key", "is for self-signed certificates; the CA needs only the certificate")
        if not new_key and (key_type is not None or encrypt or source.is_given):
            raise UsageError("--new-key", "is missing; without it the key stays as it is")
        kind = None if key_type is None else options.key_kind(key_type)
        opened = options.open_ca(ca, ca_passphrase_file, ca_passphrase_env)
        target = certificate if out is None else out
        fresh = None
        if new_key:
            secret = options.for_new_key(source, str(target.with_suffix(".key")), encrypt=encrypt)
            fresh = renewing.NewKey(kind, secret)
        made = renewing.by_authority(opened, certificate, days=days, out=out, new_key=fresh, force=force)
    options.made(certificate=made.certificate, key=made.key)
    options.say(f"valid until {made.parsed.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC")


def revoke(
    *,
    certificate: Annotated[str, typer.Argument(metavar="FILE|SERIAL", help="The certificate, or its serial number.")],
    ca: options.CADir,
    reason: Annotated[
        str, typer.Option("--reason", help="keyCompromise, superseded, cessationOfOperation ... (RFC 5280).")
    ] = "unspecified",
    crl_days: CRLDays = 30,
    ca_passphrase_file: options.CAPassphraseFile = None,
    ca_passphrase_env: options.CAPassphraseEnv = None,
) -> None:
    """Revoke a certificate of this CA and write a new revocation list, DIR/crl.pem."""
    from tlstunnel.tools.pki import revoke as revoking

    opened = options.open_ca(ca, ca_passphrase_file, ca_passphrase_env)
    entry = revoking.revoke(opened, revoking.serial_of(certificate, opened), reason=reason, days=crl_days)
    options.made(crl=ca / "crl.pem")
    options.say(f"revoked {entry.subject}; give the new list to every verifier (--crl)")


def crl(
    *,
    ca: options.CADir,
    days: CRLDays = 30,
    ca_passphrase_file: options.CAPassphraseFile = None,
    ca_passphrase_env: options.CAPassphraseEnv = None,
) -> None:
    """Write a new revocation list, DIR/crl.pem: at least once before the old one's next update."""
    from tlstunnel.tools.pki import revoke as revoking

    opened = options.open_ca(ca, ca_passphrase_file, ca_passphrase_env)
    path, count = revoking.publish(opened, days=days)
    options.made(crl=path)
    options.say(f"{count} revoked; next update due within {days} days")
