"""`cert show`: what a file or a server's certificates say, and whether they verify."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlstunnel.cli.cert import options
from tlstunnel.cli.cert.options import Source
from tlstunnel.cli.hosts import host_name
from tlstunnel.errors import StartupError, UsageError

if TYPE_CHECKING:
    from tlstunnel.address import TCPAddress
    from tlstunnel.tools.pki.readers import Certificate

Facts = dict[str, Any]


def show(
    *,
    what: Annotated[
        str,
        typer.Argument(metavar="FILE|HOST:PORT", help="Certificates, a request, a CRL, a key, a PKCS#12; a server."),
    ],
    ca: Annotated[
        Path | None,
        typer.Option(
            "--ca", metavar="PEM|DIR", help="The CAs to verify against, or a CA's folder (default: the system's)."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Host name the certificate must be for (default: HOST).")
    ] = None,
    server_name: Annotated[
        str | None,
        typer.Option("--server-name", metavar="NAME", help="HOST:PORT: the name to ask for, SNI (default: HOST)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with everything.")] = False,
    passphrase_file: options.PassphraseFile = None,
    passphrase_env: options.PassphraseEnv = None,
) -> None:
    """Show certificates: names, days left, key, uses, fingerprints, the pin for a rule, and whether they verify."""
    from tlstunnel.cli.cert import render

    address = None if what == "-" or os.path.exists(what) else _address(what)
    if address is not None:
        found, rest = _fetch(address, host_name("--server-name", server_name)), None
        name = name or server_name or address.host
    else:
        found, rest = _read(Path(what), Source(passphrase_file, passphrase_env))
    report: Facts = {"source": what, "items": rest if rest is not None else _certificates(found)}
    if found:
        report["chain"] = _chain(found, ca, name)
    if as_json:
        print(json.dumps(report, indent=2, ensure_ascii=True))
    else:
        render.show(report)


def _address(text: str) -> TCPAddress:
    from tlstunnel.address import AddressError, TCPAddress, parse_target
    from tlstunnel.tools.pki import files

    try:
        parsed = parse_target(text)
    except AddressError as exc:
        if ":" in text and "/" not in text:
            raise UsageError("FILE|HOST:PORT", str(exc)) from exc
        files.read(Path(text))  # says why not
        raise UsageError(text, "neither a file nor HOST:PORT") from exc
    if not isinstance(parsed, TCPAddress):
        raise UsageError(text, "only servers on TCP can be shown; write HOST:PORT")
    return parsed


def _fetch(address: TCPAddress, server_name: str | None) -> tuple[Certificate, ...]:
    from tlstunnel.tools.pki import readers
    from tlstunnel.tools.probe import fetch

    fetched = fetch.fetch_chain(address, server_name=server_name)
    try:
        return tuple(found for der in fetched for found in readers.certificates(der, where=str(address)))
    except UsageError as exc:
        what = "what it sends as a certificate cannot be read; its operator has to replace it"
        raise StartupError(f"{address}: {what}") from exc


def _read(path: Path, source: Source) -> tuple[tuple[Certificate, ...], list[Facts] | None]:
    """The certificates in a file; or none, and what else it holds."""
    from tlstunnel.tools.pki import bundle, describe, files, keys, readers
    from tlstunnel.x509.pem import MAX_CRL_BYTES

    data = files.read(path, limit=MAX_CRL_BYTES)  # the largest of all that can be shown
    where = str(path)
    kind = readers.guess(data)
    if kind == "bundle":
        opened = bundle.parse_pkcs12(data, where=where, passphrases=source.opening())
        return (opened.certificate, *opened.chain), None
    if kind == "request":
        return (), [describe.request(readers.request(data, where=where))]
    if kind == "crl":
        return (), [describe.revocation_list(found) for found in readers.revocation_lists(data, where=where)]
    if kind == "key":
        opened_key = keys.parse(data, where=where, passphrases=source.opening())
        return (), [describe.private_key(opened_key, encrypted=keys.is_encrypted(data))]
    return readers.certificates(data, where=where), None


def _certificates(found: Sequence[Certificate]) -> list[Facts]:
    from tlstunnel.tools.pki import describe

    return [describe.certificate(certificate) for certificate in found]


def _chain(found: Sequence[Certificate], ca: Path | None, host: str | None) -> Facts:
    from tlstunnel.tools.pki import chain, describe, names
    from tlstunnel.x509.certificate import is_ca

    store, anchors = chain.load_trust(ca)
    use = None if is_ca(found[0]) else describe.use_of(found[0])
    verdict = chain.verify(found[0], found[1:], anchors, host=host, use=use)
    strict = None
    if verdict.verifies and not is_ca(found[0]):
        strict = chain.strict_opinion(verdict, describe.use_of(found[0]), host)
    return {
        "verifies": verdict.verifies,
        "trusted": verdict.trusted,
        "store": store,
        "name": host,
        "path": [names.text_of(certificate.subject) for certificate in verdict.path],
        "problems": list(verdict.problems),
        "strict": strict,
    }
