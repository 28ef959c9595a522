"""A rule that denies keeps out every spelling of the name it holds; a rule that allows, none but that one."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.identities import an_identity
from tests.support.policies import allows, denies
from tlstunnel.access.policy import Rule

FIELDS = {"cn": "common_names", "ou": "organizational_units", "dns": "dns_names", "uri": "uris", "email": "emails"}


def named(field: str, name: Any) -> Any:
    if field == "ip":
        return an_identity(ip_addresses=(ip_address(name),))
    return an_identity(**{FIELDS[field]: (name,)})


ALIKE = [
    ("ip", "10.6.6.0/24", "::ffff:10.6.6.6"),
    ("ip", "10.6.6.6", "::ffff:a06:606"),
    ("ip", "::ffff:10.6.6.0/120", "10.6.6.6"),
    ("ip", "::/0", "10.6.6.6"),
    ("dns", "evil.example", "evil.example."),
    ("dns", "evil.example", "*.example"),
    ("dns", "evil.example", "*.example."),
    ("dns", "evil.example", "ev*.example"),
    ("dns", "evil.example", "*il.example"),
    ("dns", "evil.example", "e*l.example"),
    ("dns", "*.example", "evil.example."),
    ("dns", "evil.example", "xn--evil-.example"),
    ("dns", "xn--bcher-kva.example", "bücher.example"),
    ("dns", "xn--bcher-kva.example", "BÜCHER.example"),
    ("dns", "evil.example", "evil.example "),
    ("dns", "evil.example", " evil.example"),
    ("dns", "evil.example", "evil.example. "),
    ("dns", "evil.example", "evil .example"),
    ("dns", "evil.example", " *.example"),
    ("cn", "evil", "Evil"),
    ("cn", "evil one", "evil  one"),
    ("cn", "evil", " evil"),
    ("cn", "evil", "ｅｖｉｌ"),
    ("cn", "straße", "STRASSE"),
    ("cn", "é", "e\N{COMBINING ACUTE ACCENT}"),
    ("ou", "ops", "OPS"),
    ("email", "a@evil.example", "A@evil.example"),
    ("email", "a@evil.example", "a@evil.example."),
    ("email", "a@evil.example", '"a"@evil.example'),
    ("email", "a@evil.example", '"\\a"@evil.example'),
    ("email", "a@evil.example", "a@evil.example "),
    ("email", "a@evil.example", "a@ evil.example"),
    ("uri", "spiffe://t/admin", "spiffe://t/admin "),
    ("uri", "spiffe://t/admin", " spiffe://t/admin"),
    ("uri", "spiffe://t/admin", "spiffe://t/admin%20"),
    ("uri", "spiffe://t/admin", "spiffe://t/ admin"),
    ("uri", "spiffe://t/admin", "spiffe://t /admin"),
    ("uri", "spiffe://t/admin", "spiffe://t:443 /admin"),
    ("uri", "spiffe://t/admin/*", "spiffe://t/x/.. /admin%20/y"),
    ("uri", "urn:uuid:a", "urn:uuid:a%20"),
    ("uri", "spiffe://t/admin/*", "spiffe://t/%61dmin/x"),
    ("uri", "spiffe://t/admin/*", "spiffe://t/%61dmin/%78"),
    ("uri", "spiffe://t/admin/*", "spiffe://t/x/../admin/y"),
    ("uri", "spiffe://t/admin/*", "spiffe://t/x/%2e%2E/admin/y"),
    ("uri", "spiffe://t/admin/*", "spiffe://t/../../admin/y"),
    ("uri", "spiffe://t/admin/*", "spiffe://t/./admin/y"),
    ("uri", "spiffe://t/admin/*", "spiffe://t//admin/y"),
    ("uri", "spiffe://t/admin/*", "spiffe://t/admin%2Fy"),
    ("uri", "spiffe://t/admin/*", "spiffe://T./admin/y"),
    ("uri", "spiffe://t/admin/*", "spiffe://u@t/admin/y"),
    ("uri", "spiffe://t/admin/*", "spiffe://t:443/admin/y"),
    ("uri", "spiffe://t/admin/*", "spiffe://%74/admin/y"),
    ("uri", "spiffe://t/admin/*", "spiffe://t\\admin\\y"),
    ("uri", "spiffe://t/admin/*", "spiffe://t/admin/y?z"),
    ("uri", "spiffe://t/admin/*", "spiffe://t/admin/y#z"),
    ("uri", "spiffe://t/*/secret", "spiffe://t/a%2Fb/%73ecret"),
    ("uri", "spiffe://t/a/**", "spiffe://t/%41/b/c"),
    ("uri", "spiffe://t/admin", "spiffe://t/admin/"),
    ("uri", "https://h.example/a", "https://H.example:443/a"),
    ("uri", "https://h.example/a", "https://h.example/%41?q=1"),
    ("uri", "https://h.example", "https://h.example/"),
    ("uri", "https://h.example/a%2fb", "https://h.example/a/b"),
    ("uri", "https://xn--bcher-kva.example/", "https://b%C3%BCcher.example/"),
    ("uri", "urn:uuid:a", "URN:uuid:%61"),
]

APART = [
    ("ip", "10.6.6.0/24", "::ffff:10.6.7.6"),
    ("ip", "10.6.6.0/24", "::10.6.6.6"),
    ("ip", "::1", "0.0.0.1"),
    ("ip", "2001:db8::/32", "10.6.6.6"),
    ("dns", "evil.example", "*.evil.example"),
    ("dns", "evil.example", "d*.example"),
    ("dns", "evil.example", "evilexample"),
    ("dns", "*.example", "example"),
    ("dns", "*.example", ".example"),
    ("dns", "*.example", "*.b.example"),
    ("dns", "e.example", "ee*.example"),
    ("dns", "xn--bcher-kva.example", "bucher.example"),
    ("cn", "evil", "ev il"),
    ("cn", "evil", "еvil"),
    ("email", "a@evil.example", "ab@evil.example"),
    ("email", "a@evil.example", "a@x.evil.example"),
    ("uri", "spiffe://t/admin/*", "spiffe://t/admin"),
    ("uri", "spiffe://t/admin/*", "spiffe://t/%2561dmin/x"),
    ("uri", "spiffe://t/admin/*", "spiffe://t/admins/x"),
    ("uri", "spiffe://t/admin/*", "spiffe://t/x/admin/y"),
    ("uri", "spiffe://t/admin/*", "spiffe://t/admin/y/../../z/y"),
    ("uri", "spiffe://t/admin/*", "spiffe://x/admin/y"),
    ("uri", "https://h.example/a?b", "https://h.example/a?c"),
    ("uri", "https://h.example/a?b", "https://h.example/a"),
    ("uri", "https://h.example/%2a", "https://h.example/a"),
    ("uri", "https://h.example:444/", "https://h.example/"),
]


@pytest.mark.parametrize(("field", "rule", "name"), ALIKE)
def test_another_spelling_is_denied_and_not_allowed(field: str, rule: str, name: str) -> None:
    one, identity = Rule(**{field: rule}), named(field, name)
    assert denies(one, identity)
    assert not allows(one, identity)


@pytest.mark.parametrize(("field", "rule", "name"), APART)
def test_another_name_is_not_denied(field: str, rule: str, name: str) -> None:
    assert not denies(Rule(**{field: rule}), named(field, name))


def encoded(text: str, chosen: list[bool]) -> str:
    """Some characters of a text percent-encoded, in capitals or not."""
    return (
        "".join(
            f"%{ord(char):02x}" if is_chosen and char.isalnum() else char
            for char, is_chosen in zip(text, chosen, strict=False)
        )
        + text[len(chosen) :]
    )


def cased(text: str, chosen: list[bool]) -> str:
    return (
        "".join(char.upper() if is_chosen else char for char, is_chosen in zip(text, chosen, strict=False))
        + text[len(chosen) :]
    )


choices = st.lists(st.booleans(), max_size=60)
segments = st.lists(st.sampled_from(["admin", "a", "b-c", "d.e", "%2f", "x"]), min_size=1, max_size=4)


@given(segments, choices, choices, st.lists(st.sampled_from(["/.", "/", "/q/..", "/%2e"]), max_size=4), st.booleans())
def test_a_uri_is_denied_however_it_is_spelt(
    path: list[str], encode: list[bool], case: list[bool], between: list[str], has_dot: bool
) -> None:
    uri = "https://t.example/" + "/".join(path)
    steps = [*between, *[""] * len(path)]
    respelt_path = [segment if "%" in segment else encoded(segment, encode) for segment in path]
    spelt = "".join(f"{step}/{segment}" for step, segment in zip(steps, respelt_path, strict=False))
    respelt = cased(f"https://{encoded('t.example', encode[::-1])}{'.' if has_dot else ''}{spelt}", case)
    assert denies(Rule(uri=uri), named("uri", respelt))
    assert denies(Rule(uri="https://t.example/**"), named("uri", respelt))
    assert not allows(Rule(uri=uri), named("uri", respelt)) or respelt == uri


@given(st.lists(st.sampled_from(["evil", "a", "xn--bcher-kva", "b-c"]), min_size=2, max_size=4), choices, st.booleans())
def test_a_dns_name_is_denied_however_it_is_spelt(labels: list[str], case: list[bool], has_dot: bool) -> None:
    name = ".".join(labels)
    decoded = name.encode().decode("idna")
    for other in (cased(name, case), cased(decoded, case), f"*.{'.'.join(labels[1:])}"):
        spelt = f"{other}{'.' if has_dot else ''}"
        assert denies(Rule(dns=name), named("dns", spelt))
        assert not allows(Rule(dns=name), named("dns", spelt)) or spelt == name


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_an_address_is_denied_as_ipv4_and_within_ipv6(address: IPv4Address, prefix: int) -> None:
    within = IPv6Address(f"::ffff:{address}")
    network = f"{IPv4Address(int(address) >> (32 - prefix) << (32 - prefix))}/{prefix}"
    for rule in (Rule(ip=network), Rule(ip=str(address)), Rule(ip=str(within))):
        for one in (address, within):
            assert denies(rule, an_identity(ip_addresses=(one,)))


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_name_has_an_answer(host: str, path: str) -> None:
    for field, rule in (("uri", "spiffe://t/**/a/*"), ("dns", "*.example"), ("cn", "evil"), ("email", "a@b.example")):
        for name in (host, f"spiffe://{host}/{path}", f"xn--{host}.example", f"{host}@{path}"):
            denies(Rule(**{field: rule}), named(field, name))


@pytest.mark.parametrize("piece", ["%2e%2e/", "../", "%41", "xn--a.", "a/", "\\", ":", "@", "ﬃ", "*"])
def test_a_long_name_is_decided_in_a_time_linear_in_it(piece: str) -> None:
    """What takes the square of this would not end before the test suite does."""
    name = piece * 30_000
    for field, rule in (("uri", "spiffe://t/**/a/*"), ("dns", "*.example"), ("cn", "evil"), ("email", "a@b.example")):
        for text in (name, f"spiffe://{name}", f"spiffe://t/{name}", f"xn--{name}"):
            denies(Rule(**{field: rule}), named(field, text))
