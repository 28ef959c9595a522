"""Certificates, handshake settings and the originating side, as written."""

from __future__ import annotations

import dataclasses
import itertools

from tlstunnel.address import Target, TCPAddress
from tlstunnel.config.keys import Values, make
from tlstunnel.config.model import CertificateFiles, TargetTLS, TLSSettings
from tlstunnel.config.reader import Table
from tlstunnel.config.rules import make_server_policy

FILES = ("certificate", "key", "p12", "key_passphrase_file")
"""The keys that name the files of a certificate."""


def make_certificates(table: Table, values: Values) -> tuple[CertificateFiles, ...]:
    """The certificates of one name: PEM pairs, or PKCS#12 files; empty when none is written."""
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
    columns = {name: values[name] for name in FILES}
    if len(columns["key_passphrase_file"]) == 1:
        columns["key_passphrase_file"] *= count
    rows = itertools.zip_longest(*columns.values())
    return tuple(CertificateFiles(**dict(zip(FILES, row, strict=True))) for row in rows)


def _check_count(table: Table, key: str, owner: str, is_good: bool) -> None:
    if not is_good:
        table.problem(
            key,
            f"{table.length(key)} for {table.length(owner)} of {table.spell(owner)}; write as many, in the same order",
        )


def make_tls(table: Table, values: Values) -> TLSSettings:
    """What is offered in a handshake. OpenSSL's own judgement of the lists comes later, when contexts are made."""
    settings = make(TLSSettings, values)
    if settings.min_version > settings.max_version:
        key = "min_version" if table.has("min_version") else "max_version"
        table.problem(
            key, f'no version is left between "{settings.min_version}" and "{settings.max_version}"; swap the two'
        )
        # Said once: neither is judged further, here or in what inherits them.
        default = TLSSettings()
        settings = dataclasses.replace(settings, min_version=default.min_version, max_version=default.max_version)
    if settings.alpn_required and not settings.alpn:
        table.problem("alpn_required", f"there is no protocol to require; write {table.spell('alpn', 'h2')}")
    return settings


def make_target_tls(table: Table, values: Values, targets: tuple[Target, ...]) -> TargetTLS:
    """How TLS is originated. Whoever has no host name to verify must say which one to expect."""
    for key in ("certificate", "p12"):
        if table.length(key) > 1:
            table.problem(key, "a client shows one certificate; write one")
    target_tls = make(
        TargetTLS,
        values,
        verify=make_server_policy(table, values),
        certificate=next(iter(make_certificates(table, values)), None),
        tls=make_tls(table, values),
    )
    nameless = [target for target in targets if not isinstance(target, TCPAddress)]
    if nameless and not table.has("server_name"):
        right = f"write {table.spell('server_name', 'db.example.org')}"
        table.require("server_name", right, because=f"{nameless[0]} has no host name to verify")
    return target_tls


def part_of_target_tls(table: Table, target_tls: TargetTLS) -> TargetTLS:
    """What can be looked at on its own of what was read from a faulty table."""
    return dataclasses.replace(
        target_tls,
        certificate=None if table.is_doubtful(*FILES) else target_tls.certificate,
        crl=() if table.is_doubtful("crl") else target_tls.crl,
    )
