"""Access rules as written: which identities a service accepts, and what must be said so that nobody guesses."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import ipaddress

from tlstunnel.config.model import ClientAuth
from tlstunnel.config.reader import Table
from tlstunnel.tls.policy import Policy, Rule

FIELDS = tuple(field.name for field in dataclasses.fields(Rule))
SHORT_FIELDS = ("cn", "ou", "dns", "uri", "spki_pin")
"""What may also be written as a key (or option) of its own: `allow_cn = "billing"`."""
_PIN = "sha256:"
_PIN_BYTES = 32


def read_client_policy(table: Table, auth: ClientAuth, inherited: Policy | None = None) -> Policy:
    """The rules for clients' certificates: demanded where certificates are, refused where none are asked for.

    Args:
        table: where the rules are written.
        auth: whether certificates are asked for.
        inherited: what holds when this table writes no rules at all.
    """
    policy = Policy(
        allow=_rules(table, "allow"),
        deny=_rules(table, "deny"),
        allow_any=table.boolean("allow_any", False),
        anonymous=_read_anonymous(table, auth),
    )
    written = [key for key in table.keys if key.startswith("allow") or key in ("deny", "anonymous")]
    if auth is ClientAuth.NONE:
        _refuse_idle_rules(table, policy, written)
        return Policy()
    if inherited is not None and not written:
        return inherited
    if policy.allow_any and policy.allow:
        table.problem("allow_any", "lets every verified certificate in, so the other rules say nothing; remove one")
    if policy.allow or policy.allow_any or any(key.startswith("allow_") and key != "allow_any" for key in written):
        return policy
    if "allow" in written:
        return policy
    if auth is ClientAuth.OPTIONAL and policy.anonymous:
        # Who shows no certificate is let in; to turn away those who show a verified one would protect nothing.
        return dataclasses.replace(policy, allow_any=True)
    table.problem(
        "client_auth",
        f"{table.spell('client_auth', auth.value)} needs a rule that says who may connect; "
        f"write {_example(table)}, or {table.spell('allow_any', True)} for every certificate that "
        f"{table.spell('client_ca')} vouches for",
    )
    return policy


def read_server_policy(table: Table) -> Policy | None:
    """The rules a server's certificate must meet on top of chain and name; None when there are none."""
    rules = _rules(table, "verify")
    return Policy(allow=rules) if rules else None


def _example(table: Table) -> str:
    text = table.spell("allow", [{"cn": "NAME"}])
    return text if not text.startswith("--") else table.spell("allow_cn", "NAME")


def _read_anonymous(table: Table, auth: ClientAuth) -> bool:
    if table.has("anonymous") and auth is not ClientAuth.OPTIONAL:
        optional = table.spell("client_auth", ClientAuth.OPTIONAL.value)
        table.problem("anonymous", f"decides about clients without a certificate; it needs {optional}")
    return table.word("anonymous", ("allow", "deny"), "allow") == "allow"


def _refuse_idle_rules(table: Table, policy: Policy, written: list[str]) -> None:
    """Rules that nothing would ever ask look like protection and are none."""
    for key in written:
        if key == "anonymous" or (key == "allow_any" and not policy.allow_any):
            continue
        required = table.spell("client_auth", ClientAuth.REQUIRED.value)
        table.problem(key, f"has no effect while no client certificate is asked for; write {required}")


def _rules(table: Table, key: str) -> tuple[Rule, ...]:
    """Rules as tables under `key`, then the short keys, each of whose values is a rule of its own."""
    rules = [_read_rule(item) for item in table.tables(key, 'write rules as tables: [{ cn = "billing" }]')]
    if key != "deny":
        for field in SHORT_FIELDS:
            rules += [Rule(**{field: value}) for value in table.each(f"{key}_{field}", _CHECKS[field])]
    return tuple(rules)


def _read_rule(table: Table) -> Rule:
    values = {field: table.one(field, _CHECKS[field], "") for field in FIELDS}
    if not table.keys:
        table.problem(None, f"an empty rule would match everybody; write one of {', '.join(FIELDS)}")
    table.finish()
    return Rule(**{field: value or None for field, value in values.items()})


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("an empty value matches nobody; write the value to match")
    return text


def _pin(text: str) -> str:
    right = "write sha256: and the base64 of the public key's SHA-256"
    if not text.startswith(_PIN):
        raise ValueError(f'"{text}" is not a pin; {right}')
    try:
        digest = base64.b64decode(text.removeprefix(_PIN), validate=True)
    except binascii.Error:
        raise ValueError(f'"{text}" is not base64; {right}') from None
    if len(digest) != _PIN_BYTES:
        raise ValueError(f'"{text}" holds {len(digest)} bytes instead of {_PIN_BYTES}; {right}')
    return text


def _ip(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f'"{text}" is not an IP address; write one such as "192.0.2.7"') from None


_CHECKS = dict.fromkeys(FIELDS, _text) | {"spki_pin": _pin, "ip": _ip}
