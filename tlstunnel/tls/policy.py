"""Access rules: pure values and one pure decision."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Matches an identity when every field that is set matches."""

    cn: str | None = None
    ou: str | None = None
    dns: str | None = None
    uri: str | None = None
    ip: str | None = None
    email: str | None = None
    spki_pin: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Who may connect: any `allow` rule that matches, unless a `deny` rule matches."""

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()
    allow_any: bool = False
    anonymous: bool = True
