"""Whatever precedes a connection, the PROXY protocol reader answers with one of three things, within its bounds."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import strategies as st

from tests.support.fuzzing import fuzz
from tlstunnel.proxy_protocol import (
    MAX_HEADER,
    MAX_V1,
    Endpoint,
    Header,
    ProxyProtocolError,
    SSLInfo,
    TLVs,
    UnixEndpoint,
    encode_v1,
    encode_v2,
    parse,
)

pytestmark = pytest.mark.slow

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

ports = st.integers(0, 65535)
# A mapped IPv4 address is written as the IPv4 address it is, so it does not come back as it was.
v6 = st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None)
v4_endpoints = st.builds(lambda host, port: Endpoint(str(host), port), st.ip_addresses(v=4), ports)
v6_endpoints = st.builds(lambda host, port: Endpoint(str(host), port), v6, ports)
unix_endpoints = st.builds(UnixEndpoint, st.binary(max_size=108).map(lambda path: path.partition(b"\0")[0]))
ends = st.one_of(
    st.tuples(v4_endpoints, v4_endpoints),
    st.tuples(v6_endpoints, v6_endpoints),
    st.tuples(unix_endpoints, unix_endpoints),
)
texts = st.none() | st.text(st.characters(codec="utf-8"), max_size=40)
tlv_values = st.builds(
    TLVs,
    alpn=st.none() | st.binary(max_size=20),
    authority=texts,
    unique_id=st.none() | st.binary(max_size=128),
    ssl=st.none()
    | st.builds(
        SSLInfo,
        uses_tls=st.booleans(),
        has_certificate=st.booleans(),
        has_session_certificate=st.booleans(),
        verify=st.integers(0, 0xFFFFFFFF),
        version=texts,
        cn=texts,
        cipher=texts,
        signature_algorithm=texts,
        key_algorithm=texts,
    ),
    netns=texts,
    others=st.lists(st.tuples(st.integers(0xE0, 0xF7), st.binary(max_size=20)), max_size=4).map(tuple),
)


def outcome(data: bytes) -> Header | str | None:
    """The header, None, or the refusal's text; any other exception is a failure of the test."""
    try:
        header = parse(data)
    except ProxyProtocolError as exc:
        return str(exc)
    if header is not None:
        assert 0 < header.size <= min(len(data), MAX_HEADER)
        assert (header.source is None) == (header.destination is None)
    return header


def same_host(one: Endpoint, other: Endpoint) -> bool:
    kind = IPv6Address if ":" in one.host else IPv4Address
    return (kind(one.host), one.port) == (kind(other.host), other.port)


@fuzz(st.binary(max_size=100))
def test_any_bytes_are_answered(data: bytes) -> None:
    outcome(data)


@fuzz(st.binary(max_size=120))
def test_any_line_is_answered(rest: bytes) -> None:
    outcome(b"PROXY " + rest)
    assert outcome((b"PROXY " + rest).ljust(MAX_V1, b"x")) is not None


@fuzz(st.text("PROXYTCP46 0123456789abcf:.\r\n", max_size=110))
def test_any_line_of_the_right_signs_is_answered(rest: str) -> None:
    outcome(b"PROXY TCP" + rest.encode() + b"\r\n")


@fuzz(
    st.sampled_from([0x20, 0x21]), st.sampled_from([0, 0x11, 0x21, 0x31, 0x12]), st.binary(max_size=300), examples=300
)
def test_any_binary_header_is_answered_when_it_is_complete(command: int, kind: int, content: bytes) -> None:
    data = SIGNATURE + bytes([command, kind]) + len(content).to_bytes(2, "big") + content
    assert outcome(data) is not None
    if content:
        # A length is believed at once or refused at once; the rest is waited for.
        assert outcome(data[:16]) is None


@fuzz(st.binary(min_size=4, max_size=4))
def test_no_header_grows_beyond_its_bound(head: bytes) -> None:
    assert outcome((SIGNATURE + head).ljust(MAX_HEADER, b"\0")) is not None


@fuzz(ends, tlv_values, st.booleans())
def test_what_is_written_is_read(ends: tuple, tlvs: TLVs, crc32c: bool) -> None:  # type: ignore[type-arg]
    data = encode_v2(*ends, tlvs, crc32c=crc32c)
    header = parse(data + b"and the connection's own")
    assert header is not None
    assert header.size == len(data)
    assert header.tlvs == tlvs
    for found, given_end in zip((header.source, header.destination), ends, strict=True):
        if isinstance(given_end, Endpoint):
            assert isinstance(found, Endpoint)
            assert same_host(found, given_end)
        else:
            assert found == given_end


@fuzz(st.tuples(v4_endpoints, v4_endpoints) | st.tuples(v6_endpoints, v6_endpoints))
def test_a_line_that_is_written_is_read(ends: tuple[Endpoint, Endpoint]) -> None:
    line = encode_v1(*ends)
    assert len(line) <= MAX_V1
    header = parse(line)
    assert header is not None
    assert isinstance(header.source, Endpoint)
    assert isinstance(header.destination, Endpoint)
    assert same_host(header.source, ends[0])
    assert same_host(header.destination, ends[1])


@fuzz(ends, tlv_values, st.data())
def test_a_header_with_changed_bytes_is_answered(ends: tuple, tlvs: TLVs, data: st.DataObject) -> None:  # type: ignore[type-arg]
    changed = bytearray(encode_v2(*ends, tlvs))
    for _ in range(3):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    outcome(bytes(changed))


@fuzz(ends, tlv_values, st.data())
def test_a_header_cut_anywhere_needs_more(ends: tuple, tlvs: TLVs, data: st.DataObject) -> None:  # type: ignore[type-arg]
    whole = encode_v2(*ends, tlvs)
    assert parse(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None
