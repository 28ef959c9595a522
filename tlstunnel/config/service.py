"""One service as written: `[services.NAME]`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from tlstunnel.address import SystemdAddress, Target, UnixAddress, parse_listen, parse_target
from tlstunnel.config.certificates import check_name, read_backend_tls, read_certificates, read_tls
from tlstunnel.config.model import BackendTLS, ClientAuth, Mode, ServerName, Service, SNIMismatch, Timeouts
from tlstunnel.config.network import (
    check_source_address,
    parse_network,
    parse_unix_mode,
    read_proxy_tlvs,
    read_proxy_trusted,
    read_rate,
    read_source_address,
)
from tlstunnel.config.reader import Table
from tlstunnel.config.revocation import read_crl_expired, read_ocsp
from tlstunnel.config.rules import read_client_policy
from tlstunnel.config.source import FileSource, Report

# Defaults are written once, in the model; these instances carry them here.
_SERVICE = Service(name="", mode=Mode.SERVER, listen=(), targets=())
_TIMEOUTS = Timeouts()


def read_service(table: Table, name: str) -> Service:
    """Read every key of a service. Problems go to the table's report; the value is good only if there were none."""
    mode = table.choice("mode", Mode.SERVER)
    if table.is_faulty("mode"):
        nearest = table.nearest_word("mode", tuple(Mode))
        mode = Mode(nearest) if nearest else _likely_mode(table)
    service = _READERS[mode](table, _read_common(table, name, mode))
    names = (target for name in service.sni for target in name.targets)
    check_source_address(table, service.source_address, (*service.targets, *service.fallback_target, *names))
    others: dict[str, str | None] = {key: _remark(mode, key) for key in _keys_of_others(mode)}
    if _is_mode_guessed(table):
        # What is wrong with what is written can be said; what else must be written, or not, the mode decides.
        table.forgive_missing(but="listen")
        others = dict.fromkeys(others, None)
    table.finish(_SECTION_KEYS | others)
    return service


def _is_mode_guessed(table: Table) -> bool:
    """Whether the mode is no word that one of ours could be meant by."""
    return table.is_faulty("mode") and table.nearest_word("mode", tuple(Mode)) is None


def _likely_mode(table: Table) -> Mode:
    """The mode that knows most of the keys; of several, the one that demands least of their values."""
    return max(reversed(Mode), key=lambda mode: sum(key in keys_of(mode) for key in table.keys))


# Keys of the daemon as a whole that people write into a service, as they stand on the command line.
_SECTION_KEYS = dict.fromkeys(("workers", "user", "group", "reload_poll"), "belongs below [process]; move it there")
_SECTION_KEYS |= {f"log_{key}": f"belongs below [log]; write {key} there" for key in ("format", "level", "target")}
_SECTION_KEYS["admin"] = "belongs below [admin]; write listen there"

_EXAMPLES = {
    Mode.SERVER: (":8443", "127.0.0.1:8080"),
    Mode.CLIENT: ("127.0.0.1:5432", "db.example.org:5433"),
    Mode.PASSTHROUGH: (":443", "10.0.0.7:443"),
}


def _read_common(table: Table, name: str, mode: Mode) -> Service:
    """What every mode has."""
    listen, target = _EXAMPLES[mode]
    table.require("listen", f"write the address to accept connections on: {table.spell('listen', listen)}")
    if mode is not Mode.PASSTHROUGH:
        table.require("target", f"write the address to forward to: {table.spell('target', target)}")
    service = Service(
        name=name,
        mode=mode,
        listen=table.each("listen", functools.partial(parse_listen, base=table.base)),
        unix_mode=table.one("unix_mode", parse_unix_mode, _SERVICE.unix_mode),
        targets=_targets(table, "target"),
        failover=table.choice("failover", _SERVICE.failover),
        source_address=read_source_address(table),
        timeouts=Timeouts(
            handshake_s=table.duration("handshake_timeout", _TIMEOUTS.handshake_s),
            connect_s=table.duration("connect_timeout", _TIMEOUTS.connect_s),
            idle_s=table.duration("idle_timeout", _TIMEOUTS.idle_s),
            half_close_s=table.duration("half_close_timeout", _TIMEOUTS.half_close_s),
            drain_s=table.duration("drain_timeout", _TIMEOUTS.drain_s, zero=True),
            max_lifetime_s=table.duration("max_lifetime", _TIMEOUTS.max_lifetime_s),
        ),
        max_connections=table.count("max_connections", _SERVICE.max_connections),
        max_connections_per_ip=table.count("max_connections_per_ip", _SERVICE.max_connections_per_ip),
        connection_rate_per_ip=read_rate(table, "connection_rate_per_ip"),
        allow_from=table.each("allow_from", parse_network),
        deny_from=table.each("deny_from", parse_network),
        proxy_protocol=table.choice("proxy_protocol", _SERVICE.proxy_protocol),
        accept_proxy_protocol=table.boolean("accept_proxy_protocol", _SERVICE.accept_proxy_protocol),
    )
    if table.has("unix_mode") and not any(isinstance(listen, UnixAddress) for listen in service.listen):
        table.problem("unix_mode", "has no effect, there is no unix:/path to listen on; remove it")
    return dataclasses.replace(
        service,
        proxy_tlvs=read_proxy_tlvs(table, service.proxy_protocol),
        proxy_trusted=read_proxy_trusted(table, service.accept_proxy_protocol),
    )


def _targets(table: Table, key: str) -> tuple[Target, ...]:
    return table.each(key, functools.partial(parse_target, base=table.base))


def _read_server(table: Table, service: Service) -> Service:
    auth = table.choice("client_auth", _SERVICE.client_auth)
    if not table.has("p12"):
        pair = f"{table.spell('certificate', 'server.pem')} with {table.spell('key', 'server.key')}"
        table.require("certificate", f"write {pair}, or {table.spell('p12', 'server.p12')}")
    certificate = read_certificates(table)
    _check_client_auth(table, auth)
    fallback = _read_fallback(table, auth)
    staple, responses, cache = read_ocsp(table)
    crl = table.paths("crl")
    table.has("crl_expired")  # known from here on, beside its key; what it goes with is read below
    backend = _read_target_tls(table, (*service.targets, *fallback))
    service = dataclasses.replace(
        service,
        fallback_target=fallback,
        certificate=certificate,
        client_auth=auth,
        client_ca=table.file_or_folder("client_ca"),
        crl=crl,
        crl_expired=read_crl_expired(table, crl, backend),
        ocsp_staple=staple,
        ocsp_response=responses,
        ocsp_cache=cache,
        policy=read_client_policy(table, auth, is_told_apart=table.has("fallback_target")),
        tls=read_tls(table, _SERVICE.tls),
        sni_mismatch=table.choice("sni_mismatch", _SERVICE.sni_mismatch),
        http_hint=table.boolean("http_hint", _SERVICE.http_hint),
        backend_tls=backend,
        handshake_rate=read_rate(table, "handshake_rate"),
        strict_close=table.boolean("strict_close", _SERVICE.strict_close),
        unsafe_target=table.boolean("unsafe_target", _SERVICE.unsafe_target),
        unsafe_keylog=table.boolean("unsafe_keylog", _SERVICE.unsafe_keylog),
    )
    service = dataclasses.replace(service, sni=_read_names(table, service, _read_server_name))
    if service.backend_tls is None and not service.unsafe_target and not _is_mode_guessed(table):
        _check_plaintext_target(table, "target", service.targets)
        _check_plaintext_target(table, "fallback_target", service.fallback_target)
    return service


def _read_client(table: Table, service: Service) -> Service:
    backend = read_backend_tls(table, service.targets)
    service = dataclasses.replace(
        service,
        backend_tls=backend,
        crl_expired=read_crl_expired(table, backend.crl, None),
        handshake_rate=read_rate(table, "handshake_rate"),
        strict_close=table.boolean("strict_close", _SERVICE.strict_close),
        unsafe_listen=table.boolean("unsafe_listen", _SERVICE.unsafe_listen),
        unsafe_keylog=table.boolean("unsafe_keylog", _SERVICE.unsafe_keylog),
    )
    # Where a descriptor of systemd's is bound is seen when it is there, at the start.
    written = (listen for listen in service.listen if not isinstance(listen, SystemdAddress))
    exposed = next((listen for listen in written if not listen.is_loopback), None)
    if exposed is not None and not service.unsafe_listen and not _is_mode_guessed(table):
        table.problem(
            "listen",
            f"{exposed} is reachable from other machines, in plaintext; write a loopback address or unix:/path, "
            f"or {table.spell('unsafe_listen', True)}",
        )
    return service


def _read_passthrough(table: Table, service: Service) -> Service:
    mismatch = table.choice("sni_mismatch", _SERVICE.sni_mismatch)
    reject = table.spell("sni_mismatch", SNIMismatch.REJECT.value)
    if mismatch is SNIMismatch.REJECT:
        if table.has("target"):
            table.problem("target", f"is for names that no entry of sni lists, which {reject} refuses; remove one")
        if not table.has("sni"):
            table.problem("sni_mismatch", "refuses every name, since none is listed; write entries of sni")
    elif not table.is_faulty("sni_mismatch"):
        table.require(
            "target",
            f"write {table.spell('target', _EXAMPLES[Mode.PASSTHROUGH][1])}, or {reject}",
            because="names that no entry of sni lists need somewhere to go",
        )
    sni = _read_names(table, service, _read_routed_name)
    return dataclasses.replace(service, sni_mismatch=mismatch, sni=sni)


_READERS: dict[Mode, Callable[[Table, Service], Service]] = {
    Mode.SERVER: _read_server,
    Mode.CLIENT: _read_client,
    Mode.PASSTHROUGH: _read_passthrough,
}


def _read_fallback(table: Table, auth: ClientAuth) -> tuple[Target, ...]:
    fallback = _targets(table, "fallback_target")
    if table.has("fallback_target") and not table.is_faulty("client_auth"):
        if auth is not ClientAuth.OPTIONAL:
            optional = table.spell("client_auth", ClientAuth.OPTIONAL.value)
            table.problem("fallback_target", f"is for clients without a certificate; write {optional} to admit any")
        elif table.has("anonymous") and table.word("anonymous", ("allow", "deny"), "allow") == "deny":
            denied = table.spell("anonymous", "deny")
            table.problem("fallback_target", f"is for the clients that {denied} refuses; remove one of the two")
    return fallback


def _check_client_auth(table: Table, auth: ClientAuth) -> None:
    if table.is_faulty("client_auth"):
        return
    if auth is ClientAuth.NONE:
        for key in ("client_ca", "crl"):
            if table.has(key):
                required = table.spell("client_auth", ClientAuth.REQUIRED.value)
                table.problem(key, f"has no effect while no client certificate is asked for; write {required}")
    else:
        table.require(
            "client_ca",
            f"write {table.spell('client_ca', 'clients-ca.pem')}",
            because=f"{table.spell('client_auth', auth.value)} needs the CAs that issue the clients' certificates",
        )


def _check_plaintext_target(table: Table, key: str, targets: tuple[Target, ...]) -> None:
    exposed = next((target for target in targets if not target.is_loopback), None)
    if exposed is not None:
        table.problem(
            key,
            f"{exposed} would be reached in plaintext over the network; write a loopback address or unix:/path, "
            f"or {table.spell('unsafe_target', True)}",
        )


def _read_target_tls(table: Table, targets: tuple[Target, ...]) -> BackendTLS | None:
    """`target_tls = true` takes the defaults, a table says more."""
    if table.is_boolean("target_tls"):
        if not table.boolean("target_tls", False):
            return None
        below = table.empty("target_tls")
    else:
        written = table.table("target_tls", "write true, or a table of settings")
        if written is None:
            return None
        below = written
    backend = read_backend_tls(below, targets)
    below.finish()
    return backend


def _read_names(
    table: Table, service: Service, read: Callable[[Table, Service, tuple[str, ...]], ServerName]
) -> tuple[ServerName, ...]:
    found: list[ServerName] = []
    seen: dict[str, ServerName] = {}
    for entry in table.tables("sni", f"write tables: [[services.{service.name}.sni]]"):
        entry.require("names", f"write {entry.spell('names', ['api.example.org'])}")
        names = entry.each("names", check_name)
        found.append(read(entry, service, names))
        for name in names:
            if not _differ_by_certificate(seen.setdefault(name, found[-1]), found[-1]):
                entry.problem("names", f'"{name}" is already routed above; remove one of the two')
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            entry.problem("names", f'"{twice}" is written twice; remove one of the two')
        entry.finish()
    return tuple(found)


def _differ_by_certificate(one: ServerName, other: ServerName) -> bool:
    """Whether two entries of one name are the same but for certificates, of which the valid one is taken."""
    is_same = dataclasses.replace(one, names=other.names, certificate=other.certificate) == other
    return one is other or (is_same and one.certificate != other.certificate)


def _read_server_name(entry: Table, service: Service, names: tuple[str, ...]) -> ServerName:
    """What differs for these names; the rest is as for the service."""
    targets = _targets(entry, "target") or service.targets
    if service.backend_tls is None and not service.unsafe_target and entry.has("target"):
        _check_plaintext_target(entry, "target", targets)
    policy = read_client_policy(entry, service.client_auth, service.policy)
    if service.fallback_target and not policy.anonymous:
        denied = entry.spell("anonymous", "deny")
        entry.problem("anonymous", f"{denied} has no effect, since those clients go to fallback_target; remove it")
    return ServerName(
        names=names,
        certificate=read_certificates(entry) or service.certificate,
        targets=targets,
        policy=policy,
        tls=read_tls(entry, service.tls),
    )


def _read_routed_name(entry: Table, service: Service, names: tuple[str, ...]) -> ServerName:
    entry.require("target", f"write the address to forward these names to: {entry.spell('target', '10.0.0.7:443')}")
    targets = _targets(entry, "target")
    return ServerName(names=names, certificate=(), targets=targets, policy=service.policy, tls=service.tls)


@functools.cache
def keys_of(mode: Mode) -> tuple[str, ...]:
    """Every key a service of this mode knows, in the order in which they are read."""
    source = FileSource("", Path())
    table = Table(Report(source, {}), ("services", "x"), {})
    table.choice("mode", mode)
    _READERS[mode](table, _read_common(table, "x", mode))
    return table.known


def _keys_of_others(mode: Mode) -> dict[str, Mode]:
    return {key: other for other in reversed(Mode) if other is not mode for key in keys_of(other)}


_INSTEAD = {
    (Mode.SERVER, "ca"): "client_ca",
    (Mode.CLIENT, "client_ca"): "ca",
    (Mode.CLIENT, "unsafe_target"): "unsafe_listen",
    (Mode.SERVER, "unsafe_listen"): "unsafe_target",
}


def _remark(mode: Mode, key: str) -> str:
    """What to say about a key that only other modes know."""
    modes = [other for other in Mode if key in keys_of(other)]
    instead = _INSTEAD.get((mode, key))
    others = " or ".join(f'"{other.value}"' for other in modes)
    right = f'did you mean "{instead}"?' if instead else "remove it"
    return f'is for mode {others}, not "{mode.value}"; {right}'
