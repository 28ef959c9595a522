"""One service as written: `[services.NAME]`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

from tlstunnel.address import SystemdAddress, Target
from tlstunnel.config.certificates import FILES, make_certificates, make_target_tls, make_tls, part_of_target_tls
from tlstunnel.config.keys import DEFAULTS, KEYS, MODE, Place, Values, fields_of, keys_in, make, place_of, read_keys
from tlstunnel.config.kinds import boolean
from tlstunnel.config.model import ClientAuth, CRLExpired, Mode, ServerName, Service, SNIMismatch, TargetTLS, Timeouts
from tlstunnel.config.reader import Table
from tlstunnel.config.rules import (
    check_idle,
    check_ocsp,
    check_source_address,
    check_starttls,
    check_starttls_name,
    make_client_policy,
)


def read_service(table: Table, name: str) -> Service:
    """Read every key of a service. Problems go to the table's report.

    Nothing can be started with the value if there were any. What it names was read without a problem all the same, and
    can be looked at; what depends on a faulty key is left out.
    """
    mode = MODE.read(table, "mode", Mode.SERVER)
    if table.is_faulty("mode"):
        nearest = table.nearest_word("mode", tuple(Mode))
        mode = Mode(nearest) if nearest else _likely_mode(table)
    values = read_keys(table, keys_in(place_of(mode)), DEFAULTS)
    service = make(Service, values, name=name, mode=mode, timeouts=make(Timeouts, values), certificate=())
    _check_common(table, service)
    service = _COMPLETE[mode](table, service, values)
    check_idle(table, service)
    names = (target for name in service.sni for target in name.targets)
    check_source_address(table, service.source_address, (*service.targets, *service.fallback_target, *names))
    others: Mapping[str, str | None] = _remarks(mode)
    if _is_mode_guessed(table):
        # What is wrong with what is written can be said; what else must be written, or not, the mode decides.
        table.forgive_missing(but="listen")
        others = dict.fromkeys(others, None)
    table.finish({**_SECTION_KEYS, **others})
    return service if table.is_sound else _part_of(table, service)


def _part_of(table: Table, service: Service) -> Service:
    """What can be looked at on its own of what was read from a faulty table."""
    names = service.sni if len(service.sni) == table.length("sni") else ()
    if table.is_doubtful(*FILES):
        # Those that have no certificate of their own have the service's.
        names = tuple(
            dataclasses.replace(name, certificate=()) if name.certificate == service.certificate else name
            for name in names
        )
        service = dataclasses.replace(service, certificate=())
    if service.mode is Mode.CLIENT and service.target_tls is not None:
        service = dataclasses.replace(service, target_tls=part_of_target_tls(table, service.target_tls))
    # A response is for one of the certificates, all of which must be known, and so must who issued them.
    is_sure = service.certificate and all(name.certificate for name in names) and len(names) == table.length("sni")
    is_sure = is_sure and not table.is_doubtful("ocsp_response", "client_ca")
    return dataclasses.replace(
        service,
        sni=names,
        crl=() if table.is_doubtful("crl") else service.crl,
        crl_expired=CRLExpired.WARNING if table.is_doubtful("crl_expired") else service.crl_expired,
        ocsp_response=service.ocsp_response if is_sure else (),
    )


def _is_mode_guessed(table: Table) -> bool:
    """Whether the mode is no word that one of ours could be meant by."""
    return table.is_faulty("mode") and table.nearest_word("mode", tuple(Mode)) is None


def _likely_mode(table: Table) -> Mode:
    """The mode that knows most of the keys; of several, the one that demands least of their values."""
    return max(reversed(Mode), key=lambda mode: sum(key in keys_of(mode) for key in table.keys))


# Keys of the daemon as a whole that people write into a service, as they stand on the command line.
_SECTION_KEYS = {
    key.option.removeprefix("--").replace("-", "_"): f"belongs below [{key.section}]; "
    + (f"write {key.name} there" if key.flag else "move it there")
    for key in KEYS
    if key.panel and key.section != "service"
}

_EXAMPLES = {
    Mode.SERVER: (":8443", "127.0.0.1:8080"),
    Mode.CLIENT: ("127.0.0.1:5432", "db.example.org:5433"),
    Mode.PASSTHROUGH: (":443", "10.0.0.7:443"),
}


def _check_common(table: Table, service: Service) -> None:
    """What every mode asks for."""
    listen, target = _EXAMPLES[service.mode]
    table.require("listen", f"write the address to accept connections on: {table.spell('listen', listen)}")
    if service.mode is not Mode.PASSTHROUGH:
        table.require("target", f"write the address to forward to: {table.spell('target', target)}")


def _complete_server(table: Table, service: Service, values: Values) -> Service:
    if not table.has("p12"):
        pair = f"{table.spell('certificate', 'server.pem')} with {table.spell('key', 'server.key')}"
        table.require("certificate", f"write {pair}, or {table.spell('p12', 'server.p12')}")
    certificate = make_certificates(table, values)
    _check_client_auth(table, service.client_auth)
    _check_fallback(table, service.client_auth, values)
    staple = check_ocsp(table, service)
    target_tls = _read_target_tls(table, (*service.targets, *service.fallback_target))
    service = dataclasses.replace(
        service,
        certificate=certificate,
        ocsp_staple=staple,
        policy=make_client_policy(table, values, service.client_auth, is_told_apart=table.has("fallback_target")),
        tls=make_tls(table, values),
        target_tls=target_tls,
    )
    check_starttls(table, service)
    service = dataclasses.replace(service, sni=_read_names(table, service, _read_server_name))
    if service.target_tls is None and not service.unsafe_target and not _is_mode_guessed(table):
        _check_plaintext_target(table, "target", service.targets)
        _check_plaintext_target(table, "fallback_target", service.fallback_target)
    return service


def _complete_client(table: Table, service: Service, values: Values) -> Service:
    target_tls = make_target_tls(table, values, service.targets)
    service = dataclasses.replace(service, target_tls=target_tls, crl=())
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


def _complete_passthrough(table: Table, service: Service, _: Values) -> Service:
    reject = table.spell("sni_mismatch", SNIMismatch.REJECT.value)
    if service.sni_mismatch is SNIMismatch.REJECT:
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
    return dataclasses.replace(service, sni=_read_names(table, service, _read_routed_name))


_COMPLETE: dict[Mode, Callable[[Table, Service, Values], Service]] = {
    Mode.SERVER: _complete_server,
    Mode.CLIENT: _complete_client,
    Mode.PASSTHROUGH: _complete_passthrough,
}


def _check_fallback(table: Table, auth: ClientAuth, values: Values) -> None:
    if table.has("fallback_target") and not table.is_faulty("client_auth"):
        if auth is not ClientAuth.OPTIONAL:
            optional = table.spell("client_auth", ClientAuth.OPTIONAL.value)
            table.problem("fallback_target", f"is for clients without a certificate; write {optional} to admit any")
        elif table.has("anonymous") and not values["anonymous"]:
            denied = table.spell("anonymous", "deny")
            table.problem("fallback_target", f"is for the clients that {denied} refuses; remove one of the two")


def _check_client_auth(table: Table, auth: ClientAuth) -> None:
    if auth is not ClientAuth.NONE and not table.is_faulty("client_auth"):
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


def _read_target_tls(table: Table, targets: tuple[Target, ...]) -> TargetTLS | None:
    """`target_tls = true` takes the defaults, a table says more."""
    if table.is_boolean("target_tls"):
        if not table.read("target_tls", boolean, False):
            return None
        below = table.empty("target_tls")
    else:
        written = table.table("target_tls", "write true, or a table of settings")
        if written is None:
            return None
        below = written
    target_tls = make_target_tls(below, read_keys(below, keys_in(Place.TARGET_TLS), DEFAULTS), targets)
    below.finish()
    return target_tls if below.is_sound else part_of_target_tls(below, target_tls)


def _read_names(table: Table, service: Service, read: Callable[[Table, Service], ServerName]) -> tuple[ServerName, ...]:
    found: list[ServerName] = []
    seen: dict[str, tuple[Table, ServerName]] = {}
    for entry in table.tables("sni", f"write tables: [[services.{service.name}.sni]]"):
        entry.require("names", f"write {entry.spell('names', ['api.example.org'])}")
        found.append(read(entry, service))
        names = found[-1].names
        entry.finish()
        if entry.is_doubtful(*FILES):
            found[-1] = dataclasses.replace(found[-1], certificate=())
        this = (entry, found[-1])
        # Gathered first: what is noted here must not make this entry doubtful.
        taken = [name for name in names if not _may_share(seen.setdefault(name, this), this)]
        for name in taken:
            entry.problem("names", f'"{name}" is already routed above; remove one of the two')
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            entry.problem("names", f'"{twice}" is written twice; remove one of the two')
    return tuple(found)


def _may_share(first: tuple[Table, ServerName], second: tuple[Table, ServerName]) -> bool:
    """Whether two entries of one name are the same but for certificates, of which the valid one is taken.

    So they may be meant while one of them is wrong, if it has a certificate of its own.
    """
    (table, one), (entry, other) = first, second
    if one is other:
        return True
    if not (table.is_sound and entry.is_sound):
        return any(each.has(key) or each.is_doubtful(key) for each in (table, entry) for key in FILES)
    is_same = dataclasses.replace(one, names=other.names, certificate=other.certificate) == other
    return is_same and one.certificate != other.certificate


def _read_server_name(entry: Table, service: Service) -> ServerName:
    """What differs for these names; the rest is as for the service."""
    inherited = DEFAULTS | fields_of(service.tls) | {"targets": service.targets}
    values = read_keys(entry, keys_in(Place.SNI), inherited)
    certificate = make_certificates(entry, values) or service.certificate
    policy = make_client_policy(entry, values, service.client_auth, service.policy)
    name = make(ServerName, values, certificate=certificate, policy=policy, tls=make_tls(entry, values))
    check_starttls_name(entry, service, name)
    if service.target_tls is None and not service.unsafe_target and entry.has("target"):
        _check_plaintext_target(entry, "target", name.targets)
    if service.fallback_target and not policy.anonymous:
        denied = entry.spell("anonymous", "deny")
        entry.problem("anonymous", f"{denied} has no effect, since those clients go to fallback_target; remove it")
    return name


def _read_routed_name(entry: Table, service: Service) -> ServerName:
    entry.require("target", f"write the address to forward these names to: {entry.spell('target', '10.0.0.7:443')}")
    values = read_keys(entry, keys_in(Place.ROUTE), DEFAULTS)
    return make(ServerName, values, certificate=(), policy=service.policy, tls=service.tls)


@functools.cache
def keys_of(mode: Mode) -> tuple[str, ...]:
    """Every key a service of this mode knows."""
    return tuple(key.name for key in keys_in(place_of(mode)))


_INSTEAD = {
    (Mode.SERVER, "ca"): "client_ca",
    (Mode.CLIENT, "client_ca"): "ca",
    (Mode.CLIENT, "unsafe_target"): "unsafe_listen",
    (Mode.SERVER, "unsafe_listen"): "unsafe_target",
}


@functools.cache
def _remarks(mode: Mode) -> dict[str, str]:
    """What to say about keys that only other modes know."""
    remarks = {}
    for key in {key for other in Mode for key in keys_of(other)} - set(keys_of(mode)):
        others = " or ".join(f'"{other.value}"' for other in Mode if key in keys_of(other))
        instead = _INSTEAD.get((mode, key))
        right = f'did you mean "{instead}"?' if instead else "remove it"
        remarks[key] = f'is for mode {others}, not "{mode.value}"; {right}'
    return remarks
