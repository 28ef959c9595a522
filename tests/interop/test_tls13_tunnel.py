"""The real tunnel against our TLS 1.3 from first principles: honest with every group and suite, and hostile.

Hostile peers get the alert RFC 8446 names, and the connection's record the reason an operator reads.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support import certificates, hostile, tunnel
from tests.support.hostile import Wire
from tests.support.tampering import (
    Act,
    Alter,
    AlterRecord,
    Delay,
    DelayRecord,
    Drop,
    DropRecord,
    Insert,
    Repeat,
    RepeatRecord,
    append,
    body,
    claim_length,
    cut,
    extension,
    field,
    flip,
)
from tlstunnel.tools.tls13.client import Client
from tlstunnel.tools.tls13.client_config import ClientConfig
from tlstunnel.tools.tls13.connection import Connection
from tlstunnel.tools.tls13.events import PeerKeysUpdated
from tlstunnel.tools.tls13.keyexchange import supported_groups
from tlstunnel.tools.tls13.names import (
    CipherSuite,
    ContentType,
    ExtensionType,
    HandshakeType,
    NamedGroup,
    SignatureScheme,
)

H, X = HandshakeType, ExtensionType
_EMPTY_CERTIFICATE = b"\x0b\0\0\4\0\0\0\0"


@pytest.fixture(scope="module")
def echo() -> Iterator[tunnel.Tunnel]:
    pair = certificates.server("localhost", "127.0.0.1")
    words = ["--listen", "127.0.0.1:0", "--workers", "1", "--log-format", "json"]
    with tunnel.start("echo", *words, "--cert", str(pair.certificate), "--key", str(pair.key)) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def strict_echo() -> Iterator[tunnel.Tunnel]:
    """Demands a client certificate of the test CA."""
    pair, authority = certificates.server("localhost", "127.0.0.1"), str(certificates.ca().certificate)
    words = ["--listen", "127.0.0.1:0", "--workers", "1", "--log-format", "json", "--allow-any"]
    words += ["--client-auth", "required", "--client-ca", authority]
    with tunnel.start("echo", *words, "--cert", str(pair.certificate), "--key", str(pair.key)) as daemon:
        yield daemon


@pytest.mark.parametrize("group", supported_groups(), ids=lambda group: group.name)
def test_client_talks_to_the_tunnel_with_every_group(echo: tunnel.Tunnel, group: NamedGroup) -> None:
    config = ClientConfig(server_name="localhost", groups=(group,))
    assert hostile.attack(("127.0.0.1", echo.port), config=config).data == b"ping\n"
    assert echo.record()["reason"] == "finished"


@pytest.mark.parametrize("suite", list(CipherSuite), ids=lambda suite: suite.name)
def test_client_talks_to_the_tunnel_with_every_suite(echo: tunnel.Tunnel, suite: CipherSuite) -> None:
    config = replace(hostile.client_config(), cipher_suites=(suite,))
    assert hostile.attack(("127.0.0.1", echo.port), config=config).data == b"ping\n"
    assert echo.record()["cipher"] == suite.name


def test_client_resumes_and_updates_keys_with_the_tunnel(echo: tunnel.Tunnel) -> None:
    config = hostile.client_config()
    for resumed in (False, True):
        client = Client(config)
        with socket.create_connection(("127.0.0.1", echo.port)) as sock:
            wire = Wire(client, sock)
            client.start()
            assert wire.handshake().completed
            client.update_keys(request_peer=True)
            client.send(b"hello")
            wire.pump_until(lambda wire=wire: wire.verdict.data == b"hello")
            assert PeerKeysUpdated() in wire.verdict.events
            client.close()
            wire.pump_until(lambda: False)
        assert client.is_resumed is resumed
        assert echo.record()["resumed"] is resumed
        config = replace(config, session=client.sessions[-1])


@pytest.mark.parametrize("sizes", [(1, 1 << 14), (None, 16), (3, 20)], ids=str)
def test_a_handshake_cut_into_tiny_pieces_and_records_is_understood(
    echo: tunnel.Tunnel, sizes: tuple[int | None, int]
) -> None:
    chunk, fragment = sizes
    verdict = hostile.attack(("127.0.0.1", echo.port), chunk=chunk, fragment_size=fragment)
    assert verdict.data == b"ping\n"
    assert echo.record()["reason"] == "finished"


HOSTILE_CLIENTS: dict[str, tuple[tuple[Act, ...], str, str]] = {
    "no key_share": ((Alter(H.CLIENT_HELLO, extension(X.KEY_SHARE, None)),), "missing_extension", "no_shared_group"),
    "no signature_algorithms": (
        (Alter(H.CLIENT_HELLO, extension(X.SIGNATURE_ALGORITHMS, None)),),
        "missing_extension",
        "protocol_error",
    ),
    "malformed key_share": ((Alter(H.CLIENT_HELLO, extension(X.KEY_SHARE, b"")),), "decode_error", "protocol_error"),
    "all-zero X25519 share": (
        (Alter(H.CLIENT_HELLO, extension(X.KEY_SHARE, bytes.fromhex("0024001d0020") + bytes(32))),),
        "illegal_parameter",
        "protocol_error",
    ),
    "compression": (
        (Alter(H.CLIENT_HELLO, field(compression_methods=b"\1")),), "illegal_parameter", "protocol_error"
    ),
    "cut ClientHello": ((Alter(H.CLIENT_HELLO, cut(3)),), "decode_error", "protocol_error"),
    "trailing bytes": ((Alter(H.CLIENT_HELLO, append(b"xx")),), "decode_error", "protocol_error"),
    "unknown suite": (
        (Alter(H.CLIENT_HELLO, field(cipher_suites=(0x1399,))),), "handshake_failure", "no_shared_cipher"
    ),
    "TLS 1.0 alone": (
        (Alter(H.CLIENT_HELLO, extension(X.SUPPORTED_VERSIONS, b"\2\3\1")),), "protocol_version", "no_shared_version"
    ),
    "ClientHello twice": ((Repeat(H.CLIENT_HELLO),), "unexpected_message", "protocol_error"),
    "Finished first": (
        (Insert(H.CLIENT_HELLO, b"\x14\0\0\x20" + bytes(32)),), "unexpected_message", "protocol_error"
    ),
    "wrong Finished": ((Alter(H.FINISHED, flip(-1)),), "decrypt_error", "protocol_error"),
    "short Finished": ((Alter(H.FINISHED, cut(1)),), "decode_error", "protocol_error"),
    "Finished twice": ((Repeat(H.FINISHED),), "unexpected_message", "protocol_error"),
    "no Finished": ((Drop(H.FINISHED),), "bad_record_mac", "protocol_error"),
    "unasked Certificate": ((Insert(H.FINISHED, _EMPTY_CERTIFICATE),), "unexpected_message", "protocol_error"),
    "changed record": ((AlterRecord(2, flip(-1)),), "bad_record_mac", "protocol_error"),
    "dropped record": ((DropRecord(2),), "bad_record_mac", "protocol_error"),
    "repeated record": ((RepeatRecord(2),), "bad_record_mac", "client_tls_error"),
    "reordered records": ((DelayRecord(2),), "bad_record_mac", "protocol_error"),
    "oversized record": (
        (AlterRecord(0, lambda _: b"\x16\x03\x01\x48\x01" + bytes(0x4801)),), "record_overflow", "protocol_error"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_CLIENTS)
def test_the_tunnel_answers_a_hostile_client_with_the_right_alert_and_reason(echo: tunnel.Tunnel, name: str) -> None:
    acts, alert, reason = HOSTILE_CLIENTS[name]
    verdict = hostile.attack(("127.0.0.1", echo.port), *acts)
    record = echo.record()
    assert (verdict.alert, record["reason"]) == (alert, reason)


AFTER: dict[str, tuple[hostile.After, str]] = {
    "KeyUpdate of 2": (
        lambda end: end.send_raw(ContentType.HANDSHAKE, b"\x18\0\0\1\2"), "illegal_parameter"
    ),
    "ClientHello again": (
        lambda end: end.send_raw(ContentType.HANDSHAKE, b"\1\0\0\0"), "unexpected_message"
    ),
    "change_cipher_spec": (
        lambda end: end.send_raw(ContentType.CHANGE_CIPHER_SPEC, b"\1"), "unexpected_message"
    ),
    "KeyUpdate cut by data": (
        lambda end: (end.send_raw(ContentType.HANDSHAKE, b"\x18\0"), end.send(b"data"))[1], "unexpected_message"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AFTER)
def test_the_tunnel_answers_misbehaviour_after_the_handshake(echo: tunnel.Tunnel, name: str) -> None:
    after, alert = AFTER[name]
    verdict = hostile.attack(("127.0.0.1", echo.port), after=after)
    assert verdict.completed
    record = echo.record()
    assert (verdict.alert, record["reason"]) == (alert, "client_tls_error")


def own(name: str = "billing") -> ClientConfig:
    return replace(hostile.client_config(), credential=hostile.credential(certificates.client(name)))


HOSTILE_AUTHENTICATION: dict[str, tuple[tuple[Act, ...], str, str]] = {
    "empty list": ((Alter(H.CERTIFICATE, body(bytes(4))), Drop(H.CERTIFICATE_VERIFY)), "certificate_required",
                   "no_client_certificate"),
    "wrong signature": ((Alter(H.CERTIFICATE_VERIFY, flip(-1)),), "decrypt_error", "protocol_error"),
    "no signature": ((Drop(H.CERTIFICATE_VERIFY),), "unexpected_message", "protocol_error"),
    "no Certificate": ((Drop(H.CERTIFICATE),), "unexpected_message", "protocol_error"),
    "signature first": ((Delay(H.CERTIFICATE, H.CERTIFICATE_VERIFY),), "unexpected_message", "protocol_error"),
    "scheme of another key": (
        (Alter(H.CERTIFICATE_VERIFY, field(scheme=SignatureScheme.ED25519)),), "illegal_parameter", "protocol_error"
    ),
    # RFC 8446 would also allow bad_certificate; OpenSSL takes bytes that are no DER for a field that does not decode.
    "garbage certificate": (
        (Alter(H.CERTIFICATE, body(bytes.fromhex("00 000008 000003 010203 0000"))),), "decode_error", "protocol_error"
    ),
    "endless message": ((Alter(H.CERTIFICATE, claim_length(0xFFFFFF)),), "illegal_parameter", "protocol_error"),
}  # fmt: skip


def test_client_authenticates_to_the_tunnel(strict_echo: tunnel.Tunnel) -> None:
    assert hostile.attack(("127.0.0.1", strict_echo.port), config=own()).data == b"ping\n"
    assert strict_echo.record()["reason"] == "finished"


@pytest.mark.parametrize("name", HOSTILE_AUTHENTICATION)
def test_the_tunnel_sees_through_a_hostile_client_certificate(strict_echo: tunnel.Tunnel, name: str) -> None:
    acts, alert, reason = HOSTILE_AUTHENTICATION[name]
    verdict = hostile.attack(("127.0.0.1", strict_echo.port), *acts, config=own())
    record = strict_echo.record()
    assert (verdict.alert, record["reason"]) == (alert, reason)


HOSTILE_SERVERS: dict[str, tuple[tuple[Act, ...], str, str]] = {
    "suite not offered": (
        (Alter(H.SERVER_HELLO, field(cipher_suite=0x1304)),), "illegal_parameter", "protocol_error"
    ),
    "another session id": (
        (Alter(H.SERVER_HELLO, field(session_id=b"x" * 32)),), "illegal_parameter", "protocol_error"
    ),
    "cut ServerHello": ((Alter(H.SERVER_HELLO, cut(2)),), "decode_error", "protocol_error"),
    "EncryptedExtensions missing": ((Drop(H.ENCRYPTED_EXTENSIONS),), "unexpected_message", "protocol_error"),
    "unasked extension": (
        (Alter(H.ENCRYPTED_EXTENSIONS, extension(X.ALPN, b"\0\3\2h2")),), "unsupported_extension", "protocol_error"
    ),
    "Certificate missing": ((Drop(H.CERTIFICATE),), "unexpected_message", "protocol_error"),
    "Certificate empty": ((Alter(H.CERTIFICATE, body(bytes(4))),), "decode_error", "protocol_error"),
    "wrong signature": ((Alter(H.CERTIFICATE_VERIFY, flip(-1)),), "decrypt_error", "protocol_error"),
    "no signature": ((Drop(H.CERTIFICATE_VERIFY),), "unexpected_message", "protocol_error"),
    "wrong Finished": ((Alter(H.FINISHED, flip(-1)),), "decrypt_error", "protocol_error"),
    "Finished before signature": (
        (Delay(H.CERTIFICATE_VERIFY, H.FINISHED),), "unexpected_message", "protocol_error"
    ),
    "changed record": ((AlterRecord(2, flip(-1)),), "bad_record_mac", "protocol_error"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_SERVERS)
def test_the_tunnel_in_client_mode_sees_through_a_hostile_server(name: str) -> None:
    acts, alert, reason = HOSTILE_SERVERS[name]
    with hostile.trap(*acts) as trap, tunnel.client(trap.port) as daemon:
        with socket.create_connection(("127.0.0.1", daemon.port)) as sock:
            sock.settimeout(hostile.PATIENCE_S)
            assert trap.verdict().alert == alert
            assert sock.recv(100) == b""
        assert daemon.record()["reason"] == reason


def test_the_tunnel_in_client_mode_talks_to_our_server() -> None:
    with hostile.trap(config=replace(hostile.server_config(), groups=(NamedGroup.X25519MLKEM768,))) as trap:
        with tunnel.client(trap.port) as daemon:
            with socket.create_connection(("127.0.0.1", daemon.port)) as sock:
                sock.settimeout(hostile.PATIENCE_S)
                sock.sendall(b"through the tunnel")
                assert sock.recv(100) == b"through the tunnel"
            assert daemon.record()["group"] == "X25519MLKEM768"
        assert trap.verdict().completed


def test_zero_rtt_data_never_reaches_the_tunnels_backend(echo: tunnel.Tunnel) -> None:
    address = ("127.0.0.1", echo.port)
    first: list[Connection] = []
    verdict = hostile.attack(address, after=lambda end: (first.append(end), end.close())[1])
    assert verdict.completed
    echo.record()
    client = first[0]
    assert isinstance(client, Client)
    session = client.sessions[-1]
    assert session.max_early_data == 0
    config = replace(hostile.client_config(), session=session, early_data=b"replay me")
    verdict = hostile.attack(address, config=config)
    assert verdict.data == b"ping\n"
    assert echo.record()["reason"] == "finished"
