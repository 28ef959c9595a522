"""Whatever a client sends first, the ClientHello reader answers with one of three things, within its bounds."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import strategies as st

from tests.support import hellos
from tests.support.fuzzing import fuzz
from tlstunnel.tls import ja4
from tlstunnel.tls.clienthello import ClientHello, parse
from tlstunnel.tls.firstbytes import HelloError

pytestmark = pytest.mark.slow

WHOLE = [hellos.recorded(name) for name in sorted(hellos.RECORDED)]
LISTS = ("versions", "cipher_suites", "groups", "signature_algorithms", "extensions", "session_id")

names = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]([a-z0-9-]{0,20}[a-z0-9])?){0,5}", fullmatch=True)
protocols = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5)
code_points = st.lists(st.integers(0, 0xFFFF).filter(lambda v: v & 0x0F0F != 0x0A0A), min_size=1, max_size=40)


def outcome(data: bytes) -> ClientHello | str | None:
    """The hello, None, or the refusal's text; any other exception is a failure of the test."""
    try:
        found = parse(data)
    except HelloError as exc:
        return str(exc)
    if found is not None:
        name = found.server_name
        assert name is None or (name == name.lower() and name.isascii() and name.isprintable() and " " not in name)
        for attribute in LISTS:
            with suppress(HelloError):
                getattr(found, attribute)
        with suppress(HelloError):
            ja4.fingerprint(found)
    return found


@fuzz(st.binary(max_size=200))
def test_any_bytes_are_answered(data: bytes) -> None:
    outcome(data)


@fuzz(st.binary(max_size=300))
def test_any_body_is_answered(body: bytes) -> None:
    assert outcome(hellos.record(hellos.message(body))) is not None


@fuzz(st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=30)), max_size=8))
def test_any_extensions_are_answered(extensions: list[tuple[int, bytes]]) -> None:
    outcome(hellos.hello(*(hellos.extension(kind, content) for kind, content in extensions)))


@fuzz(
    st.sampled_from(WHOLE),
    st.lists(st.tuples(st.integers(0, 1991), st.integers(0, 255)), min_size=1, max_size=4),
    examples=300,
)
def test_a_recorded_hello_with_changed_bytes_is_answered(whole: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(whole)
    for at, value in changes:
        changed[at % len(changed)] = value
    outcome(bytes(changed))


@fuzz(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=40), st.integers(0, 400), examples=50)
def test_a_buffer_as_large_as_it_gets_is_never_told_to_grow(major: int, size: int, start: bytes, repeat: int) -> None:
    endless = (start or b"\x16\x03\x01\0\x01\x01") * (repeat + 1)
    for data in (
        bytes([22, 3, major, 0x40, 0]) + bytes([1, 0, 0xFF, size]) + bytes(hellos.MAX_BUFFER),
        hellos.record(b"\x01") * hellos.MAX_BUFFER,
        (endless * (hellos.MAX_BUFFER // len(endless) + 1)),
    ):
        assert outcome(data[: hellos.MAX_BUFFER]) is not None


@fuzz(st.sampled_from(WHOLE), st.lists(st.integers(1, 400), min_size=1, max_size=60))
def test_how_a_hello_is_cut_into_records_makes_no_difference(whole: bytes, sizes: list[int]) -> None:
    content, cut, at = whole[5:], b"", 0
    for size in sizes:
        if at < len(content):
            cut += hellos.record(content[at : at + size])
            at += size
    if at < len(content):
        cut += hellos.record(content[at:])
    found, expected = parse(cut), parse(whole)
    assert found is not None
    assert expected is not None
    assert repr(found) == repr(expected)
    assert ja4.raw(found) == ja4.raw(expected)
    assert parse(cut[:-1]) is None


@fuzz(names, protocols, code_points, code_points, st.binary(max_size=32))
def test_what_is_offered_is_read(
    name: str, alpn: list[bytes], suites: list[int], groups: list[int], session_id: bytes
) -> None:
    found = parse(
        hellos.hello(
            hellos.server_name(name.encode()),
            hellos.alpn(*alpn),
            hellos.words(10, *groups),
            hellos.words(13, *suites),
            suites=b"".join(suite.to_bytes(2, "big") for suite in suites),
            session_id=session_id,
        )
    )
    assert found is not None
    assert found.server_name == name
    assert found.alpn == tuple(alpn)
    assert list(found.cipher_suites) == list(found.signature_algorithms) == suites
    assert list(found.groups) == groups
    assert found.session_id == session_id


@fuzz(st.binary(min_size=1, max_size=300))
def test_a_name_is_either_valid_or_explained(name: bytes) -> None:
    found = parse(hellos.hello(hellos.server_name(name)))
    assert found is not None
    assert (found.server_name is None) == bool(found.server_name_problem)
    if found.server_name is not None:
        assert found.server_name.encode() == name.lower().removesuffix(b".")
