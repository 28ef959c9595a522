"""Whatever is in a certificate, it gives an identity that is safe to compare and to show, or one typed error."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import strategies as st

from tests.support.fuzzing import fuzz
from tests.support.hostile_certificates import CN, DNS, EMAIL, OU, URI, certificate, der, general
from tlstunnel.access.peer import MAX_TEXT, Identity, UnusableCertificateError, identity, printable
from tlstunnel.access.policy import Policy, Rule, decide

pytestmark = pytest.mark.slow

ORDINARY = certificate(
    (CN, "billing"), (OU, "finance"), names=general(DNS, b"a.example") + general(URI, b"spiffe://example.org/a")
)
POLICY = Policy(
    allow=(Rule(cn="billing"), Rule(uri="spiffe://example.org/**"), Rule(dns="*.example")), deny=(Rule(ou="ops"),)
)


def check(encoded: bytes) -> Identity | None:
    try:
        found = identity(encoded)
    except UnusableCertificateError:
        return None
    for text in (str(found), repr(found), found.subject, found.issuer):
        assert text.isascii()
        assert text.isprintable()
    assert len(str(found)) < 12 * MAX_TEXT
    names = (*found.common_names, *found.organizational_units, *found.dns_names, *found.uris, *found.emails)
    assert all(name.isprintable() for name in names)
    assert decide(POLICY, found).rule
    return found


@fuzz(st.lists(st.tuples(st.integers(0, len(ORDINARY) - 1), st.integers(0, 255)), min_size=1, max_size=4), examples=400)
def test_a_certificate_with_changed_bytes_is_answered(changes: list[tuple[int, int]]) -> None:
    changed = bytearray(ORDINARY)
    for at, value in changes:
        changed[at] = value
    check(bytes(changed))


@fuzz(st.binary(max_size=100))
def test_any_bytes_are_answered(data: bytes) -> None:
    assert check(data) is None


@fuzz(st.integers(0, len(ORDINARY)))
def test_a_certificate_cut_short_is_refused(end: int) -> None:
    found = check(ORDINARY[:end])
    assert (found is not None) == (end == len(ORDINARY))


@fuzz(st.lists(st.tuples(st.integers(0, 15), st.binary(max_size=20)), max_size=6))
def test_any_alternative_names_are_answered(names: list[tuple[int, bytes]]) -> None:
    check(certificate((CN, "billing"), names=b"".join(general(tag, content) for tag, content in names)))


@fuzz(st.text(min_size=1, max_size=64), st.text(min_size=1, max_size=64))
def test_any_common_name_is_kept_exactly_or_refused(common_name: str, unit: str) -> None:
    with suppress(ValueError):  # lone surrogates cannot be encoded
        found = check(certificate((CN, common_name), (OU, unit)))
        is_usable = common_name.isprintable() and unit.isprintable()
        assert (found is not None) == is_usable
        if found is not None:
            assert (found.common_names, found.organizational_units) == ((common_name,), (unit,))


@fuzz(st.sampled_from([DNS, URI, EMAIL]), st.binary(min_size=1, max_size=40))
def test_an_alternative_name_is_printable_ascii_or_refused(tag: int, content: bytes) -> None:
    found = check(certificate(names=general(tag, content)))
    is_usable = all(0x20 <= byte <= 0x7E for byte in content)
    assert (found is not None) == is_usable


@fuzz(st.text(max_size=300))
def test_a_strangers_text_is_one_word_or_one_quoted_string(text: str) -> None:
    shown = printable(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 10 * MAX_TEXT + 5
    word = shown.removesuffix("...") if len(text) > MAX_TEXT else shown
    if not word.startswith('"'):
        assert " " not in word
        assert '"' not in word
        assert text.startswith(word)
    else:
        inside = word[1:-1].replace("\\\\", "").replace('\\"', "")
        assert word.endswith('"')
        assert '"' not in inside


def test_the_helper_writes_der() -> None:
    assert der(0x04, bytes(300))[:4] == b"\x04\x82\x01\x2c"
