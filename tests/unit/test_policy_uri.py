"""Access rules by URI: what a pattern of a SPIFFE ID or another URI matches."""

from __future__ import annotations

import pytest

from tests.support.identities import an_identity
from tests.support.policies import allows, denies
from tlstunnel.access.policy import Rule, RuleError


def with_uri(*uris: str) -> object:
    return an_identity(uris=uris)


class TestURI:
    @pytest.mark.parametrize(
        ("pattern", "uri", "matches"),
        [
            ("spiffe://example.org/billing", "spiffe://example.org/billing", True),
            ("spiffe://example.org/billing", "spiffe://example.org/billing/x", False),
            ("spiffe://example.org/billing", "spiffe://example.org/Billing", False),
            ("spiffe://example.org", "spiffe://example.org", True),
            ("spiffe://example.org/ns/*/billing", "spiffe://example.org/ns/a/billing", True),
            ("spiffe://example.org/ns/*/billing", "spiffe://example.org/ns/a/b/billing", False),
            ("spiffe://example.org/ns/*/billing", "spiffe://example.org/ns/billing", False),
            ("spiffe://example.org/ns/*/billing", "spiffe://example.org/ns/a/orders", False),
            ("spiffe://example.org/ns/*/billing", "spiffe://example.com/ns/a/billing", False),
            ("spiffe://example.org/*", "spiffe://example.org/a", True),
            ("spiffe://example.org/*", "spiffe://example.org", False),
            ("spiffe://example.org/*", "spiffe://example.organ/a", False),
            ("spiffe://example.org/*", "spiffe://example.org/a/b", False),
            ("spiffe://example.org/*/*", "spiffe://example.org/a/b", True),
            ("spiffe://example.org/**", "spiffe://example.org/a", True),
            ("spiffe://example.org/**", "spiffe://example.org/a/b/c", True),
            ("spiffe://example.org/**", "spiffe://example.org", False),
            ("spiffe://example.org/ns/**", "spiffe://example.org/ns", False),
            ("spiffe://example.org/ns/**", "spiffe://example.org/nsx/a", False),
            ("spiffe://example.org/**/billing", "spiffe://example.org/a/b/billing", True),
            ("spiffe://example.org/**/billing", "spiffe://example.org/billing", False),
            ("spiffe://example.org/**/billing", "spiffe://example.org/a/billing/x", False),
            ("spiffe://example.org/ns/**/sa/*", "spiffe://example.org/ns/a/b/sa/x", True),
            ("spiffe://example.org/ns/**/sa/*", "spiffe://example.org/ns/sa/x", False),
            ("spiffe://example.org/ns/**/sa/*", "spiffe://example.org/sn/a/b/sa/x", False),
            ("https://a.example/x", "https://a.example/x", True),
            ("https://a.example/*", "https://a.example/x", True),
            ("urn:example:billing", "urn:example:billing", True),
            ("urn:example:billing", "urn:example:Billing", False),
        ],
    )
    def test_wildcards_stand_for_segments(self, pattern: str, uri: str, matches: bool) -> None:
        assert allows(Rule(uri=pattern), with_uri(uri)) is matches

    @pytest.mark.parametrize("segment", ["", ".", "..", "a?b", "a#b", "a%2fb"])
    def test_nothing_odd_hides_under_a_wildcard_that_allows(self, segment: str) -> None:
        for pattern in ("https://a.example/*/x", "https://a.example/**/x"):
            uri = f"https://a.example/{segment}/x"
            assert not allows(Rule(uri=pattern), with_uri(uri))
            assert denies(Rule(uri=pattern), with_uri(uri))

    @pytest.mark.parametrize(
        "uri",
        [
            "spiffe://example.org/",
            "spiffe://example.org//a",
            "spiffe://example.org/a/",
            "spiffe://example.org/a/../b",
            "spiffe://example.org/./b",
            "spiffe://example.org/a%62",
            "spiffe://example.org/a b",
            "spiffe://example.org/a?b",
            "spiffe://example.org/a#b",
            "spiffe://example.org:8443/a",
            "spiffe://user@example.org/a",
            "spiffe://Example.org/a",
            "SPIFFE://example.org/a",
            "spiffe:/example.org/a",
            "spiffe:///a",
            "spiffe://",
            "spiffe://" + "a" * 256 + "/a",
            "spiffe://example.org/" + "a" * 2048,
        ],
    )
    def test_what_is_no_spiffe_id_is_never_allowed_and_never_a_rule(self, uri: str) -> None:
        for pattern in ("spiffe://example.org/**", "spiffe://example.org/a", "spiffe://example.org/*/b"):
            assert not allows(Rule(uri=pattern), with_uri(uri))
        with pytest.raises(RuleError, match=r"is not a SPIFFE ID|is not a URI|wildcards stand"):
            Rule(uri=uri)

    def test_a_spiffe_id_beside_another_uri_allows_nobody_and_denies(self) -> None:
        several = with_uri("spiffe://example.org/billing", "spiffe://example.org/orders")
        assert not allows(Rule(uri="spiffe://example.org/billing"), several)
        assert not allows(Rule(uri="spiffe://example.org/*"), several)
        assert denies(Rule(uri="spiffe://example.org/orders"), several)

    def test_other_uris_are_a_list(self) -> None:
        several = with_uri("https://a.example/x", "spiffe://example.org/orders")
        assert allows(Rule(uri="https://a.example/x"), several)

    @pytest.mark.parametrize(
        ("pattern", "uri"),
        [
            ("spiffe://example.org/Billing", "spiffe://Example.org/billing"),
            ("spiffe://example.org/ns/*", "SPIFFE://example.org/NS/"),
            ("spiffe://example.org/ns/**/Sa", "spiffe://example.org/ns//sa"),
            ("spiffe://example.org/ns/**", "spiffe://example.org/ns/a b/../c"),
        ],
    )
    def test_a_rule_that_denies_is_generous(self, pattern: str, uri: str) -> None:
        assert denies(Rule(uri=pattern), with_uri(uri))
        assert not allows(Rule(uri=pattern), with_uri(uri))

    def test_a_long_uri_is_decided_in_one_pass(self) -> None:
        """With backtracking this would not end before the test suite does."""
        uri = "https://a.example/" + "a/" * 200_000
        assert not allows(Rule(uri="https://a.example/**/a/*/a/b"), with_uri(uri))
