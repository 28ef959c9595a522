"""Access rules: what each kind of pattern matches, what is refused at the door, and who wins."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_address

import pytest

from tests.support.identities import PIN, an_identity
from tests.support.policies import allows, denies
from tlstunnel.access.policy import Decision, Policy, Reason, Rule, RuleError, decide, rule

BILLING = an_identity(common_names=("billing",), organizational_units=("finance", "ops"))


class TestDecision:
    def test_any_allow_rule_that_matches_allows_and_is_named(self) -> None:
        policy = Policy(allow=(Rule(cn="orders"), Rule(cn="billing", ou="ops")))
        assert decide(policy, BILLING) == Decision(
            allowed=True, rule="allow cn=billing ou=ops", reason=Reason.ALLOW_RULE
        )

    def test_deny_wins_over_allow_and_over_allow_any(self) -> None:
        for policy in (
            Policy(allow=(Rule(cn="billing"),), deny=(Rule(ou="finance"),)),
            Policy(allow_any=True, deny=(Rule(ou="finance"),)),
        ):
            assert decide(policy, BILLING) == Decision(allowed=False, rule="deny ou=finance", reason=Reason.DENY_RULE)

    def test_a_deny_rule_that_does_not_match_changes_nothing(self) -> None:
        policy = Policy(allow_any=True, deny=(Rule(cn="mallory"),))
        assert decide(policy, BILLING) == Decision(allowed=True, rule="allow_any", reason=Reason.ALLOW_ANY)

    def test_without_a_rule_that_matches_nobody_is_allowed(self) -> None:
        refused = Decision(allowed=False, rule="no rule matches", reason=Reason.NO_RULE)
        assert decide(Policy(), BILLING) == refused
        assert decide(Policy(allow=(Rule(cn="orders"),)), BILLING) == refused
        assert decide(Policy(deny=(Rule(cn="orders"),)), BILLING) == refused

    @pytest.mark.parametrize("allow_any", [False, True])
    def test_no_certificate_is_a_case_of_its_own(self, allow_any: bool) -> None:
        rules = (Rule(cn="billing"),)
        allowed = Policy(allow=rules, deny=rules, allow_any=allow_any, anonymous=True)
        assert decide(allowed, None) == Decision(allowed=True, rule="anonymous", reason=Reason.ANONYMOUS)
        refused = Policy(allow=rules, deny=rules, allow_any=allow_any, anonymous=False)
        assert decide(refused, None) == Decision(allowed=False, rule="no certificate", reason=Reason.NO_CERTIFICATE)

    def test_within_a_rule_every_field_has_to_match(self) -> None:
        one = Rule(
            cn="billing",
            ou="finance",
            dns="a.example",
            uri="https://a.example/x",
            ip="192.0.2.7",
            email="a@a.example",
            spki_pin=PIN,
        )
        fitting = {
            "common_names": ("billing",),
            "organizational_units": ("finance",),
            "dns_names": ("a.example",),
            "uris": ("https://a.example/x",),
            "ip_addresses": (ip_address("192.0.2.7"),),
            "emails": ("a@a.example",),
        }
        assert allows(one, an_identity(**fitting))
        assert denies(one, an_identity(**fitting))
        for name in fitting:
            missing = an_identity(**fitting | {name: ()})
            assert not allows(one, missing)
            assert not denies(one, missing)
        other_key = an_identity(**fitting, spki_pin="sha256:" + "A" * 43 + "=")
        assert not allows(one, other_key)
        assert not denies(one, other_key)

    def test_the_rules_text_is_stable_and_complete(self) -> None:
        everything = {
            "cn": "billing",
            "ou": "finance",
            "dns": "a.example",
            "uri": "https://a.example/*",
            "ip": "192.0.2.0/24",
            "email": "a@a.example",
            "spki_pin": PIN,
        }
        shown = " ".join(f"{name}={value}" for name, value in everything.items())
        assert str(Rule(**everything)) == shown
        assert str(rule(**dict(reversed(everything.items())))) == shown

    def test_reading_a_policy_loads_no_cryptography(self) -> None:
        program = "import sys, tlstunnel.access.policy; assert 'cryptography' not in sys.modules"
        subprocess.run([sys.executable, "-c", program], check=True)


class TestCommonName:
    def test_it_is_compared_exactly(self) -> None:
        one = Rule(cn="billing")
        assert allows(one, an_identity(common_names=("billing",)))
        for other in ("Billing", "billing ", "bіlling", "billing.example", "", "b*"):
            assert not allows(one, an_identity(common_names=(other,)))
        for other in ("bіlling", "billing.example", "", "b*"):
            assert not denies(one, an_identity(common_names=(other,)))

    def test_one_of_several_allows_nobody_and_denies(self) -> None:
        several = an_identity(common_names=("billing", "mallory"))
        assert not allows(Rule(cn="billing"), several)
        assert not allows(Rule(cn="mallory"), several)
        assert denies(Rule(cn="billing"), several)
        assert denies(Rule(cn="mallory"), several)
        twice = an_identity(common_names=("billing", "billing"))
        assert not allows(Rule(cn="billing"), twice)

    def test_several_do_not_matter_to_a_rule_about_something_else(self) -> None:
        several = an_identity(common_names=("billing", "mallory"), organizational_units=("finance",))
        assert allows(Rule(ou="finance"), several)


class TestLists:
    def test_one_organizational_unit_of_several_is_enough(self) -> None:
        assert allows(Rule(ou="ops"), BILLING)
        assert not allows(Rule(ou="op"), BILLING)

    @pytest.mark.parametrize(
        ("pattern", "name", "matches"),
        [
            ("api.example.org", "api.example.org", True),
            ("API.Example.org", "api.example.org", True),
            ("api.example.org", "x.api.example.org", False),
            ("*.example.org", "api.example.org", True),
            ("*.example.org", "*.example.org", True),
            ("*.example.org", "a.b.example.org", False),
            ("*.example.org", "example.org", False),
            ("*.example.org", ".example.org", False),
            ("*.example.org", "apiexample.org", False),
            ("*.org", "org", False),
        ],
    )
    def test_a_dns_name_is_exact_or_has_one_free_label(self, pattern: str, name: str, matches: bool) -> None:
        identity = an_identity(dns_names=("other.example", name))
        assert allows(Rule(dns=pattern), identity) is matches
        assert denies(Rule(dns=pattern), identity) is matches

    @pytest.mark.parametrize(
        ("pattern", "address", "matches"),
        [
            ("192.0.2.7", "192.0.2.7", True),
            ("192.0.2.7", "192.0.2.8", False),
            ("192.0.2.0/24", "192.0.2.200", True),
            ("2001:db8::/32", "2001:db8::7", True),
            ("2001:db8::7", "2001:DB8:0::7", True),
            ("0.0.0.0/0", "2001:db8::7", False),
            ("192.0.2.7", "::ffff:192.0.2.7", False),
        ],
    )
    def test_an_ip_address_is_exact_or_in_a_network(self, pattern: str, address: str, matches: bool) -> None:
        identity = an_identity(ip_addresses=(ip_address("fe80::1"), ip_address(address)))
        assert allows(Rule(ip=pattern), identity) is matches

    def test_an_email_address_is_exact_but_for_the_case_of_its_domain(self) -> None:
        identity = an_identity(emails=("Ann@example.org",))
        assert allows(Rule(email="Ann@Example.ORG"), identity)
        assert not allows(Rule(email="ann@example.org"), identity)

    def test_a_pin_is_of_the_key(self) -> None:
        assert allows(Rule(spki_pin=PIN), an_identity())
        assert not allows(Rule(spki_pin=PIN), an_identity(spki_pin="sha256:" + "A" * 43 + "="))


class TestAtTheDoor:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({}, "the rule names nothing; write cn, ou, dns, uri, ip, email or spki_pin"),
            ({"cn": ""}, "cn: it is empty; leave it out, or write a name"),
            ({"cn": "a\nb"}, "cn: it holds a character that does not print; no usable certificate does"),
            ({"cn": "a\u202eb"}, "cn: it holds a character that does not print; no usable certificate does"),
            ({"cn": " a"}, 'cn: " a" begins or ends with a space; write it without'),
            ({"cn": "*"}, 'cn: "*" is no wildcard here, names are compared as they are; write the name itself'),
            ({"ou": "**"}, 'ou: "**" is no wildcard here, names are compared as they are; write the name itself'),
            (
                {"dns": "a b"},
                'dns: "a b" is not a DNS name; write labels of a-z, 0-9 and "-", the first of them may be "*"',
            ),
            (
                {"dns": "a.*.b"},
                'dns: "a.*.b" is not a DNS name; write labels of a-z, 0-9 and "-", the first of them may be "*"',
            ),
            ({"dns": "a\n"}, "dns: it holds a character that does not print; no usable certificate does"),
            ({"dns": ""}, "dns: it is empty; leave it out, or write a name"),
            ({"uri": ""}, "uri: it is empty; leave it out, or write a name"),
            (
                {"uri": "/billing"},
                'uri: "/billing" has no scheme; write all of it, such as spiffe://example.org/billing',
            ),
            (
                {"uri": "https://a.example/ü"},
                'uri: "https://a.example/ü" is not a URI; write it in ASCII, with %XX for everything else',
            ),
            (
                {"uri": "spiffe://*/billing"},
                'uri: "spiffe://*/billing": wildcards stand for segments of the path; write them after scheme://NAME/',
            ),
            (
                {"uri": "urn:example:*"},
                'uri: "urn:example:*": wildcards stand for segments of the path; write them after scheme://NAME/',
            ),
            (
                {"uri": "https://a.example/*?x"},
                'uri: "https://a.example/*?x": wildcards stand for segments of the path; write them after scheme://NAME/',
            ),
            (
                {"uri": "https://a.example/x#*"},
                'uri: "https://a.example/x#*": wildcards stand for segments of the path; write them after scheme://NAME/',
            ),
            (
                {"uri": "spiffe://example.org/bill*"},
                'uri: "spiffe://example.org/bill*": a wildcard is a segment of its own; '
                'write "*" for one, "**" for several',
            ),
            (
                {"uri": "spiffe://example.org/**/a/**"},
                'uri: "spiffe://example.org/**/a/**": "**" may stand in one place; write several rules instead',
            ),
            (
                {"uri": "spiffe://Example.org/*"},
                'uri: "spiffe://Example.org/*" matches no SPIFFE ID; '
                "write spiffe://TRUST-DOMAIN/PATH, the trust domain lower case",
            ),
            (
                {"uri": "spiffe://example.org/a/"},
                'uri: "spiffe://example.org/a/" is not a SPIFFE ID; '
                "write spiffe://TRUST-DOMAIN/PATH, the trust domain lower case",
            ),
            (
                {"ip": "192.0.2.300"},
                'ip: "192.0.2.300" is not an IP address; write 192.0.2.7, 2001:db8::7 or 192.0.2.0/24',
            ),
            ({"ip": "192.0.2.7/24"}, 'ip: "192.0.2.7/24" has bits set after the prefix; write 192.0.2.0/24'),
            ({"ip": ""}, "ip: it is empty; leave it out, or write a name"),
            ({"email": "ann"}, 'email: "ann" is not an e-mail address; write NAME@DOMAIN'),
            ({"email": "*@a.example"}, 'email: "*@a.example" is not an e-mail address; write NAME@DOMAIN'),
            ({"email": "a@*.example"}, 'email: "a@*.example" is not an e-mail address; write NAME@DOMAIN'),
            ({"email": "a@b c"}, 'email: "a@b c" is not an e-mail address; write NAME@DOMAIN'),
            ({"spki_pin": "AAAA"}, 'spki_pin: "AAAA" is not a pin; write sha256:BASE64'),
            (
                {"spki_pin": "sha256:AAAA"},
                'spki_pin: "sha256:AAAA" is not the base64 of 32 bytes; write sha256: and 44 characters',
            ),
            (
                {"spki_pin": "sha256:!"},
                'spki_pin: "sha256:!" is not the base64 of 32 bytes; write sha256: and 44 characters',
            ),
            (
                {"spki_pin": "sha256:" + "ab" * 32},
                f'spki_pin: "sha256:{"ab" * 32}" is not the base64 of 32 bytes; write it in base64, not in hexadecimal',
            ),
        ],
    )
    def test_a_rule_that_cannot_be_meant_is_refused_with_what_would_be_right(
        self, fields: dict[str, str], message: str
    ) -> None:
        for make in (Rule, rule):
            with pytest.raises(RuleError) as caught:
                make(**fields)
            assert str(caught.value) == message
            assert caught.value.field == next(iter(fields), "")

    def test_the_helper_refuses_keys_and_values_of_other_kinds(self) -> None:
        with pytest.raises(RuleError) as caught:
            rule(common_name="billing")
        assert str(caught.value) == "common_name: unknown key; write one of cn, ou, dns, uri, ip, email, spki_pin"
        with pytest.raises(RuleError) as caught:
            rule(cn=7)  # type: ignore[arg-type]
        assert str(caught.value) == "cn: is not text; write a string"

    def test_a_rule_keeps_the_canonical_form(self) -> None:
        assert Rule(dns="*.Example.ORG").dns == "*.example.org"
        assert Rule(email="Ann@Example.ORG").email == "Ann@example.org"
        assert Rule(spki_pin="sha256:" + "A" * 42 + "B=").spki_pin == "sha256:" + "A" * 43 + "="

    def test_rules_are_values(self) -> None:
        assert rule(uri="spiffe://example.org/*", cn="a") == Rule(cn="a", uri="spiffe://example.org/*")
        assert len({Rule(cn="a"), Rule(cn="a"), Rule(ou="a")}) == 2
        assert repr(Rule(cn="a")).startswith("Rule(cn='a', ou=None")
