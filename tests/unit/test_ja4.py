"""JA4: the values others publish for the same bytes, and the specification's corner cases."""

from __future__ import annotations

import pytest

from tests.support import hellos
from tlstunnel.tls import ja4
from tlstunnel.tls.clienthello import ClientHello, HelloError, parse


def read(*extensions: bytes, **parts: object) -> ClientHello:
    found = parse(hellos.hello(*extensions, **parts))
    assert found is not None
    return found


@pytest.mark.parametrize("name", sorted(hellos.RECORDED))
def test_a_recorded_hello_has_the_fingerprint_others_computed(name: str) -> None:
    found = parse(hellos.recorded(name))
    assert found is not None
    assert ja4.fingerprint(found) == hellos.RECORDED[name]["ja4"]


def test_the_specifications_own_example_comes_out() -> None:
    """The lists of section "Cipher hash" and "Extension hash", and the fingerprint of section "Example"."""
    suites = "1301 1302 1303 c02b c02f c02c c030 cca9 cca8 c013 c014 009c 009d 002f 0035"
    kinds = [0x001B, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002D, 0x000D]
    kinds += [0x0005, 0x0023, 0x0012, 0x002B, 0xFF01, 0x000B, 0x000A, 0x0015]
    given = {
        0x0000: hellos.server_name(b"a.example"),
        0x0010: hellos.alpn(b"h2", b"http/1.1"),
        0x000D: hellos.words(13, 0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601),
        0x002B: hellos.versions(0x0A0A, 0x0304, 0x0303),
    }
    grease = hellos.extension(0x2A2A, b"")
    hello = read(
        grease,
        *(given.get(kind, hellos.extension(kind, b"")) for kind in kinds),
        suites=bytes.fromhex("dada" + suites),
    )
    assert ja4.fingerprint(hello) == "t13d1516h2_8daaf6152771_e5627efa2ab1"
    assert ja4.raw(hello) == (
        "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_"
        "0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01_"
        "0403,0804,0401,0503,0805,0501,0806,0601"
    )


def test_without_signature_algorithms_the_extensions_are_hashed_alone() -> None:
    """The specification gives the hash of this list without them."""
    kinds = [0x0005, 0x000A, 0x000B, 0x000D, 0x0012, 0x0015, 0x0017, 0x001B, 0x0023, 0x002D, 0x0033, 0x4469, 0xFF01]
    empty = [hellos.extension(kind, b"") for kind in kinds if kind != 0x000D]
    only_grease = hellos.words(13, 0x0A0A)
    hello = read(*empty, only_grease, hellos.versions(0x0304))
    assert ja4.fingerprint(hello).endswith("_6d807ffa2a79")


def test_what_is_not_there_is_zeroes() -> None:
    hello = read(suites=b"\x0a\x0a")
    assert ja4.fingerprint(hello) == "t12i000000_000000000000_000000000000"
    assert ja4.raw(hello) == "t12i000000"


def test_a_hello_with_only_a_name_and_a_protocol_has_no_lasting_extensions() -> None:
    hello = read(hellos.server_name(b"a.example"), hellos.alpn(b"h2"), hellos.words(13, 0x0403))
    assert ja4.fingerprint(hello).startswith("t12d0203h2_")
    bare = read(hellos.server_name(b"a.example"), hellos.alpn(b"h2"))
    assert ja4.fingerprint(bare).endswith("_000000000000")


@pytest.mark.parametrize(
    ("version", "shown"), [(0x0303, "12"), (0x0302, "11"), (0x0301, "10"), (0x0300, "s3"), (0x0305, "00")]
)
def test_the_version_is_the_legacy_one_without_the_extension(version: int, shown: str) -> None:
    assert ja4.fingerprint(read(version=version))[1:3] == shown


def test_the_version_is_the_highest_offered() -> None:
    assert ja4.fingerprint(read(hellos.versions(0x0303, 0x0304, 0x0302)))[1:3] == "13"
    assert ja4.fingerprint(read(hellos.versions(0x0A0A)))[1:3] == "00"


@pytest.mark.parametrize(
    ("first", "shown"),
    [
        (b"h2", "h2"),
        (b"http/1.1", "h1"),
        (b"h", "hh"),
        (b"\xab", "ab"),
        (b"\xab\xcd", "ad"),
        (b"\x30\xab", "3b"),
        (b"\x30\x31\xab\xcd", "3d"),
        (b"\x30\xab\xcd\x31", "01"),
    ],
)
def test_the_protocol_is_shown_by_its_ends(first: bytes, shown: str) -> None:
    assert ja4.fingerprint(read(hellos.alpn(first, b"other")))[8:10] == shown


def test_counts_stop_at_99() -> None:
    suites = b"".join(value.to_bytes(2, "big") for value in range(1, 201))
    extensions = [hellos.extension(kind, b"") for kind in range(100, 250)]
    assert ja4.fingerprint(read(*extensions, suites=suites))[4:8] == "9999"


def test_shuffled_lists_give_the_same_fingerprint() -> None:
    one = [hellos.extension(kind, b"") for kind in (5, 23, 35)]
    assert ja4.fingerprint(read(*one, suites=b"\x13\x01\x13\x02")) == (
        ja4.fingerprint(read(*reversed(one), suites=b"\x13\x02\x13\x01"))
    )


def test_a_malformed_list_is_an_error_and_no_fingerprint() -> None:
    with pytest.raises(HelloError):
        ja4.fingerprint(read(hellos.extension(43, b"")))
