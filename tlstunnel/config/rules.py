"""Rules between keys: what one key demands of another, and which keys have no effect beside others.

What looks like protection and is none, or would be guessed at, is refused; each message says what to write.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
from collections.abc import Callable, Iterable

from tlstunnel.access.policy import Policy, Rule
from tlstunnel.address import Target, TCPAddress, UnixAddress
from tlstunnel.config.keys import SHORT_RULES, Values
from tlstunnel.config.kinds import RULE_FIELDS, text
from tlstunnel.config.model import ClientAuth, Mode, OCSPStaple, ProxyProtocol, ServerName, Service, StartTLS
from tlstunnel.config.parsers import parse_rule
from tlstunnel.config.reader import Table

_ALLOW = ("allow", "allow_any", *(f"allow_{field}" for field in SHORT_RULES))


_NO_CLIENTS = ("has no effect while no client certificate is asked for; write {}", "client_auth", "required")
_IDLE: dict[str, tuple[Callable[[Service], bool], tuple[str, str, object]]] = {
    "unix_mode": (
        lambda service: not any(isinstance(listen, UnixAddress) for listen in service.listen),
        ("has no effect, there is no unix:/path to listen on; remove it", "", None),
    ),
    "proxy_tlvs": (
        lambda service: service.proxy_protocol is not ProxyProtocol.V2,
        ("has no effect but in a PROXY protocol header of version 2; write {}", "proxy_protocol", "v2"),
    ),
    "proxy_trusted": (
        lambda service: not service.accept_proxy_protocol,
        ("has no effect while no PROXY protocol header is asked for; write {}", "accept_proxy_protocol", True),
    ),
    "client_ca": (lambda service: service.client_auth is ClientAuth.NONE, _NO_CLIENTS),
    "crl": (lambda service: service.mode is Mode.SERVER and service.client_auth is ClientAuth.NONE, _NO_CLIENTS),
    "crl_expired": (
        lambda service: not service.crl and not (service.target_tls and service.target_tls.crl),
        ("has no effect while there is no revocation list; write {}, or remove it", "crl", "ca.crl"),
    ),
    "http_hint": (
        lambda service: service.starttls is not None,
        ("has no effect where another protocol is spoken before TLS (starttls); remove it", "", None),
    ),
    "starttls_required": (
        lambda service: service.starttls is None,
        ("has no effect while nothing is spoken before TLS; write {}, or remove it", "starttls", "smtp"),
    ),
    "ocsp_cache": (
        lambda service: service.ocsp_staple is not OCSPStaple.AUTO,
        ("has no effect while no response is fetched; write {}, or remove it", "ocsp_staple", "auto"),
    ),
}
"""Keys that have no effect as a service is: when that is so, what to say, and which key would have to say what."""


def idle_keys(service: Service) -> set[str]:
    """Keys of a service that have no effect: one that is written is an error."""
    return {key for key, (is_idle, _) in _IDLE.items() if is_idle(service)}


def check_idle(table: Table, service: Service) -> None:
    """Note the keys that are written and have no effect."""
    for key in idle_keys(service) & {*table.keys} & {*table.known}:
        what, other, value = _IDLE[key][1]
        if not table.is_faulty(other):
            table.problem(key, what.format(table.spell(other, value)))


def make_client_policy(
    table: Table, values: Values, auth: ClientAuth, inherited: Policy | None = None, *, is_told_apart: bool = False
) -> Policy:
    """The rules for clients' certificates: demanded where certificates are, refused where none are asked for.

    Args:
        table: where the rules are written.
        values: what was read from it.
        auth: whether certificates are asked for.
        inherited: what holds for each of allow, deny and anonymous that this table does not write.
        is_told_apart: whether clients without a certificate go elsewhere, so that one with it gains something.
    """
    if table.has("anonymous") and not table.is_faulty("client_auth") and auth is not ClientAuth.OPTIONAL:
        optional = table.spell("client_auth", ClientAuth.OPTIONAL.value)
        table.problem("anonymous", f"decides about clients without a certificate; write {optional} to admit any")
    policy = Policy(
        allow=_read_rules(table, "allow") + _short_rules(values, "allow"),
        deny=_read_rules(table, "deny", may_be_empty=True),
        allow_any=values["allow_any"],
        anonymous=values["anonymous"],
    )
    written = [key for key in table.keys if key in (*_ALLOW, "deny", "anonymous")]
    if table.is_faulty("client_auth"):
        return Policy()
    if auth is ClientAuth.NONE:
        _refuse_idle_rules(table, policy, written)
        return Policy()
    if inherited is not None:
        policy = _inherit(policy, inherited, written)
    if policy.allow_any and policy.allow:
        table.problem("allow_any", "lets every verified certificate in, so the other rules say nothing; remove one")
    if policy.allow or policy.allow_any or any(table.is_faulty(key) for key in written):
        return policy
    if auth is ClientAuth.OPTIONAL and policy.anonymous and not is_told_apart:
        # Who shows no certificate is let in; to turn away those who show a verified one would protect nothing.
        return dataclasses.replace(policy, allow_any=True)
    table.problem(
        "client_auth",
        f'"{auth.value}" needs a rule that says who may connect; '
        f"write {_example(table)}, or {table.spell('allow_any', True)} for every certificate that "
        f"{table.spell('client_ca')} vouches for",
    )
    return policy


def make_server_policy(table: Table, values: Values) -> Policy | None:
    """The rules a server's certificate must meet on top of chain and name; None when there are none."""
    rules = _read_rules(table, "verify") + _short_rules(values, "verify")
    return Policy(allow=rules) if rules else None


def _short_rules(values: Values, key: str) -> tuple[Rule, ...]:
    return tuple(rule for field in SHORT_RULES for rule in values[f"{key}_{field}"])


def _read_rules(table: Table, key: str, *, may_be_empty: bool = False) -> tuple[Rule, ...]:
    tables = table.tables(key, 'write rules as tables: [{ cn = "billing" }]', may_be_empty=may_be_empty)
    return tuple(rule for item in tables if (rule := _read_rule(item)) is not None)


def _read_rule(table: Table) -> Rule | None:
    given = {field: table.read(field, text(functools.partial(parse_rule, field)), None) for field in RULE_FIELDS}
    if not table.keys:
        table.problem(None, f"an empty rule would match everybody; write one of {', '.join(RULE_FIELDS)}")
    table.finish()
    values = {field: getattr(rule, field) for field, rule in given.items() if rule is not None}
    return Rule(**values) if values else None


def _inherit(policy: Policy, inherited: Policy, written: list[str]) -> Policy:
    if not any(key in _ALLOW for key in written):
        policy = dataclasses.replace(policy, allow=inherited.allow, allow_any=inherited.allow_any)
    if "deny" not in written:
        policy = dataclasses.replace(policy, deny=inherited.deny)
    if "anonymous" not in written:
        policy = dataclasses.replace(policy, anonymous=inherited.anonymous)
    return policy


def _example(table: Table) -> str:
    written = table.spell("allow", [{"cn": "NAME"}])
    return written if not written.startswith("--") else table.spell("allow_cn", "NAME")


def _refuse_idle_rules(table: Table, policy: Policy, written: list[str]) -> None:
    """Rules that nothing would ever ask look like protection and are none."""
    for key in written:
        if key == "anonymous" or (key == "allow_any" and not policy.allow_any):
            continue
        required = table.spell("client_auth", ClientAuth.REQUIRED.value)
        table.problem(key, f"has no effect while no client certificate is asked for; write {required}")


def check_ocsp(table: Table, service: Service) -> OCSPStaple:
    """Where the staple comes from; a response file alone says that it is to be used."""
    is_implied = table.has("ocsp_response") and not table.has("ocsp_staple")
    staple = OCSPStaple.FILE if is_implied else service.ocsp_staple
    if table.is_faulty("ocsp_staple"):
        return staple
    if staple is OCSPStaple.FILE:
        table.require(
            "ocsp_response",
            f"write {table.spell('ocsp_response', 'server.ocsp')}",
            because=f"{table.spell('ocsp_staple', staple.value)} needs a response",
        )
    elif table.has("ocsp_response"):
        written = table.spell("ocsp_staple", staple.value)
        table.problem("ocsp_response", f"has no effect beside {written}; remove one of the two")
    return staple


def check_starttls(table: Table, service: Service) -> None:
    """What cannot go together with a protocol that is spoken before TLS, in server mode.

    Where the backend has to speak first it is dialled before the client has said anything, or proved who it is.
    """
    if service.starttls is None:
        return
    written = table.spell("starttls", service.starttls.value)
    if table.has("fallback_target"):
        table.problem(
            "fallback_target",
            f"cannot be chosen beside {written}, where the target is reached before a certificate is seen; "
            "remove one of the two",
        )
    if service.target_tls is not None:
        table.problem("target_tls", f"is for a target that speaks TLS, and {written} for one without; remove one")
    if not service.starttls_required:
        _check_plaintext_clients(table, service)


def _check_plaintext_clients(table: Table, service: Service) -> None:
    remedy = f"write {table.spell('starttls_required', True)}, or leave the key out"
    if service.starttls is StartTLS.XMPP:
        table.problem("starttls_required", f"cannot be false for XMPP, where the client may only ask for TLS; {remedy}")
    elif service.client_auth is ClientAuth.REQUIRED or not service.policy.anonymous:
        table.problem(
            "starttls_required",
            f"lets clients in without TLS, and so without the certificate that client_auth demands; {remedy}",
        )


def check_starttls_name(entry: Table, service: Service, name: ServerName) -> None:
    """Which target it is must not depend on the name, which is told when the target has spoken already."""
    if service.starttls is not None and service.targets and name.targets != service.targets:
        written = entry.spell("starttls", service.starttls.value)
        entry.problem(
            "target",
            f"cannot differ by name beside {written}, where it is reached before a name is told; remove it, or write "
            "a service of its own",
        )


def check_source_address(table: Table, source: str | None, targets: Iterable[Target]) -> None:
    """A target that cannot be reached from the source address is a mistake in one of the two."""
    all_targets = tuple(targets)
    if source is None or not all_targets:
        return
    if all(isinstance(target, UnixAddress) for target in all_targets):
        table.problem("source_address", "has no effect on unix sockets, and there is no other target; remove it")
        return
    version = ipaddress.ip_address(source).version
    for target in all_targets:
        if isinstance(target, TCPAddress) and target.is_literal:
            other = ipaddress.ip_address(target.host).version
            if other != version:
                table.problem(
                    "source_address",
                    f"{source} is IPv{version} and cannot reach {target}, which is IPv{other}; write an IPv{other} "
                    "address, or another target",
                )
                return
