"""Rules against any identity: the order of rules, lists and fields changes nothing it should not."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import strategies as st

from tests.support.fuzzing import fuzz
from tests.support.identities import PIN, an_identity
from tlstunnel.access.peer import Identity
from tlstunnel.access.policy import Decision, Policy, Reason, Rule, RuleError, decide, rule

pytestmark = pytest.mark.slow

# Few names, so that rules and identities meet; among them some that only look alike.
NAMES = ["billing", "bіlling", "Billing", "orders", "*", "a b", "billing\0", ""]
SEGMENTS = ["a", "b", "ns", "sa", "", ".", "..", "*", "**", "a?b", "%61", "A"]

segments = st.lists(st.sampled_from(SEGMENTS), max_size=6).map(lambda parts: "".join(f"/{part}" for part in parts))
authorities = st.sampled_from(
    ["spiffe://example.org", "spiffe://Example.org", "spiffe://example.com", "https://a.example"]
)
uris = st.builds("".join, st.tuples(authorities, segments))
dns_names = st.lists(st.sampled_from(["a", "b", "*", "example", ""]), min_size=1, max_size=4).map(".".join)

identities = st.builds(
    an_identity,
    common_names=st.lists(st.sampled_from(NAMES), max_size=3).map(tuple),
    organizational_units=st.lists(st.sampled_from(NAMES), max_size=3).map(tuple),
    dns_names=st.lists(dns_names, max_size=3).map(tuple),
    uris=st.lists(uris, max_size=3).map(tuple),
    ip_addresses=st.lists(st.sampled_from([IPv4Address("192.0.2.7"), IPv4Address("192.0.2.8")]), max_size=2).map(tuple),
    emails=st.lists(st.sampled_from(["a@a.example", "b@a.example"]), max_size=2).map(tuple),
)
FIELDS = {
    "cn": st.sampled_from(["billing", "bіlling", "orders", "a b"]),
    "ou": st.sampled_from(["billing", "Billing", "orders"]),
    "dns": st.sampled_from(["a", "a.b", "*.example", "*.a.example", "a.example"]),
    "uri": st.sampled_from(
        [
            "spiffe://example.org",
            "spiffe://example.org/a",
            "spiffe://example.org/*",
            "spiffe://example.org/ns/*/sa",
            "spiffe://example.org/**",
            "spiffe://example.org/a/**/b",
            "https://a.example/*/a",
            "https://a.example/**",
        ]
    ),
    "ip": st.sampled_from(["192.0.2.7", "192.0.2.0/24", "192.0.2.8/29"]),
    "email": st.sampled_from(["a@a.example", "a@A.EXAMPLE"]),
    "spki_pin": st.sampled_from([PIN, "sha256:" + "A" * 43 + "="]),
}


def made(fields: dict[str, str]) -> Rule | None:
    try:
        return rule(**fields)
    except RuleError:
        return None


rules = st.fixed_dictionaries({}, optional=FIELDS).filter(bool).map(lambda fields: rule(**fields))
rule_lists = st.lists(rules, max_size=4).map(tuple)
policies = st.builds(Policy, allow=rule_lists, deny=rule_lists, allow_any=st.booleans(), anonymous=st.booleans())


def without_rule(decision: Decision) -> tuple[bool, Reason]:
    return decision.allowed, decision.reason


@fuzz(policies, identities)
def test_a_decision_follows_from_its_rules(policy: Policy, identity: Identity) -> None:
    decision = decide(policy, identity)
    denying = [one for one in policy.deny if one.denies(identity)]
    allowing = [one for one in policy.allow if one.allows(identity)]
    assert decision.allowed == (not denying and (bool(allowing) or policy.allow_any))
    if denying:
        assert decision.rule == f"deny {denying[0]}"
    elif allowing:
        assert decision.rule == f"allow {allowing[0]}"
    assert decision.rule.isprintable()


@fuzz(policies, identities)
def test_the_order_of_rules_does_not_decide(policy: Policy, identity: Identity) -> None:
    reversed_policy = Policy(
        allow=policy.allow[::-1], deny=policy.deny[::-1], allow_any=policy.allow_any, anonymous=policy.anonymous
    )
    assert without_rule(decide(policy, identity)) == without_rule(decide(reversed_policy, identity))


@fuzz(policies, rules, identities)
def test_one_more_deny_rule_never_lets_anyone_in(policy: Policy, one: Rule, identity: Identity) -> None:
    stricter = Policy(allow=policy.allow, deny=(*policy.deny, one), allow_any=policy.allow_any)
    assert decide(policy, identity).allowed or not decide(stricter, identity).allowed


@fuzz(policies)
def test_nobody_without_a_certificate_is_decided_by_rules(policy: Policy) -> None:
    assert decide(policy, None).allowed == policy.anonymous


@fuzz(rules, identities)
def test_a_rule_that_allows_would_also_deny(one: Rule, identity: Identity) -> None:
    assert one.denies(identity) or not one.allows(identity)


@fuzz(rules, identities, identities)
def test_another_certificates_names_added_to_ones_own_are_still_denied(
    one: Rule, identity: Identity, other: Identity
) -> None:
    both = an_identity(
        common_names=identity.common_names + other.common_names,
        organizational_units=identity.organizational_units + other.organizational_units,
        dns_names=identity.dns_names + other.dns_names,
        uris=identity.uris + other.uris,
        ip_addresses=identity.ip_addresses + other.ip_addresses,
        emails=identity.emails + other.emails,
    )
    assert one.denies(both) or not one.denies(identity)


@fuzz(st.fixed_dictionaries({}, optional={name: st.text(max_size=30) for name in FIELDS}))
def test_any_text_is_a_rule_or_a_rule_error(fields: dict[str, str]) -> None:
    found = made(fields)
    if found is not None:
        assert str(found).isprintable()
        assert rule(**{name: getattr(found, name) for name in fields}) == found


@fuzz(st.lists(st.sampled_from(["a", "ns", "*", "**"]), min_size=1, max_size=5), st.lists(st.sampled_from(["a", "ns"])))
def test_wildcards_match_as_their_definition_says(pattern: list[str], path: list[str]) -> None:
    """Against the definition written down plainly: `*` takes one segment, `**` takes one or more."""
    one = made({"uri": "spiffe://example.org/" + "/".join(pattern)})
    if one is None:
        assert pattern.count("**") > 1
        return
    identity = an_identity(uris=("/".join(["spiffe://example.org", *path]),))
    assert one.allows(identity) == expected(pattern, path)
    assert one.denies(identity) == expected(pattern, path)


def expected(pattern: list[str], path: list[str]) -> bool:
    if not pattern:
        return not path
    if not path:
        return False
    if pattern[0] == "**":
        return any(expected(pattern[1:], path[taken:]) for taken in range(1, len(path) + 1))
    return pattern[0] in ("*", path[0]) and expected(pattern[1:], path[1:])
