"""Reading a ClientHello: what is found, what is refused, and when more is asked for."""

from __future__ import annotations

import pytest
from OpenSSL import SSL

from tests.support import hellos
from tlstunnel.outcome import CloseReason
from tlstunnel.tls.clienthello import ClientHello, parse
from tlstunnel.tls.firstbytes import MAX_MESSAGE, MAX_RECORDS, HelloError, NotTLSError, Speaks

EVERY = sorted(hellos.RECORDED)


def read(*extensions: bytes, **parts: object) -> ClientHello:
    found = parse(hellos.hello(*extensions, **parts))
    assert found is not None
    return found


def refusal(data: bytes) -> str:
    with pytest.raises(HelloError) as caught:
        parse(data)
    return str(caught.value)


@pytest.mark.parametrize("name", EVERY)
def test_a_recorded_hello_says_what_tshark_reads_in_it(name: str) -> None:
    expected = hellos.RECORDED[name]
    found = parse(hellos.recorded(name))
    assert found is not None
    assert found.server_name == expected["server_name"]
    assert [protocol.decode() for protocol in found.alpn] == expected["alpn"]
    assert list(found.versions) == expected["versions"]
    assert list(found.cipher_suites) == expected["cipher_suites"]
    assert list(found.extensions) == expected["extensions"]
    assert list(found.groups) == expected["groups"]
    assert list(found.signature_algorithms) == expected["signature_algorithms"]
    assert found.session_id.hex() == expected["session_id"]


@pytest.mark.parametrize("name", EVERY)
def test_a_hello_cut_anywhere_needs_more_and_then_is_the_same(name: str) -> None:
    whole = hellos.recorded(name)
    for end in range(len(whole)):
        assert parse(whole[:end]) is None
    found = parse(whole + b"what follows is not ours")
    assert found is not None
    assert found.server_name == hellos.RECORDED[name]["server_name"]


@pytest.mark.parametrize("size", [16, 63, 64, 1000])
@pytest.mark.parametrize("name", EVERY)
def test_a_hello_in_many_records_is_the_same(name: str, size: int) -> None:
    whole = hellos.recorded(name)
    cut = hellos.fragmented(whole, size)
    assert parse(cut[:-1]) is None
    for data in (cut, bytearray(cut), memoryview(cut)):
        found = parse(data)
        assert found is not None
        assert repr(found) == repr(parse(whole))
        assert found.extensions == parse(whole).extensions  # type: ignore[union-attr]


def test_the_head_of_the_message_may_be_cut_in_two() -> None:
    content = hellos.hello(hellos.server_name(b"a.example"))[5:]
    for at in range(1, 5):
        found = parse(hellos.record(content[:at]) + hellos.record(content[at:]))
        assert found is not None
        assert found.server_name == "a.example"


def test_what_follows_the_hello_in_its_last_record_is_left_alone() -> None:
    content = hellos.hello(hellos.server_name(b"a.example"))[5:]
    assert parse(hellos.record(content + b"\x0b\0\0\0")).server_name == "a.example"  # type: ignore[union-attr]
    cut = hellos.record(content[:20]) + hellos.record(content[20:] + b"\x0b\0\0\0")
    assert parse(cut).server_name == "a.example"  # type: ignore[union-attr]
    assert parse(cut[:-1]).server_name == "a.example"  # type: ignore[union-attr]


def test_the_hello_of_the_openssl_we_ship_with_is_read() -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_alpn_protos([b"h2", b"http/1.1"])
    connection = SSL.Connection(context, None)
    connection.set_tlsext_host_name(b"Orders.Example.org")
    connection.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    found = parse(connection.bio_read(65536))
    assert found is not None
    assert found.server_name == "orders.example.org"
    assert found.alpn == (b"h2", b"http/1.1")
    assert "1.3" in found.version_names


def test_a_hello_keeps_its_own_copy_of_the_bytes() -> None:
    buffer = bytearray(hellos.recorded("openssl-4.0"))
    found = parse(memoryview(buffer))
    assert found is not None
    suites = found.cipher_suites
    buffer[:] = bytes(len(buffer))
    assert found.cipher_suites == suites


def test_a_hello_without_extensions_is_one_of_tls_1_2() -> None:
    content = hellos.body()[:-2]
    found = parse(hellos.record(hellos.message(content)))
    assert found is not None
    assert found.server_name is None
    assert found.alpn == found.groups == found.signature_algorithms == found.extensions == ()
    assert found.versions == (0x0303,)
    assert found.version_names == ("1.2",)
    assert found.extension(0) is None


def test_grease_is_left_out_of_every_list() -> None:
    found = read(
        hellos.extension(0x1A1A, b""),
        hellos.versions(0x2A2A, 0x0304, 0x7F1C),
        hellos.words(10, 0x3A3A, 29),
        hellos.words(13, 0x4A4A, 0x0403),
        hellos.extension(51, b"\0\x0a" + b"\x5a\x5a\0\x01\0" + b"\0\x1d\0\x01\0"),
        suites=b"\xfa\xfa\x13\x01",
    )
    assert found.extensions == (43, 10, 13, 51)
    assert found.versions == (0x0304, 0x7F1C)
    assert found.version_names == ("1.3", "0x7f1c")
    assert found.groups == (29,)
    assert found.signature_algorithms == (0x0403,)
    assert found.cipher_suites == (0x1301,)


def test_an_extension_and_the_session_that_is_to_be_resumed_are_given_as_they_were_sent() -> None:
    assert read(hellos.extension(35, b"ticket")).extension(35) == b"ticket"
    assert read(hellos.extension(35, b"")).extension(35) == b""
    assert read(session_id=b"s" * 32).session_id == b"s" * 32


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        (b"example.org", "example.org"),
        (b"EXAMPLE.Org", "example.org"),
        (b"example.org.", "example.org"),
        (b"localhost", "localhost"),
        (b"_sip.example.org", "_sip.example.org"),
        (b"xn--mller-kva.example", "xn--mller-kva.example"),
        (b"1.2.3.4.in-addr.arpa", "1.2.3.4.in-addr.arpa"),
        (b"4.example", "4.example"),
        (b".".join([b"a" * 63] * 3 + [b"a" * 61]), ".".join(["a" * 63] * 3 + ["a" * 61])),
    ],
)
def test_a_server_name_is_validated_and_lower_cased(sent: bytes, name: str) -> None:
    found = read(hellos.server_name(sent))
    assert found.server_name == name
    assert found.server_name_problem == ""


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (b"192.0.2.7", "server_name is an IP address"),
        (b"2001:db8::7", "server_name is an IP address"),
        (b".", "server_name is not a host name"),
        (b"a..b", "server_name is not a host name"),
        (b"-a.example", "server_name is not a host name"),
        (b"a-.example", "server_name is not a host name"),
        (b"a" * 64, "server_name is not a host name"),
        (b".".join([b"a" * 63] * 4), "server_name is not a host name"),
        (b"a\0.example", "server_name is not a host name"),
        (b"a.example\n", "server_name is not a host name"),
        (b"a b.example", "server_name is not a host name"),
        ("müller.example".encode(), "server_name is not a host name"),
        ("аpple.example".encode(), "server_name is not a host name"),
        (b"*.example", "server_name is not a host name"),
        (b"", "server_name is not a host name"),
    ],
)
def test_a_name_that_is_no_host_name_is_never_passed_on(sent: bytes, problem: str) -> None:
    found = read(hellos.server_name(sent))
    assert found.server_name is None
    assert found.server_name_problem == problem


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"\0\0",
        b"\0\x05\0\0\x02ab!",  # something after the list
        b"\0\x04\0\0\x02a",  # a name longer than the list
        b"\0\x06\x01\0\x03abc",  # a type nobody defined
        hellos.vector(b"\0" + hellos.vector(b"a", 2) + b"\0" + hellos.vector(b"b", 2), 2),  # two names
    ],
)
def test_a_malformed_server_name_extension_is_refused(content: bytes) -> None:
    assert refusal(hellos.hello(hellos.extension(0, content))).startswith("server_name is ")


@pytest.mark.parametrize("content", [b"", b"\0\0", b"\0\x02\x01", b"\0\x03\x02h2!", b"\0\x02\0\0", b"\0\x03\x05h2"])
def test_a_malformed_alpn_extension_is_refused(content: bytes) -> None:
    assert refusal(hellos.hello(hellos.extension(16, content))) == (
        "application_layer_protocol_negotiation is malformed"
    )


@pytest.mark.parametrize(
    ("kind", "content", "attribute"),
    [
        (43, b"", "versions"),
        (43, b"\x00", "versions"),
        (43, b"\x03\x03\x04\x03", "versions"),
        (43, b"\x04\x03\x04", "versions"),
        (10, b"", "groups"),
        (10, b"\0\0", "groups"),
        (10, b"\0\x03\0\x1d\0", "groups"),
        (10, b"\0\x04\0\x1d", "groups"),
        (13, b"\0\x02", "signature_algorithms"),
    ],
)
def test_a_malformed_list_is_refused_when_it_is_asked_for(kind: int, content: bytes, attribute: str) -> None:
    found = read(hellos.extension(kind, content))
    with pytest.raises(HelloError, match="is malformed"):
        getattr(found, attribute)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "ClientHello is too short"),
        (bytes(37), "ClientHello is too short"),
        (hellos.body(session_id=bytes(33)), "session id is malformed"),
        (bytes(34) + b"\x20" + bytes(10), "session id is malformed"),
        (hellos.body(suites=b""), "cipher suites are malformed"),
        (hellos.body(suites=b"\x13\x01\x13"), "cipher suites are malformed"),
        (bytes(35) + b"\xff\xff\0\0\0", "cipher suites are malformed"),
        (bytes(35) + b"\0\x02\x13\x01\x05\0", "compression methods are malformed"),
        (hellos.body() + b"!", "extensions do not fill the message"),
        (hellos.body()[:-1], "extensions do not fill the message"),
        (hellos.body(b"\0\x17\0"), "an extension is cut short"),
        (hellos.body(b"\0\x17\0\x01"), "an extension is cut short"),
        (hellos.body(hellos.alpn(b"h2"), b"\0"), "an extension is cut short"),
        (hellos.body(hellos.alpn(b"h2"), hellos.alpn(b"h3")), "an extension comes twice"),
        (hellos.body(hellos.server_name(b"a"), hellos.server_name(b"b")), "an extension comes twice"),
    ],
)
def test_a_malformed_hello_is_refused_with_what_is_wrong(content: bytes, problem: str) -> None:
    assert refusal(hellos.record(hellos.message(content))) == problem


def test_an_error_names_the_reason_that_is_counted() -> None:
    assert HelloError.close_reason is CloseReason.PROTOCOL_ERROR
    assert NotTLSError.close_reason is CloseReason.NOT_TLS


def test_a_repr_shows_no_more_than_is_decided_on() -> None:
    assert repr(read(hellos.server_name(b"a.example"), hellos.alpn(b"h2"))) == (
        "ClientHello(server_name='a.example', alpn=(b'h2',), 72 bytes)"
    )


def test_the_largest_hello_is_read_and_one_byte_more_is_refused() -> None:
    padding = MAX_MESSAGE - len(hellos.body()) - 4
    largest = hellos.message(hellos.body(hellos.extension(21, bytes(padding - 4)), compression=bytes(5)))
    assert len(largest) == MAX_MESSAGE + 4
    found = parse(hellos.fragmented(hellos.record(b"") + largest, 16_384))
    assert found is not None
    assert found.extensions == (21,)
    assert refusal(hellos.record(b"\x01" + (MAX_MESSAGE + 1).to_bytes(3, "big"))) == (
        "ClientHello is longer than 65536 bytes"
    )


def test_a_hello_cut_into_more_records_than_allowed_is_refused_before_it_is_complete() -> None:
    whole = hellos.recorded("openssl-4.0")
    drip = hellos.fragmented(whole, 1)
    assert parse(drip[: 6 * MAX_RECORDS]) is None
    assert refusal(drip[: 6 * MAX_RECORDS + 5]) == "ClientHello is cut into more than 128 records"


def test_a_full_buffer_always_decides() -> None:
    content = hellos.message(hellos.body(hellos.extension(21, bytes(65_000))))
    size = -(-len(content) // MAX_RECORDS)
    cut = hellos.fragmented(hellos.record(b"") + content, size)
    assert len(cut) <= hellos.MAX_BUFFER
    assert parse(cut) is not None
    assert parse(cut[:-1]) is None


@pytest.mark.parametrize(
    ("start", "speaks"),
    [
        (b"GET / HTTP/1.1\r\n", Speaks.HTTP),
        (b"POST /orders", Speaks.HTTP),
        (b"CONNECT a.example:443", Speaks.HTTP),
        (b"PRI * HTTP/2.0\r\n\r\nSM", Speaks.HTTP),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Speaks.SSH),
        (b"PROXY TCP4 192.0.2.7 ", Speaks.PROXY_V1),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", Speaks.PROXY_V2),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", Speaks.POSTGRES),
        (b"\x80\x2e\x01\0\x02\0\x15\0\0", Speaks.SSLV2),
        (b"\x80\x2e\x01\x03\x01\0\x15\0\0", Speaks.SSLV2),
        (b"\x80\x2e\x02\0\x02", Speaks.UNKNOWN),
        (b"\x80\x2e\x01\x05\x02", Speaks.UNKNOWN),
        (b"EHLO a.example\r\n", Speaks.UNKNOWN),
        (b"\x16\x02\0\0\0\0\0\0\0", Speaks.UNKNOWN),
        (b"\x15\x09", Speaks.UNKNOWN),
        (b"\xff\xff\x02", Speaks.UNKNOWN),
        (b"GETS", Speaks.UNKNOWN),
    ],
)
def test_what_is_no_tls_is_named(start: bytes, speaks: Speaks) -> None:
    with pytest.raises(NotTLSError) as caught:
        parse(start)
    assert caught.value.speaks is speaks


@pytest.mark.parametrize(
    "start", [b"GET ", b"SSH-", b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n", b"\x80\x2e\x01\0\x02", b"\x16"]
)
def test_what_is_no_tls_is_not_named_before_it_can_be_told(start: bytes) -> None:
    for end in range(len(start)):
        assert parse(start[:end]) is None


def test_the_message_says_what_to_do_about_it() -> None:
    with pytest.raises(NotTLSError) as caught:
        parse(b"PROXY TCP4")
    assert str(caught.value) == (
        "client speaks the PROXY protocol (v1) before TLS; accept_proxy_protocol = true would read it"
    )
    for speaks in Speaks:
        text = str(NotTLSError(speaks))
        assert text.startswith("client speaks ")
        assert "\n" not in text


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x15\x03\x03\0\x02\x02\x28", "the first record is not a handshake record"),
        (b"\x17\x03\x03\0\x10", "the first record is not a handshake record"),
        (hellos.record(b"\x02\0\0\0"), "the first message is not a ClientHello"),
        (hellos.record(b"\x01") + hellos.record(b"\0", kind=23), "another record in the middle of the ClientHello"),
        (
            hellos.record(b"\x01") + hellos.record(b"\0", version=0x0201),
            "another record in the middle of the ClientHello",
        ),
        (hellos.record(b"") * 33, "more than 32 empty records"),
        (b"\x16\x03\x01\x40\x01", "a record is longer than 16 KiB"),
        (b"\x16\x03\x01\x40\x01" + hellos.message(bytes(0x4001 - 4)), "a record is longer than 16 KiB"),
    ],
)
def test_tls_that_does_not_begin_with_a_hello_is_refused(data: bytes, problem: str) -> None:
    assert refusal(data) == problem


def test_nothing_yet_needs_more() -> None:
    assert parse(b"") is None
