"""What a server says in the clear: read right, refused where it breaks the rules, never a crash whatever comes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import strategies as st

from tests.support.fuzzing import fuzz
from tlstunnel.tools.probe import ssl2
from tlstunnel.tools.probe.answer import Answer, AnswerReader
from tlstunnel.tools.probe.hello import SCHEMES, SSL_3_0, TLS_1_0, Offer, encode
from tlstunnel.tools.probe.suites import SCSV_FALLBACK, SCSV_RENEGOTIATION
from tlstunnel.tools.tls13 import extensions as ext
from tlstunnel.tools.tls13.extension_block import Extension, find
from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.messages import HELLO_RETRY_RANDOM, ClientHello, ServerHello
from tlstunnel.tools.tls13.names import TLS_1_2, TLS_1_3, ContentType
from tlstunnel.tools.tls13.names import ExtensionType as Ext
from tlstunnel.tools.tls13.wire import Record, uint, uints, vector

ECDHE_RSA, DHE_RSA, ECDHE_PSK, RSA = 0xC02F, 0x009E, 0xC037, 0x002F
EVERYTHING = Offer(versions=(TLS_1_3, TLS_1_2, 0x0302, TLS_1_0))
CURVE = b"\3" + uint(0x17, 2) + vector(b"\4" + bytes(64), 1)
SIGNATURE = uint(0x0804, 2) + vector(bytes(256), 2)


def message(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + vector(body, 3)


def record(content: bytes, kind: int = ContentType.HANDSHAKE) -> bytes:
    return Record(kind, TLS_1_2, content).encode()


def hello(suite: int = ECDHE_RSA, version: int = TLS_1_2, *extensions: Extension, **fields: int) -> bytes:
    return ServerHello(bytes(32), b"", suite, extensions, min(version, TLS_1_2), **fields).encode()


def flight(*messages: bytes) -> bytes:
    return record(b"".join(messages))


def read(data: bytes, offer: Offer = EVERYTHING, *, chunk: int = 1 << 20) -> AnswerReader:
    reader = AnswerReader(offer)
    for start in range(0, len(data), chunk):
        reader.feed(data[start : start + chunk])
    return reader


CERTIFICATE = message(11, vector(vector(b"first", 3) + vector(b"second", 3), 3))
STATUS = message(22, b"\1" + vector(b"staple", 3))
REQUEST = message(13, vector(b"\1\x40", 1) + uints((0x0403,), 2) + vector(vector(b"name", 2), 2))
DONE = message(14, b"")


@pytest.mark.parametrize("chunk", [1 << 20, 7, 1])
def test_a_whole_flight_of_tls12_is_read_however_it_is_cut(chunk: int) -> None:
    alpn = ext.alpn(("h2",))
    data = flight(hello(ECDHE_RSA, TLS_1_2, alpn), CERTIFICATE, STATUS, message(12, CURVE + SIGNATURE), REQUEST, DONE)
    reader = read(data, chunk=chunk)
    answer = reader.answer
    assert reader.is_complete
    assert (answer.version, answer.suite, answer.alpn) == (TLS_1_2, ECDHE_RSA, "h2")
    assert answer.chain == (b"first", b"second")
    assert answer.staple == b"staple"
    assert answer.key_exchange is not None
    assert (answer.key_exchange.group, answer.key_exchange.scheme) == (0x17, 0x0804)
    assert answer.wish is not None
    assert answer.wish.authorities == (b"name",)
    assert find(answer.extensions, Ext.ALPN) is not None


def test_the_size_of_a_prime_is_read() -> None:
    prime = (1 << 1023) | 1
    body = vector(prime.to_bytes(128), 2) + vector(b"\2", 2) + vector(b"\3", 2) + SIGNATURE
    answer = read(flight(hello(DHE_RSA), CERTIFICATE, message(12, body), DONE)).answer
    assert answer.key_exchange is not None
    assert answer.key_exchange.dh_bits == 1024


def test_before_tls12_nothing_says_how_a_key_exchange_is_signed() -> None:
    suite = 0xC013
    old = flight(hello(suite, TLS_1_0), CERTIFICATE, message(12, CURVE + vector(bytes(36), 2)), DONE)
    answer = read(old).answer
    assert answer.key_exchange is not None
    assert answer.key_exchange.scheme is None
    request = message(13, vector(b"\1", 1) + vector(b"", 2))
    assert read(flight(hello(suite, TLS_1_0), request, DONE)).answer.wish is not None


def test_a_hint_for_a_preshared_key_comes_before_the_curve() -> None:
    answer = read(flight(hello(ECDHE_PSK), message(12, vector(b"hint", 2) + CURVE), DONE)).answer
    assert answer.key_exchange is not None
    assert answer.key_exchange.group == 0x17


def test_a_static_key_exchange_needs_no_message() -> None:
    reader = read(flight(hello(RSA), CERTIFICATE, DONE))
    assert reader.is_complete
    assert reader.answer.key_exchange is None


def test_tls13_ends_with_its_hello_and_names_the_group() -> None:
    version = ext.single(Ext.SUPPORTED_VERSIONS, TLS_1_3)
    share = ext.server_share(ext.KeyShare(0x1D, bytes(32)))
    reader = read(flight(hello(0x1301, TLS_1_3, version, share)))
    assert reader.is_complete
    assert (reader.answer.version, reader.answer.group) == (TLS_1_3, 0x1D)
    retry = ServerHello(HELLO_RETRY_RANDOM, b"", 0x1301, (version, ext.single(Ext.KEY_SHARE, 0x11EC))).encode()
    assert read(flight(retry)).answer.group == 0x11EC


def test_a_fatal_alert_is_the_answer_and_a_warning_is_not() -> None:
    assert read(record(b"\2\x28", ContentType.ALERT)).answer.alert == 40
    reader = read(record(b"\1\x70", ContentType.ALERT) + flight(hello(RSA), DONE))
    assert reader.is_complete
    assert reader.answer.alert is None
    assert reader.answer.suite == RSA


def test_a_hello_request_and_unknown_status_are_passed_over() -> None:
    reader = read(flight(hello(RSA), message(0, b""), message(22, b"\2xyz"), DONE))
    assert reader.is_complete
    assert reader.answer.staple is None


ONLY = Offer(versions=(TLS_1_2,), suites=(ECDHE_RSA,))
BROKEN = {
    "no TLS at all": (b"HTTP/1.1 400 Bad Request\r\n", EVERYTHING),
    "a record of another type": (record(b"x", ContentType.APPLICATION_DATA), EVERYTHING),
    "an alert of three bytes": (record(b"\2\x28\0", ContentType.ALERT), EVERYTHING),
    "a suite that was not offered": (flight(hello(RSA)), ONLY),
    "a version above the offer": (flight(hello(RSA, TLS_1_2)), Offer(versions=(TLS_1_0,))),
    "a version below all": (flight(ServerHello(bytes(32), b"", RSA, (), 0x0200).encode()), EVERYTHING),
    "TLS 1.3 that was not offered": (
        flight(hello(0x1301, TLS_1_3, ext.single(Ext.SUPPORTED_VERSIONS, TLS_1_3))), Offer(versions=(TLS_1_2,)),
    ),
    "compression that was not offered": (flight(hello(RSA, compression_method=1)), EVERYTHING),
    "a second hello": (flight(hello(RSA), hello(RSA)), EVERYTHING),
    "a certificate before the hello": (flight(CERTIFICATE), EVERYTHING),
    "Finished in the clear": (flight(hello(RSA), message(20, b"")), EVERYTHING),
    "a message of 16 MiB": (record(b"\2\xff\xff\xff"), EVERYTHING),
    "a curve of its own": (flight(hello(ECDHE_RSA), message(12, b"\1" + bytes(20))), EVERYTHING),
    "a certificate cut short": (flight(hello(RSA), message(11, b"\0\0\x09abc")), EVERYTHING),
    "ServerHelloDone with content": (flight(hello(RSA), message(14, b"x")), EVERYTHING),
}  # fmt: skip


@pytest.mark.parametrize(("data", "offer"), BROKEN.values(), ids=BROKEN.keys())
def test_a_server_that_breaks_the_rules_is_a_violation(data: bytes, offer: Offer) -> None:
    with pytest.raises(Violation):
        read(data, offer)


def _use(answer: Answer) -> None:
    with contextlib.suppress(Violation):
        assert answer.alpn is None or isinstance(answer.alpn, str)


@fuzz(st.binary(max_size=300), examples=300)
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    with contextlib.suppress(Violation):
        _use(read(data).answer)
    with contextlib.suppress(Violation):
        _use(read(record(data)).answer)


@fuzz(
    st.sampled_from([ECDHE_RSA, DHE_RSA, ECDHE_PSK, RSA, 0x1301]),
    st.lists(st.tuples(st.sampled_from([0, 2, 4, 8, 11, 12, 13, 14, 20, 22]), st.binary(max_size=80)), max_size=4),
    examples=400,
)
def test_no_messages_crash_the_reader(suite: int, messages: list[tuple[int, bytes]]) -> None:
    with contextlib.suppress(Violation):
        _use(read(flight(hello(suite), *(message(*each) for each in messages))).answer)


@fuzz(st.data(), examples=300)
def test_no_change_of_a_good_flight_crashes_the_reader(data: st.DataObject) -> None:
    good = flight(hello(), CERTIFICATE, STATUS, message(12, CURVE + SIGNATURE), REQUEST, DONE)
    at = data.draw(st.integers(0, len(good) - 1))
    cut = data.draw(st.integers(0, len(good)))
    changed = (good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :])[:cut]
    with contextlib.suppress(Violation):
        _use(read(changed).answer)


def decoded(offer: Offer) -> tuple[Record, ClientHello]:
    data = encode(offer)
    return Record(data[0], int.from_bytes(data[1:3]), data[5:]), ClientHello.decode(data[9:])


def test_a_hello_offers_what_it_was_told_and_otherwise_everything() -> None:
    first, sent = decoded(Offer(versions=(TLS_1_3, TLS_1_2), server_name="www.example.org", alpn=("h2",)))
    assert (first.content_type, first.legacy_version, sent.legacy_version) == (22, 0x0301, TLS_1_2)
    versions = find(sent.extensions, Ext.SUPPORTED_VERSIONS)
    assert versions is not None
    assert ext.read_client_versions(versions) == (TLS_1_3, TLS_1_2)
    assert {0x1301, 0xC02B, 0x0005} <= set(sent.cipher_suites)
    name = find(sent.extensions, Ext.SERVER_NAME)
    assert name is not None
    assert ext.read_server_name(name) == "www.example.org"
    schemes = find(sent.extensions, Ext.SIGNATURE_ALGORITHMS)
    assert schemes is not None
    assert ext.read_numbers(schemes, "x") == SCHEMES
    shares = find(sent.extensions, Ext.KEY_SHARE)
    assert shares is not None
    assert ext.read_client_shares(shares) == ()
    _, narrow = decoded(Offer(versions=(TLS_1_2,), suites=(RSA,), is_fallback=True))
    assert narrow.cipher_suites == (RSA, SCSV_FALLBACK)
    assert find(narrow.extensions, Ext.SUPPORTED_VERSIONS) is None


def test_ssl3_has_no_place_for_extensions() -> None:
    first, sent = decoded(Offer(versions=(SSL_3_0,), server_name="www.example.org"))
    assert (first.legacy_version, sent.legacy_version, sent.extensions) == (SSL_3_0, SSL_3_0, ())
    assert sent.cipher_suites[-1] == SCSV_RENEGOTIATION
    assert encode(Offer(versions=(SSL_3_0,)))[-2:] == b"\1\0"


def test_ssl2_is_recognised_by_its_own_hello_alone() -> None:
    assert ssl2.encode()[2:5] == b"\1\0\2"
    body = b"\4\0\1" + uint(2, 2) + uint(2, 2) + uint(3, 2) + uint(1, 2) + b"CC" + b"\x07\x00\xc0" + b"I"
    good = uint(0x8000 | len(body), 2) + body
    answer = ssl2.Answer()
    for each in good:
        assert not answer.is_complete
        answer.feed(bytes([each]))
    assert answer.is_complete
    assert answer.ciphers == (0x0700C0,)
    for bad in (b"\x15\x03\x01\x00\x02\x02\x28", b"HTTP/1.1", good[:5] + uint(3, 2) + good[7:], b"\x80\x03\4\0\1"):
        other = ssl2.Answer()
        other.feed(bad)
        assert other.is_complete
        assert other.ciphers is None


@fuzz(st.binary(max_size=60), examples=200)
def test_no_bytes_crash_the_reader_of_ssl2(data: bytes) -> None:
    for prefix in (b"", b"\x80\x20\x04"):
        ssl2.Answer().feed(prefix + data)
