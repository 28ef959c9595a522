"""Certificates, handshake settings and the originating side, as written."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TypeVar

from tlstunnel.address import Target, TCPAddress, name_problem, shown
from tlstunnel.config.model import BackendTLS, CertificateFiles, TLSSettings
from tlstunnel.config.reader import Table
from tlstunnel.config.rules import read_server_policy

T = TypeVar("T")

_VERSIONS = ("1.2", "1.3")
MAX_ALPN_BYTES = 255  # one length byte each (RFC 7301 section 3.1)


def read_certificates(table: Table) -> tuple[CertificateFiles, ...]:
    """The certificates of one name: PEM pairs, or PKCS#12 files; empty when none is written."""
    certificates, keys, p12 = table.paths("certificate"), table.paths("key"), table.paths("p12")
    passphrases = table.paths("key_passphrase_file")
    owner = next((key for key in ("certificate", "p12") if table.has(key)), None)
    if table.has("p12"):
        for key in ("certificate", "key"):
            if table.has(key):
                table.problem(key, f"{table.spell('p12')} already holds certificate and key; remove one of the two")
    elif table.has("key") and owner is None:
        right = f"write {table.spell('certificate', 'server.pem')}"
        table.require("certificate", right, because=f"{table.spell('key')} belongs to one")
    if owner is None:
        if table.has("key_passphrase_file") and not table.has("key"):
            table.problem("key_passphrase_file", "there is no key it would open; remove it")
        return ()
    count = table.length(owner)
    _check_count(table, "key", owner, table.length("key") in (0, count))
    _check_count(table, "key_passphrase_file", owner, table.length("key_passphrase_file") in (0, 1, count))
    if len(passphrases) == 1:
        passphrases *= count
    if owner == "p12":
        return tuple(
            CertificateFiles(p12=path, key_passphrase_file=_at(passphrases, at)) for at, path in enumerate(p12)
        )
    return tuple(
        CertificateFiles(certificate=path, key=_at(keys, at), key_passphrase_file=_at(passphrases, at))
        for at, path in enumerate(certificates)
    )


def _check_count(table: Table, key: str, owner: str, is_good: bool) -> None:
    if not is_good:
        table.problem(
            key,
            f"{table.length(key)} for {table.length(owner)} of {table.spell(owner)}; write as many, in the same order",
        )


def _at(items: Sequence[T], at: int) -> T | None:
    return items[at] if at < len(items) else None


def read_tls(table: Table, default: TLSSettings, *, is_server: bool = True) -> TLSSettings:
    """What is offered in a handshake. OpenSSL's own judgement of the lists comes later, when contexts are made."""
    settings = TLSSettings(
        min_version=table.word("min_version", _VERSIONS, default.min_version),
        max_version=table.word("max_version", _VERSIONS, default.max_version),
        ciphers=table.string("ciphers", default.ciphers),
        ciphersuites=table.string("ciphersuites", default.ciphersuites),
        groups=table.string("groups", default.groups),
        alpn=table.each("alpn", _protocol, may_be_empty=True) if table.has("alpn") else default.alpn,
        alpn_required=table.boolean("alpn_required", default.alpn_required),
        alpn_mismatch=table.choice("alpn_mismatch", default.alpn_mismatch) if is_server else default.alpn_mismatch,
    )
    if settings.min_version > settings.max_version:
        key = "min_version" if table.has("min_version") else "max_version"
        table.problem(
            key, f'no version is left between "{settings.min_version}" and "{settings.max_version}"; swap the two'
        )
    if settings.alpn_required and not settings.alpn:
        table.problem("alpn_required", f"there is no protocol to require; write {table.spell('alpn', 'h2')}")
    return settings


def _protocol(text: str) -> str:
    if not text.isascii() or not 0 < len(text) <= MAX_ALPN_BYTES:
        raise ValueError(f'"{text[:40]}" is not 1 to {MAX_ALPN_BYTES} ASCII characters; write one such as "h2"')
    return text


def read_backend_tls(table: Table, targets: tuple[Target, ...]) -> BackendTLS:
    """How TLS is originated. Whoever has no host name to verify must say which one to expect."""
    backend = BackendTLS(
        ca=table.file_or_folder("ca"),
        server_name=table.one("server_name", _server_name, None),
        verify=read_server_policy(table),
        certificate=next(iter(_single(table)), None),
        crl=table.paths("crl"),
        tls=read_tls(table, TLSSettings(), is_server=False),
    )
    nameless = [target for target in targets if not isinstance(target, TCPAddress)]
    if nameless and not table.has("server_name"):
        right = f"write {table.spell('server_name', 'db.example.org')}"
        table.require("server_name", right, because=f"{nameless[0]} has no host name to verify")
    return backend


def _single(table: Table) -> tuple[CertificateFiles, ...]:
    """Our own certificate as a client: one."""
    for key in ("certificate", "p12"):
        if table.length(key) > 1:
            table.problem(key, "a client shows one certificate; write one")
    return read_certificates(table)


def _server_name(text: str) -> str | None:
    name = check_name(text)
    if name.startswith("*"):
        raise ValueError(f'"{text}" is a pattern; write the one name the server shows')
    return name


def check_name(text: str) -> str:
    """A host name for SNI, or `*.` and a name; lower case, without a final dot."""
    name = text.removesuffix(".")
    if _is_address(name):
        raise ValueError(f'"{text}" is an address, which no client sends as a server name; write a host name')
    problem = name_problem(name.removeprefix("*."))
    if problem == "is not a host name":
        problem += '; write one such as "api.example.org" or "*.example.org"'
    if problem:
        raise ValueError(f'"{shown(text)}" {problem}')
    return name.lower()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
