"""Access rules as written: which identities a service accepts, and what must be said so that nobody guesses."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from tlstunnel.config.keys import SHORT_RULES
from tlstunnel.config.kinds import RULE_FIELDS, text
from tlstunnel.config.model import ClientAuth
from tlstunnel.config.parsers import parse_rule
from tlstunnel.config.reader import Table
from tlstunnel.tls.policy import Policy, Rule

Values = Mapping[str, Any]
"""What was read, by field of the model."""
_ALLOW = ("allow", "allow_any", *(f"allow_{field}" for field in SHORT_RULES))


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
