"""`cert request`, `cert sign`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlstunnel.cli.cert import options
from tlstunnel.cli.cert.make import leaf_of
from tlstunnel.cli.cert.options import Source
from tlstunnel.errors import UsageError


def request(
    *,
    server: options.ServerNames = None,
    client: options.ClientName = None,
    ou: options.Units = None,
    uri: options.URIs = None,
    dns: options.DNSNames = None,
    email: options.Emails = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="PEM", help="Use this key instead of a new one.")] = None,
    out: options.OutDir = Path(),
    file: options.Stem = None,
    key_type: options.KeyType = "p256",
    encrypt: options.Encrypt = False,
    passphrase_file: options.PassphraseFile = None,
    passphrase_env: options.PassphraseEnv = None,
    force: options.Force = False,
) -> None:
    """Make a certificate request for a CA elsewhere: NAME.csr, and NAME.key, which stays here."""
    from tlstunnel.tools.pki import issue as issuing
    from tlstunnel.tools.pki import keys
    from tlstunnel.tools.pki import request as requesting

    leaf, first = leaf_of(server=server, client=client, ou=ou, uri=uri, dns=dns, email=email)
    source = Source(passphrase_file, passphrase_env)
    kind = options.key_kind(key_type)
    if key is not None and encrypt:
        raise UsageError("--encrypt", "is for a new key; encrypt an existing one with tlstunnel cert key encrypt")
    if key is None:
        _, key_path = issuing.paths(out, stem=file, first=first)
        secret = options.for_new_key(source, str(key_path), encrypt=encrypt)
        made = requesting.make(leaf, out, first=first, stem=file, kind=kind, passphrase=secret, force=force)
    else:
        opened = keys.load(key, source.opening())
        made = requesting.make(leaf, out, first=first, stem=file, existing=(key, opened), force=force)
    options.made(request=made.request, key=made.key)


def sign(
    *,
    request: Annotated[Path, typer.Argument(metavar="FILE.csr", help="The certificate request.")],
    ca: options.CADir,
    use: Annotated[
        str | None, typer.Option("--use", metavar="server|client", help="What for, if the request does not say.")
    ] = None,
    names: Annotated[
        list[str] | None, typer.Option("--names", metavar="NAME,NAME", help="Instead of the names it asks for.")
    ] = None,
    out: options.OutDir = Path(),
    file: options.Stem = None,
    days: options.LeafDays = 90,
    crl_url: options.CRLURL = None,
    ca_passphrase_file: options.CAPassphraseFile = None,
    ca_passphrase_env: options.CAPassphraseEnv = None,
    force: options.Force = False,
) -> None:
    """Sign a request: only its key and its names are taken over, never its wish for other powers."""
    from tlstunnel.tools.pki import chain
    from tlstunnel.tools.pki import names as naming
    from tlstunnel.tools.pki import request as requesting
    from tlstunnel.tools.pki.profile import Use

    if use is not None and use not in set(Use):
        raise UsageError("--use", f'"{use}" is no use; write server or client')
    opened = options.open_ca(ca, ca_passphrase_file, ca_passphrase_env)
    made = requesting.sign(
        opened,
        request,
        out,
        use=None if use is None else Use(use),
        replacement=None if names is None else options.split(names),
        stem=file,
        days=days,
        crl_url=crl_url,
        force=force,
    )
    options.made(certificate=made.certificate, trust=made.ca)
    listed = ", ".join(naming.long(name) for name in chain.alternative_names(made.parsed))
    options.say(f"signed {naming.text_of(made.parsed.subject)} for {listed}")
