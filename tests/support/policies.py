"""Deciding by a single access rule."""

from __future__ import annotations

from tlstunnel.access.policy import Policy, Reason, Rule, decide


def allows(one: Rule, identity: object) -> bool:
    return decide(Policy(allow=(one,)), identity).allowed  # type: ignore[arg-type]


def denies(one: Rule, identity: object) -> bool:
    decision = decide(Policy(allow_any=True, deny=(one,)), identity)  # type: ignore[arg-type]
    assert decision.allowed == (decision.reason is Reason.ALLOW_ANY)
    return not decision.allowed
