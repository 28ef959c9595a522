"""PROXY protocol headers, read and written: addresses, TLVs, bounds, and everything that breaks the protocol."""

from __future__ import annotations

import pytest

from tlstunnel.proxy_protocol import (
    MAX_HEADER,
    MAX_V1,
    Endpoint,
    Header,
    MalformedHeaderError,
    MissingHeaderError,
    ProxyProtocolError,
    SSLInfo,
    TLVs,
    UnixEndpoint,
    checksum,
    encode_v1,
    encode_v2,
    parse,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
CLIENT, SERVER = Endpoint("192.0.2.7", 51514), Endpoint("198.51.100.1", 443)
CLIENT6, SERVER6 = Endpoint("2001:db8::7", 51514), Endpoint("2001:db8::1", 443)
EVERYTHING = TLVs(
    alpn=b"h2",
    authority="api.example.org",
    unique_id=bytes(range(128)),
    ssl=SSLInfo(
        has_certificate=True,
        has_session_certificate=True,
        verify=0,
        version="TLSv1.3",
        cn="Müller",
        cipher="TLS_AES_256_GCM_SHA384",
        signature_algorithm="SHA256",
        key_algorithm="RSA2048",
    ),
    netns="blue",
    others=((0xE0, b"one"), (0xEA, b""), (0xE0, b"two")),
)


def v2(kind: int, content: bytes, command: int = 0x21) -> bytes:
    return SIGNATURE + bytes([command, kind]) + len(content).to_bytes(2, "big") + content


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


ADDRESSES = bytes([192, 0, 2, 7, 198, 51, 100, 1]) + (51514).to_bytes(2, "big") + (443).to_bytes(2, "big")


def with_tlvs(*tlvs: bytes) -> bytes:
    return v2(0x11, ADDRESSES + b"".join(tlvs))


def read(data: bytes) -> Header:
    """Parse a whole header, and see that no beginning of it is taken for one and no following byte is touched."""
    for end in range(len(data)):
        assert parse(data[:end]) is None
    header = parse(data)
    assert header is not None
    assert header.size == len(data)
    assert parse(bytearray(data + b"GET / HTTP/1.1\r\n\r\n")) == header
    assert parse(memoryview(data + SIGNATURE)) == header
    return header


class TestVersion1:
    @pytest.mark.parametrize(
        ("line", "source", "destination"),
        [
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 51514 443\r\n", CLIENT, SERVER),
            (b"PROXY TCP6 2001:db8::7 2001:DB8:0:0::1 51514 443\r\n", CLIENT6, SERVER6),
            (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", ("0.0.0.0", 0), ("255.255.255.255", 65535)),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", ("::ffff:192.0.2.7", 1), ("::1", 2)),
            (b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n",
             ("ffff:" * 7 + "ffff", 65535), ("ffff:" * 7 + "ffff", 65535)),
        ],
    )  # fmt: skip
    def test_addresses_are_read(self, line: bytes, source: object, destination: object) -> None:
        header = read(line)
        assert (header.version, header.is_local) == (1, False)
        assert (header.source, header.destination) == (source, destination)
        assert header.tlvs == TLVs()

    @pytest.mark.parametrize(
        "line",
        [
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN \r\n",
            b"PROXY UNKNOWN whatever it is\r\n",
            b"PROXY UNKNOWN " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n",
        ],
    )
    def test_unknown_says_nothing(self, line: bytes) -> None:
        header = read(line)
        assert (header.source, header.destination, header.is_local) == (None, None, False)

    @pytest.mark.parametrize(
        "line",
        [
            b"PROXY \r\n",
            b"PROXY TCP5 192.0.2.7 198.51.100.1 1 2\r\n",
            b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
            b"PROXY UNKNOWNS\r\n",
            b"PROXY tcp4 192.0.2.7 198.51.100.1 1 2\r\n",
            b"PROXY  TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7  198.51.100.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2 \r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 2\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 \xd9\xa1 2\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1 123456\r\n",
        ],
    )
    def test_a_line_of_another_form_is_refused(self, line: bytes) -> None:
        with pytest.raises(MalformedHeaderError) as caught:
            parse(line)
        assert str(caught.value) == "PROXY line is not TCP4, TCP6 or UNKNOWN with two addresses and two ports"

    @pytest.mark.parametrize(
        ("line", "family"),
        [
            (b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n", "TCP4"),
            (b"PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n", "TCP4"),
            (b"PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n", "TCP4"),
            (b"PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n", "TCP4"),
            (b"PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n", "TCP6"),
            (b"PROXY TCP6 2001:db8:::7 ::1 1 2\r\n", "TCP6"),
            (b"PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n", "TCP6"),
        ],
    )
    def test_an_address_of_another_family_is_refused(self, line: bytes, family: str) -> None:
        with pytest.raises(MalformedHeaderError) as caught:
            parse(line)
        assert str(caught.value) == f"PROXY line has an address that is not one of {family}"

    def test_a_port_that_is_none_is_refused(self) -> None:
        with pytest.raises(MalformedHeaderError, match="PROXY line has a port above 65535"):
            parse(b"PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n")

    @pytest.mark.parametrize("end", [b"\n", b"\r\r", b"\rx"])
    def test_a_line_ends_with_both_signs(self, end: bytes) -> None:
        with pytest.raises(MalformedHeaderError, match="does not end with CR and LF"):
            parse(b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2" + end)

    def test_a_line_without_end_is_refused_at_its_bound(self) -> None:
        line = b"PROXY UNKNOWN " + b"x" * MAX_V1
        assert parse(line[: MAX_V1 - 1]) is None
        for late in (line[:MAX_V1], line + b"\r\n", line[: MAX_V1 - 1] + b"\r\n"):
            with pytest.raises(MalformedHeaderError, match="does not end within 107 bytes"):
                parse(late)


class TestVersion2:
    @pytest.mark.parametrize(
        ("source", "destination"),
        [
            (CLIENT, SERVER),
            (CLIENT6, SERVER6),
            (UnixEndpoint(b"/run/client"), UnixEndpoint(b"/run/server")),
            (UnixEndpoint(b""), UnixEndpoint(b"x" * 108)),
            (UnixEndpoint(b"\0abstract"), UnixEndpoint(b"/run/server")),
        ],
    )
    @pytest.mark.parametrize("crc32c", [False, True])
    @pytest.mark.parametrize("tlvs", [TLVs(), EVERYTHING, TLVs(alpn=b"", authority="", ssl=SSLInfo(uses_tls=False))])
    def test_what_is_written_is_read(self, source: object, destination: object, crc32c: bool, tlvs: TLVs) -> None:
        header = read(encode_v2(source, destination, tlvs, crc32c=crc32c))  # type: ignore[arg-type]
        assert (header.version, header.is_local) == (2, False)
        assert (header.source, header.destination) == (source, destination)
        assert header.tlvs == tlvs

    def test_the_bytes_are_those_of_the_specification(self) -> None:
        assert encode_v2(CLIENT, SERVER) == v2(0x11, ADDRESSES)
        assert encode_v2(CLIENT6, SERVER6)[13:16] == b"\x21\0\x24"
        assert encode_v2(UnixEndpoint(b"a"), UnixEndpoint(b"b"))[13:17] == b"\x31\0\xd8a"
        assert encode_v2(None, None) == SIGNATURE + b"\x20\0\0\0"
        ssl = SSLInfo(has_certificate=True, verify=0, version="TLSv1.3", cn="a")
        assert encode_v2(CLIENT, SERVER, TLVs(ssl=ssl))[28:] == (
            tlv(0x20, b"\x03\0\0\0\0" + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"a"))
        )

    def test_local_counts_for_nothing_whatever_it_holds(self) -> None:
        for data in (encode_v2(None, None), v2(0x11, ADDRESSES + b"junk", command=0x20), v2(0, b"junk", command=0x20)):
            header = read(data)
            assert header.is_local
            assert (header.source, header.destination, header.tlvs) == (None, None, TLVs())

    @pytest.mark.parametrize(
        ("kind", "addresses"),
        [(0x00, 0), (0x01, 0), (0x10, 0), (0x12, 12), (0x22, 36), (0x32, 216), (0x30, 0), (0x02, 0)],
    )
    def test_a_connection_that_cannot_be_described_has_no_addresses_but_tlvs(self, kind: int, addresses: int) -> None:
        header = read(v2(kind, bytes(addresses) + tlv(0x02, b"a.example")))
        assert (header.source, header.destination) == (None, None)
        assert header.tlvs.authority == "a.example"

    def test_noops_are_skipped_and_unknown_types_kept(self) -> None:
        header = read(with_tlvs(tlv(0x04, b"padding"), tlv(0xE1, b"x"), tlv(0x04, b""), tlv(0x21, b"not ssl")))
        assert header.tlvs == TLVs(others=((0xE1, b"x"), (0x21, b"not ssl")))

    def test_unknown_parts_of_the_ssl_tlv_are_skipped(self) -> None:
        header = read(with_tlvs(tlv(0x20, b"\x01\0\0\0\x12" + tlv(0x28, b"certificate") + tlv(0x21, b"TLSv1.2"))))
        assert header.tlvs.ssl == SSLInfo(verify=0x12, version="TLSv1.2")

    @pytest.mark.parametrize(
        ("data", "problem"),
        [
            (v2(0x11, ADDRESSES, command=0x11), "version and command are 0x11, neither LOCAL nor PROXY"),
            (v2(0x11, ADDRESSES, command=0x22), "version and command are 0x22, neither LOCAL nor PROXY"),
            (v2(0x41, ADDRESSES), "family and protocol are 0x41, which nobody may send"),
            (v2(0x13, ADDRESSES), "family and protocol are 0x13, which nobody may send"),
            (v2(0x11, ADDRESSES[:-1]), "header is too short for its addresses"),
            (v2(0x21, ADDRESSES), "header is too short for its addresses"),
            (v2(0x31, bytes(215)), "header is too short for its addresses"),
            (v2(0x12, b""), "header is too short for its addresses"),
            (with_tlvs(b"\x01"), "a TLV is cut short"),
            (with_tlvs(b"\x01\0"), "a TLV is cut short"),
            (with_tlvs(b"\x01\0\x01"), "TLV 0x01 is longer than what holds it"),
            (with_tlvs(tlv(0x01, b"h2"), b"\x02\xff\xff"), "TLV 0x02 is longer than what holds it"),
            (with_tlvs(tlv(0x02, b"a"), tlv(0x02, b"b")), "TLV 0x02 comes twice"),
            (with_tlvs(tlv(0x02, b"\xff")), "TLV 0x02 is not UTF-8"),
            (with_tlvs(tlv(0x30, b"\xc3")), "TLV 0x30 is not UTF-8"),
            (with_tlvs(tlv(0x05, bytes(129))), "unique id is longer than 128 bytes"),
            (with_tlvs(tlv(0x03, bytes(3))), "CRC32c TLV is not 4 bytes long"),
            (with_tlvs(tlv(0x03, bytes(4))), "CRC32c of the header is wrong"),
            (with_tlvs(tlv(0x20, bytes(4))), "SSL TLV is too short"),
            (with_tlvs(tlv(0x20, bytes(5) + b"\x21")), "a TLV is cut short"),
            (with_tlvs(tlv(0x20, bytes(5) + tlv(0x22, b"\xff"))), "TLV 0x22 is not UTF-8"),
        ],
    )
    def test_what_breaks_the_protocol_is_refused(self, data: bytes, problem: str) -> None:
        with pytest.raises(MalformedHeaderError) as caught:
            parse(data)
        assert str(caught.value) == problem

    def test_a_header_is_bounded_before_it_is_buffered(self) -> None:
        largest = v2(0, tlv(0xE0, bytes(MAX_HEADER - 19)))
        assert len(largest) == MAX_HEADER
        assert parse(largest) is not None
        too_large = SIGNATURE + b"\x21\0" + (MAX_HEADER - 15).to_bytes(2, "big")
        with pytest.raises(MalformedHeaderError, match="header is longer than 16400 bytes"):
            parse(too_large)

    def test_any_changed_bit_breaks_the_checksum(self) -> None:
        whole = encode_v2(CLIENT, SERVER, TLVs(authority="a.example"), crc32c=True)
        crc_at = len(whole) - 4
        for at in [*range(16, 28), *range(31, 40), *range(crc_at, len(whole))]:
            broken = bytearray(whole)
            broken[at] ^= 1
            with pytest.raises(MalformedHeaderError, match="CRC32c of the header is wrong"):
                parse(broken)

    def test_the_checksum_is_castagnolis(self) -> None:
        """The check value every catalogue of CRCs gives, and the zeroes and ones of RFC 3720 appendix B.4."""
        assert checksum(b"123456789") == 0xE3069283
        assert checksum(bytes(32)) == 0x8A9136AA
        assert checksum(b"\xff" * 32) == 0x62A8AB43
        assert checksum(bytes(range(32))) == 0x46DD794E
        assert checksum(b"") == 0


class TestWriting:
    def test_version_1_is_a_line(self) -> None:
        assert encode_v1(CLIENT, SERVER) == b"PROXY TCP4 192.0.2.7 198.51.100.1 51514 443\r\n"
        assert encode_v1(CLIENT6, SERVER6) == b"PROXY TCP6 2001:db8::7 2001:db8::1 51514 443\r\n"
        for source, destination in ((None, None), (CLIENT, None), (UnixEndpoint(b"/run/a"), UnixEndpoint(b"/run/b"))):
            assert encode_v1(source, destination) == b"PROXY UNKNOWN\r\n"

    def test_families_that_differ_meet_in_ipv6(self) -> None:
        line = encode_v1(CLIENT, SERVER6)
        assert line == b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 51514 443\r\n"
        assert read(encode_v2(CLIENT6, SERVER)).destination == ("::ffff:198.51.100.1", 443)

    def test_an_ipv4_client_of_a_dual_stack_listener_is_one_of_ipv4(self) -> None:
        source, destination = Endpoint("::ffff:192.0.2.7", 51514), Endpoint("::FFFF:198.51.100.1", 443)
        assert encode_v1(source, destination) == encode_v1(CLIENT, SERVER)
        assert encode_v2(source, destination) == encode_v2(CLIENT, SERVER)

    def test_a_zone_stays_at_home(self) -> None:
        header = read(encode_v1(Endpoint("fe80::1%eth0", 1), Endpoint("fe80::2%eth0", 2)))
        assert header.source == ("fe80::1", 1)

    @pytest.mark.parametrize(
        ("source", "destination"), [(None, None), (CLIENT, UnixEndpoint(b"/run/a")), (CLIENT, None), (None, SERVER)]
    )
    def test_ends_that_cannot_be_told_make_a_local_header(self, source: Endpoint, destination: Endpoint) -> None:
        """Whatever else is in it, a receiver has to discard it, and we do."""
        header = read(encode_v2(source, destination, EVERYTHING, crc32c=True))
        assert (header.is_local, header.source, header.tlvs) == (True, None, TLVs())

    @pytest.mark.parametrize("encode", [encode_v1, encode_v2])
    @pytest.mark.parametrize(
        ("source", "problem"),
        [
            (Endpoint("localhost", 1), '"localhost" is not an IP address'),
            (Endpoint("192.0.2.7\r\n", 1), "is not an IP address"),
            (Endpoint("::g", 1), '"::g" is not an IP address'),
            (Endpoint("192.0.2.7", 65536), "a port is not between 0 and 65535"),
            (Endpoint("192.0.2.7", -1), "a port is not between 0 and 65535"),
        ],
    )
    def test_what_is_no_address_is_not_written(self, encode: object, source: Endpoint, problem: str) -> None:
        with pytest.raises(ValueError, match=problem):
            encode(source, SERVER)  # type: ignore[operator]

    @pytest.mark.parametrize(
        ("source", "tlvs", "problem"),
        [
            (UnixEndpoint(b"x" * 109), TLVs(), "a unix socket's path is longer than 108 bytes"),
            (UnixEndpoint(b""), TLVs(unique_id=bytes(129)), "unique id is longer than 128 bytes"),
            (UnixEndpoint(b""), TLVs(authority="x" * 65536), "TLV 0x02 is longer than 65535 bytes"),
            (UnixEndpoint(b""), TLVs(authority="x" * 20_000), "PROXY protocol header is longer than 16400 bytes"),
        ],
    )
    def test_what_does_not_fit_is_not_written(self, source: UnixEndpoint, tlvs: TLVs, problem: str) -> None:
        with pytest.raises(ValueError, match=problem):
            encode_v2(source, source, tlvs)


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\0",
        b"PROXYTCP4",
        b"PROXY\r",
        b"\r\n\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\r",
        b"p",
    ],
)
def test_what_is_no_header_is_missing_one(start: bytes) -> None:
    with pytest.raises(MissingHeaderError) as caught:
        parse(start)
    assert str(caught.value) == "no PROXY protocol header; the sender has to be told to send one"
    assert isinstance(caught.value, ProxyProtocolError)


def test_nothing_yet_needs_more() -> None:
    assert parse(b"") is None

    def test_without_addresses_it_is_local_and_keeps_what_is_known_of_tls(self) -> None:
        """As HAProxy 2.6 writes it for a client on a unix socket."""
        bare = encode_v2(None, None)
        assert bare[12:] == b"\x20\0\0\0"
        told = encode_v2(None, None, TLVs(authority="localhost", ssl=SSLInfo(version="TLSv1.3")))
        assert told[12:] == bytes.fromhex("200000210200096c6f63616c686f737420000f0100000001210007544c5376312e33")
        whole = encode_v2(None, None, TLVs(authority="localhost"), crc32c=True)
        assert int.from_bytes(whole[-4:], "big") == checksum(whole[:-4] + bytes(4))
        for header in (bare, told, whole):
            found = parse(header)
            assert found is not None
            assert (found.is_local, found.size) == (True, len(header))
