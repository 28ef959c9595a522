"""Access rules as written: which identities a service accepts, and what must be said so that nobody guesses."""

from __future__ import annotations

import dataclasses
import functools

from tlstunnel.config.model import ClientAuth
from tlstunnel.config.reader import Table
from tlstunnel.tls.policy import Policy, Rule, RuleError

FIELDS = tuple(field.name for field in dataclasses.fields(Rule) if field.init)
SHORT_FIELDS = ("cn", "ou", "dns", "uri", "spki_pin")
"""What may also be written as a key (or option) of its own: `allow_cn = "billing"`."""
_ALLOW = ("allow", "allow_any", *(f"allow_{field}" for field in SHORT_FIELDS))


def read_client_policy(
    table: Table, auth: ClientAuth, inherited: Policy | None = None, *, is_told_apart: bool = False
) -> Policy:
    """The rules for clients' certificates: demanded where certificates are, refused where none are asked for.

    Args:
        table: where the rules are written.
        auth: whether certificates are asked for.
        inherited: what holds for each of allow, deny and anonymous that this table does not write.
        is_told_apart: whether clients without a certificate go elsewhere, so that one with it gains something.
    """
    policy = Policy(
        allow=_rules(table, "allow"),
        deny=_rules(table, "deny"),
        allow_any=table.boolean("allow_any", False),
        anonymous=_read_anonymous(table, auth),
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


def read_server_policy(table: Table) -> Policy | None:
    """The rules a server's certificate must meet on top of chain and name; None when there are none."""
    rules = _rules(table, "verify")
    return Policy(allow=rules) if rules else None


def _inherit(policy: Policy, inherited: Policy, written: list[str]) -> Policy:
    if not any(key in _ALLOW for key in written):
        policy = dataclasses.replace(policy, allow=inherited.allow, allow_any=inherited.allow_any)
    if "deny" not in written:
        policy = dataclasses.replace(policy, deny=inherited.deny)
    if "anonymous" not in written:
        policy = dataclasses.replace(policy, anonymous=inherited.anonymous)
    return policy


def _example(table: Table) -> str:
    text = table.spell("allow", [{"cn": "NAME"}])
    return text if not text.startswith("--") else table.spell("allow_cn", "NAME")


def _read_anonymous(table: Table, auth: ClientAuth) -> bool:
    if table.has("anonymous") and not table.is_faulty("client_auth") and auth is not ClientAuth.OPTIONAL:
        optional = table.spell("client_auth", ClientAuth.OPTIONAL.value)
        table.problem("anonymous", f"decides about clients without a certificate; write {optional} to admit any")
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
    tables = table.tables(key, 'write rules as tables: [{ cn = "billing" }]', may_be_empty=key == "deny")
    rules = [_read_rule(item) for item in tables]
    if key != "deny":
        for field in SHORT_FIELDS:
            rules += table.each(f"{key}_{field}", functools.partial(_rule, field))
    return tuple(rule for rule in rules if rule is not None)


def _read_rule(table: Table) -> Rule | None:
    given = {field: table.one(field, functools.partial(_rule, field), None) for field in FIELDS}
    if not table.keys:
        table.problem(None, f"an empty rule would match everybody; write one of {', '.join(FIELDS)}")
    table.finish()
    values = {field: getattr(rule, field) for field, rule in given.items() if rule is not None}
    return Rule(**values) if values else None


def _rule(field: str, text: str) -> Rule | None:
    """A rule of one field. The rule itself says what its fields may hold."""
    try:
        return Rule(**{field: text})
    except RuleError as exc:
        raise ValueError(exc.problem) from exc
