"""`cert ca`, `cert issue`, `cert self-signed`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlstunnel.cli.cert import options
from tlstunnel.cli.cert.options import Source
from tlstunnel.errors import UsageError

if TYPE_CHECKING:
    from tlstunnel.tools.pki.profile import Leaf


def ca(
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to make the CA in.")],
    name: Annotated[str, typer.Option("--name", help="Common name of the CA.")] = "tlstunnel CA",
    organization: Annotated[str | None, typer.Option("--organization", help="Organization in its subject.")] = None,
    intermediate: Annotated[bool, typer.Option("--intermediate", help="Below the CA in --ca, not a root.")] = False,
    parent: Annotated[Path | None, typer.Option("--ca", metavar="DIR", help="Folder of the CA above it.")] = None,
    path_length: Annotated[
        int | None,
        typer.Option("--path-length", min=0, help="How many CAs may stand below it (default: any for a root)."),
    ] = None,
    permit: Annotated[
        list[str] | None,
        typer.Option("--permit", metavar="NAME", help="Only names below this one, or in this network; repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="NAME", help="No names below this one; repeatable.")
    ] = None,
    key_type: options.KeyType = "p256",
    days: Annotated[int | None, typer.Option("--days", help="Lifetime in days (default: 3650).")] = None,
    encrypt: options.Encrypt = False,
    passphrase_file: options.PassphraseFile = None,
    passphrase_env: options.PassphraseEnv = None,
    ca_passphrase_file: options.CAPassphraseFile = None,
    ca_passphrase_env: options.CAPassphraseEnv = None,
) -> None:
    """Make a CA in a folder: ca.pem (give it to everyone), ca.key (to no one), and the index of what it issues."""
    from tlstunnel.tools.pki import authority, constraints

    if intermediate and parent is None:
        raise UsageError("--intermediate", "needs the folder of the CA above it; add --ca DIR")
    if parent is not None and not intermediate:
        raise UsageError("--ca", "a root has no CA above it; add --intermediate to make one below")
    kind = options.key_kind(key_type)
    subtrees = constraints.parse(options.split(permit), options.split(exclude))
    above = None if parent is None else options.open_ca(parent, ca_passphrase_file, ca_passphrase_env)
    secret = options.for_new_key(Source(passphrase_file, passphrase_env), str(out / "ca.key"), encrypt=encrypt)
    made = authority.create(
        out,
        name=name,
        organization=organization,
        kind=kind,
        days=days,
        path_length=path_length,
        subtrees=subtrees,
        passphrase=secret,
        parent=above,
    )
    options.made(certificate=out / "ca.pem", key=out / "ca.key", trust=made.anchor)
    if secret is None:
        options.say(
            f"{out / 'ca.key'} is not encrypted: whoever reads it can be anyone (--encrypt asks for a passphrase)"
        )


def issue(
    *,
    ca: options.CADir,
    server: options.ServerNames = None,
    client: options.ClientName = None,
    ou: options.Units = None,
    uri: options.URIs = None,
    dns: options.DNSNames = None,
    email: options.Emails = None,
    out: options.OutDir = Path(),
    file: options.Stem = None,
    key_type: options.KeyType = "p256",
    days: options.LeafDays = 90,
    crl_url: options.CRLURL = None,
    encrypt: options.Encrypt = False,
    passphrase_file: options.PassphraseFile = None,
    passphrase_env: options.PassphraseEnv = None,
    ca_passphrase_file: options.CAPassphraseFile = None,
    ca_passphrase_env: options.CAPassphraseEnv = None,
    force: options.Force = False,
) -> None:
    """Issue a certificate with a new key: NAME.pem (with its chain) and NAME.key."""
    from tlstunnel.tools.pki import issue as issuing

    leaf, first = leaf_of(server=server, client=client, ou=ou, uri=uri, dns=dns, email=email, crl_url=crl_url)
    kind = options.key_kind(key_type)
    opened = options.open_ca(ca, ca_passphrase_file, ca_passphrase_env)
    _, key_path = issuing.paths(out, stem=file, first=first)
    secret = options.for_new_key(Source(passphrase_file, passphrase_env), str(key_path), encrypt=encrypt)
    made = issuing.issue(
        opened, leaf, out, stem=file, first=first, kind=kind, days=days, dates=None, passphrase=secret, force=force
    )
    options.made(certificate=made.certificate, key=made.key, trust=made.ca)


def self_signed(
    *,
    server: options.ServerNames = None,
    client: options.ClientName = None,
    ou: options.Units = None,
    uri: options.URIs = None,
    dns: options.DNSNames = None,
    email: options.Emails = None,
    out: options.OutDir = Path(),
    file: options.Stem = None,
    key_type: options.KeyType = "p256",
    days: options.LeafDays = 90,
    encrypt: options.Encrypt = False,
    passphrase_file: options.PassphraseFile = None,
    passphrase_env: options.PassphraseEnv = None,
    force: options.Force = False,
) -> None:
    """Make a certificate signed by its own key: peers must trust this very file, or pin its key."""
    from tlstunnel.tools.pki import issue as issuing

    leaf, first = leaf_of(server=server, client=client, ou=ou, uri=uri, dns=dns, email=email)
    kind = options.key_kind(key_type)
    _, key_path = issuing.paths(out, stem=file, first=first)
    secret = options.for_new_key(Source(passphrase_file, passphrase_env), str(key_path), encrypt=encrypt)
    made = issuing.self_signed(leaf, out, first=first, stem=file, kind=kind, days=days, passphrase=secret, force=force)
    options.made(certificate=made.certificate, key=made.key, trust=made.ca)


def leaf_of(
    *,
    server: list[str] | None,
    client: str | None,
    ou: list[str] | None,
    uri: list[str] | None,
    dns: list[str] | None,
    email: list[str] | None,
    crl_url: str | None = None,
) -> tuple[Leaf, str]:
    """The leaf that the options describe, and the name its files get."""
    from tlstunnel.tools.pki import profile

    if (server is None) == (client is None):
        given = "both are given" if server is not None else "neither is given"
        raise UsageError("--server, --client", f"{given}; say which of the two the certificate is for")
    if client is not None:
        leaf = profile.client(
            client, units=split_units(ou), uris=uri or (), dns=options.split(dns), emails=email or (), crl_url=crl_url
        )
        return leaf, client
    if ou:
        raise UsageError("--ou", "organizational units are for clients, where rules look at them; leave it out")
    hosts = options.split(server)
    if not hosts:
        raise UsageError("--server", "no name given; write host names or IP addresses, separated by commas")
    leaf = profile.server(hosts, uris=uri or (), dns=options.split(dns), emails=email or (), crl_url=crl_url)
    return leaf, hosts[0]


def split_units(units: list[str] | None) -> tuple[str, ...]:
    """Organizational units as given: a comma may be part of one."""
    return tuple(units or ())
