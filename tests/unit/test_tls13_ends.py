"""Our client and our server with each other, in memory: what they agree on, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support import certificates, hostile
from tlstunnel.tls13.client import Client
from tlstunnel.tls13.client_config import ChainVerdict, ClientConfig
from tlstunnel.tls13.connection import Connection
from tlstunnel.tls13.events import (
    ApplicationData,
    Closed,
    Event,
    HandshakeComplete,
    PeerKeysUpdated,
    State,
    TicketReceived,
)
from tlstunnel.tls13.failure import HandshakeFailure, PeerAlert, Violation
from tlstunnel.tls13.hostile import (
    Act,
    Alter,
    AlterRecord,
    Delay,
    DelayRecord,
    Drop,
    DropRecord,
    Hostile,
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
from tlstunnel.tls13.keyexchange import answer, offer, supported_groups
from tlstunnel.tls13.messages import HELLO_RETRY_RANDOM
from tlstunnel.tls13.names import (
    AlertDescription,
    CipherSuite,
    ContentType,
    ExtensionType,
    HandshakeType,
    NamedGroup,
    alert_name,
)
from tlstunnel.tls13.server import Server
from tlstunnel.tls13.server_config import ClientAuth, ServerConfig
from tlstunnel.tls13.wire import Record, RecordBuffer

H, X, A = HandshakeType, ExtensionType, AlertDescription


def talk(client: Client, server: Server) -> list[Event]:
    """Carry bytes until there are none. Returns both ends' events."""
    if client.state is State.START:
        client.start()
    events: list[Event] = []
    while True:
        forward = client.data_to_send()
        events += server.receive(forward) if forward else []
        reverse = server.data_to_send()
        events += client.receive(reverse) if reverse else []
        if not forward and not reverse:
            return events


def ends(
    client_changes: dict[str, object] | None = None, server_changes: dict[str, object] | None = None
) -> tuple[Client, Server]:
    client = replace(hostile.client_config(), **(client_changes or {}))  # type: ignore[arg-type]
    server = replace(hostile.server_config(), **(server_changes or {}))  # type: ignore[arg-type]
    return Client(client), Server(server)


@pytest.mark.parametrize("group", supported_groups(), ids=lambda group: group.name)
@pytest.mark.parametrize("suite", list(CipherSuite), ids=lambda suite: suite.name)
def test_ends_agree_with_every_group_and_suite(group: NamedGroup, suite: CipherSuite) -> None:
    client, server = ends({"groups": (group,), "cipher_suites": (suite,)}, {"groups": (group,)})
    events = talk(client, server)
    assert events.count(HandshakeComplete()) == 2
    assert (client.group, server.group, client.suite, server.suite) == (group, group, suite, suite)
    client.send(b"x" * 40_000)
    assert b"".join(e.data for e in talk(client, server) if isinstance(e, ApplicationData)) == b"x" * 40_000


@pytest.mark.parametrize("key_type", ["ECDSA P-256", "ECDSA P-384", "ECDSA P-521", "RSA 2048", "Ed25519"])
def test_both_ends_prove_who_they_are_with_every_kind_of_key(key_type: str) -> None:
    server_pair = certificates.server("localhost", key_type=key_type)
    client_pair = certificates.client("billing", key_type=key_type)
    asked: list[bytes] = []

    def verify(chain: tuple[bytes, ...]) -> ChainVerdict:
        asked.append(chain[0])
        return ChainVerdict(True, "fine")

    client, server = ends(
        {"credential": hostile.credential(client_pair), "verify": verify},
        {
            "credentials": (hostile.credential(server_pair),),
            "client_auth": ClientAuth.REQUIRED,
            "verify_client": verify,
        },
    )
    talk(client, server)
    assert asked == [server_pair.leaf_der, client_pair.leaf_der]
    assert server.client_chain[0] == client_pair.leaf_der


def test_a_refused_chain_ends_the_handshake_with_the_verifiers_alert() -> None:
    def refuse(chain: tuple[bytes, ...]) -> ChainVerdict:
        raise Violation(A.UNKNOWN_CA, "nobody knows this CA")

    client, server = ends({"verify": refuse})
    with pytest.raises(Violation, match="nobody knows this CA"):
        talk(client, server)
    with pytest.raises(PeerAlert) as caught:
        server.receive(client.data_to_send())
    assert caught.value.alert == A.UNKNOWN_CA


def test_resumption_needs_no_certificate_and_falls_back_when_the_ticket_is_unknown() -> None:
    client, server = ends()
    assert TicketReceived() in talk(client, server)
    config = replace(client.config, session=client.sessions[-1])
    again = Client(config)
    talk(again, Server(server.config))
    assert again.is_resumed
    assert again.server_chain == ()
    forgetful = Client(config)
    talk(forgetful, Server(replace(server.config, sessions={})))
    assert not forgetful.is_resumed
    assert forgetful.server_chain


def test_resumption_survives_a_hello_retry_request() -> None:
    client, server = ends()
    talk(client, server)
    again = Client(replace(client.config, session=client.sessions[-1], early_data=b"too early"))
    settings = replace(server.config, groups=(NamedGroup.SECP256R1,), cookie=b"cookie", max_early_data=100)
    talk(again, Server(settings))
    assert again.was_retried
    assert again.is_resumed
    assert not again.early_data_accepted


def test_a_ticket_of_another_hash_is_not_used() -> None:
    client, server = ends({"cipher_suites": (CipherSuite.TLS_AES_256_GCM_SHA384,)})
    talk(client, server)
    again = Client(replace(hostile.client_config(), session=client.sessions[-1]))
    talk(again, Server(replace(server.config, cipher_suites=(CipherSuite.TLS_AES_128_GCM_SHA256,))))
    assert not again.is_resumed


def test_early_data_arrives_once_accepted_and_is_skipped_when_refused() -> None:
    client, server = ends(server_changes={"max_early_data": 100})
    talk(client, server)
    config = replace(client.config, session=client.sessions[-1], early_data=b"early bird")
    eager = Client(config)
    assert ApplicationData(b"early bird", is_early=True) in talk(eager, Server(server.config))
    assert eager.early_data_accepted
    refused = Client(config)
    events = talk(refused, Server(replace(server.config, max_early_data=0)))
    assert not refused.early_data_accepted
    assert not any(isinstance(event, ApplicationData) for event in events)
    assert refused.state is State.CONNECTED


def test_more_early_data_than_allowed_is_refused() -> None:
    client, server = ends(server_changes={"max_early_data": 100})
    talk(client, server)
    greedy = Client(replace(client.config, session=client.sessions[-1], early_data=b"x" * 101))
    with pytest.raises(Violation, match="more 0-RTT data than the ticket allows"):
        talk(greedy, Server(server.config))


def test_keys_are_updated_in_both_directions_and_old_ones_are_gone() -> None:
    client, server = ends()
    talk(client, server)
    for _ in range(3):
        client.update_keys(request_peer=True)
        assert talk(client, server).count(PeerKeysUpdated()) == 2
    server.send(b"still here")
    assert talk(client, server) == [ApplicationData(b"still here")]


def test_alpn_is_negotiated_or_refused() -> None:
    client, server = ends({"alpn": ("h2", "http/1.1")}, {"alpn": ("http/1.1",)})
    talk(client, server)
    assert client.alpn == server.alpn == "http/1.1"
    client, server = ends({"alpn": ("h2",)}, {"alpn": ("http/1.1",)})
    with pytest.raises(Violation) as caught:
        talk(client, server)
    assert caught.value.alert == A.NO_APPLICATION_PROTOCOL


def test_close_notify_closes_one_direction() -> None:
    client, server = ends()
    talk(client, server)
    client.close()
    assert talk(client, server) == [Closed()]
    assert server.state is State.CLOSED


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_fragments_and_pieces_of_any_size_are_put_together(size: int) -> None:
    client = Client(hostile.client_config(), tamper=Hostile(fragment_size=size))
    server = Server(hostile.server_config(), tamper=Hostile(fragment_size=size))
    client.start()
    for _ in range(4):
        for byte in client.data_to_send():
            server.receive(bytes([byte]))
        for byte in server.data_to_send():
            client.receive(bytes([byte]))
    assert (client.state, server.state) == (State.CONNECTED, State.CONNECTED)


HOSTILE_CLIENTS: dict[str, tuple[Act, AlertDescription]] = {
    "no key_share": (Alter(H.CLIENT_HELLO, extension(X.KEY_SHARE, None)), A.MISSING_EXTENSION),
    "no groups": (Alter(H.CLIENT_HELLO, extension(X.SUPPORTED_GROUPS, None)), A.MISSING_EXTENSION),
    "no signature_algorithms": (Alter(H.CLIENT_HELLO, extension(X.SIGNATURE_ALGORITHMS, None)), A.MISSING_EXTENSION),
    "no versions": (Alter(H.CLIENT_HELLO, extension(X.SUPPORTED_VERSIONS, None)), A.PROTOCOL_VERSION),
    "empty key_share body": (Alter(H.CLIENT_HELLO, extension(X.KEY_SHARE, b"")), A.DECODE_ERROR),
    "share of unnamed group": (
        Alter(H.CLIENT_HELLO, extension(X.KEY_SHARE, bytes.fromhex("0005 0018 0001 04"))), A.ILLEGAL_PARAMETER
    ),
    "zero share": (
        Alter(H.CLIENT_HELLO, extension(X.KEY_SHARE, bytes.fromhex("0024001d0020") + bytes(32))), A.ILLEGAL_PARAMETER
    ),
    "point off the curve": (
        Alter(H.CLIENT_HELLO, extension(X.KEY_SHARE, bytes.fromhex("004500170041") + b"\4" + b"\1" * 64)),
        A.ILLEGAL_PARAMETER,
    ),
    "compression": (Alter(H.CLIENT_HELLO, field(compression_methods=b"\1\0")), A.ILLEGAL_PARAMETER),
    "long session id": (Alter(H.CLIENT_HELLO, field(session_id=bytes(33))), A.DECODE_ERROR),
    "no suite in common": (Alter(H.CLIENT_HELLO, field(cipher_suites=(0x1305,))), A.HANDSHAKE_FAILURE),
    "cut": (Alter(H.CLIENT_HELLO, cut(1)), A.DECODE_ERROR),
    "trailing byte": (Alter(H.CLIENT_HELLO, append(b"\0")), A.DECODE_ERROR),
    "endless": (Alter(H.CLIENT_HELLO, claim_length(0xFFFFFF)), A.ILLEGAL_PARAMETER),
    "hello twice": (Repeat(H.CLIENT_HELLO), A.UNEXPECTED_MESSAGE),
    "finished first": (Insert(H.CLIENT_HELLO, b"\x14\0\0\0"), A.UNEXPECTED_MESSAGE),
    "unknown message": (Insert(H.FINISHED, b"\x63\0\0\0"), A.UNEXPECTED_MESSAGE),
    "wrong finished": (Alter(H.FINISHED, flip(-1)), A.DECRYPT_ERROR),
    "short finished": (Alter(H.FINISHED, cut(1)), A.DECODE_ERROR),
    "finished twice": (Repeat(H.FINISHED), A.UNEXPECTED_MESSAGE),
    "no certificate": (Drop(H.CERTIFICATE), A.UNEXPECTED_MESSAGE),
    "empty certificate": (Alter(H.CERTIFICATE, body(bytes(4))), A.CERTIFICATE_REQUIRED),
    "no signature": (Drop(H.CERTIFICATE_VERIFY), A.UNEXPECTED_MESSAGE),
    "signature first": (Delay(H.CERTIFICATE, H.CERTIFICATE_VERIFY), A.UNEXPECTED_MESSAGE),
    "wrong signature": (Alter(H.CERTIFICATE_VERIFY, flip(-1)), A.DECRYPT_ERROR),
    "another key's scheme": (Alter(H.CERTIFICATE_VERIFY, field(scheme=0x0804)), A.ILLEGAL_PARAMETER),
    "unoffered scheme": (Alter(H.CERTIFICATE_VERIFY, field(scheme=0x0401)), A.ILLEGAL_PARAMETER),
    "garbage for a certificate": (
        Alter(H.CERTIFICATE, body(bytes.fromhex("00 000008 000003 010203 0000"))), A.BAD_CERTIFICATE
    ),
    "changed record": (AlterRecord(2, flip(-1)), A.BAD_RECORD_MAC),
    "changed header": (AlterRecord(2, flip(2)), A.BAD_RECORD_MAC),
    "no TLS": (AlterRecord(0, lambda _: b"GET / HTTP/1.1\r\n"), A.UNEXPECTED_MESSAGE),
    "oversized record": (AlterRecord(0, lambda _: b"\x16\3\1\x48\1"), A.RECORD_OVERFLOW),
    "empty handshake record": (AlterRecord(0, lambda _: b"\x16\3\1\0\0"), A.UNEXPECTED_MESSAGE),
    "wrong change_cipher_spec": (AlterRecord(1, lambda _: b"\x14\3\3\0\1\2"), A.UNEXPECTED_MESSAGE),
    "early change_cipher_spec": (AlterRecord(0, lambda _: b"\x14\3\3\0\1\1"), A.UNEXPECTED_MESSAGE),
    "plaintext after the hello": (AlterRecord(2, lambda _: b"\x16\3\3\0\4\x14\0\0\0"), A.UNEXPECTED_MESSAGE),
    "data before finished": (AlterRecord(0, lambda _: b"\x17\3\3\0\4data"), A.UNEXPECTED_MESSAGE),
    "long alert": (AlterRecord(0, lambda _: b"\x15\3\3\0\3\2\0\0"), A.DECODE_ERROR),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_CLIENTS)
def test_server_refuses_a_hostile_client_with_the_alert_of_rfc_8446(name: str) -> None:
    act, alert = HOSTILE_CLIENTS[name]
    own = hostile.credential(certificates.client("billing"))
    tamper = Hostile(act)
    client = Client(replace(hostile.client_config(), credential=own), tamper=tamper)
    server = Server(replace(hostile.server_config(), client_auth=ClientAuth.REQUIRED))
    with pytest.raises(Violation) as caught:
        talk(client, server)
    assert alert_name(caught.value.alert) == alert_name(alert)
    assert tamper.has_acted
    with pytest.raises(PeerAlert) as answered:
        client.receive(server.data_to_send())
    assert answered.value.alert == alert


HOSTILE_SERVERS: dict[str, tuple[Act, AlertDescription]] = {
    "unoffered suite": (Alter(H.SERVER_HELLO, field(cipher_suite=0x1304)), A.ILLEGAL_PARAMETER),
    "another session id": (Alter(H.SERVER_HELLO, field(session_id=b"x" * 32)), A.ILLEGAL_PARAMETER),
    "compression": (Alter(H.SERVER_HELLO, field(compression_method=1)), A.ILLEGAL_PARAMETER),
    "legacy version": (Alter(H.SERVER_HELLO, field(legacy_version=0x0304)), A.ILLEGAL_PARAMETER),
    "TLS 1.2": (Alter(H.SERVER_HELLO, extension(X.SUPPORTED_VERSIONS, None)), A.PROTOCOL_VERSION),
    "no key_share": (Alter(H.SERVER_HELLO, extension(X.KEY_SHARE, None)), A.MISSING_EXTENSION),
    "unasked group": (
        Alter(H.SERVER_HELLO, extension(X.KEY_SHARE, bytes.fromhex("0017 0001 04"))), A.ILLEGAL_PARAMETER
    ),
    "unasked PSK": (Alter(H.SERVER_HELLO, extension(X.PRE_SHARED_KEY, b"\0\0")), A.UNSUPPORTED_EXTENSION),
    "misplaced extension": (
        Alter(H.SERVER_HELLO, extension(X.SIGNATURE_ALGORITHMS, b"\0\2\4\3")), A.ILLEGAL_PARAMETER
    ),
    "unasked ALPN": (Alter(H.ENCRYPTED_EXTENSIONS, extension(X.ALPN, b"\0\3\2h2")), A.UNSUPPORTED_EXTENSION),
    "key_share encrypted": (Alter(H.ENCRYPTED_EXTENSIONS, extension(X.KEY_SHARE, b"")), A.ILLEGAL_PARAMETER),
    "retry without wish": (
        Alter(H.SERVER_HELLO, lambda raw: extension(X.KEY_SHARE, None)(field(random=HELLO_RETRY_RANDOM)(raw))),
        A.ILLEGAL_PARAMETER,
    ),
    "retry for a group sent": (
        Alter(H.SERVER_HELLO, lambda raw: extension(X.KEY_SHARE, b"\0\x1d")(field(random=HELLO_RETRY_RANDOM)(raw))),
        A.ILLEGAL_PARAMETER,
    ),
    "no EncryptedExtensions": (Drop(H.ENCRYPTED_EXTENSIONS), A.UNEXPECTED_MESSAGE),
    "no certificate": (Drop(H.CERTIFICATE), A.UNEXPECTED_MESSAGE),
    "empty certificate": (Alter(H.CERTIFICATE, body(bytes(4))), A.DECODE_ERROR),
    "context": (Alter(H.CERTIFICATE, field(context=b"x")), A.ILLEGAL_PARAMETER),
    "no signature": (Drop(H.CERTIFICATE_VERIFY), A.UNEXPECTED_MESSAGE),
    "wrong signature": (Alter(H.CERTIFICATE_VERIFY, flip(-1)), A.DECRYPT_ERROR),
    "finished first": (Delay(H.CERTIFICATE_VERIFY, H.FINISHED), A.UNEXPECTED_MESSAGE),
    "wrong finished": (Alter(H.FINISHED, flip(10)), A.DECRYPT_ERROR),
    "ticket in the handshake": (Insert(H.FINISHED, b"\4\0\0\0"), A.UNEXPECTED_MESSAGE),
    "message across a key change": (Insert(H.SERVER_HELLO, b""), A.UNEXPECTED_MESSAGE),
    "ticket for ever": (Alter(H.NEW_SESSION_TICKET, field(lifetime=604801)), A.ILLEGAL_PARAMETER),
    "repeated record": (RepeatRecord(2), A.BAD_RECORD_MAC),
    "dropped record": (DropRecord(2), A.BAD_RECORD_MAC),
    "reordered records": (DelayRecord(2), A.BAD_RECORD_MAC),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_SERVERS)
def test_client_refuses_a_hostile_server_with_the_alert_of_rfc_8446(name: str) -> None:
    act, alert = HOSTILE_SERVERS[name]
    if name == "message across a key change":
        # The ServerHello's record ends with the beginning of another message.
        act = AlterRecord(0, lambda raw: _lengthened(raw, b"\x08\0"))
    client = Client(hostile.client_config())
    # Records small enough that the flight takes several.
    size = 300 if isinstance(act, RepeatRecord | DropRecord | DelayRecord) else 1 << 14
    server = Server(hostile.server_config(), tamper=Hostile(act, fragment_size=size))
    with pytest.raises(Violation) as caught:
        talk(client, server)
    assert alert_name(caught.value.alert) == alert_name(alert)


def _lengthened(raw: bytes, more: bytes) -> bytes:
    return raw[:3] + (len(raw) - 5 + len(more)).to_bytes(2) + raw[5:] + more


def test_a_ciphertext_of_padding_alone_is_refused() -> None:
    client, server = ends()
    talk(client, server)
    keys = client._channel.write_keys
    assert keys is not None
    with pytest.raises(Violation, match="no content type"):
        server.receive(keys.seal(0, b"").encode())


@pytest.mark.parametrize(
    ("misbehave", "alert"),
    [
        (lambda end: end.send_raw(ContentType.HANDSHAKE, b"\x18\0\0\1\2"), A.ILLEGAL_PARAMETER),
        (lambda end: end.send_raw(ContentType.HANDSHAKE, b"\x18\0\0\1\0" * 2), A.UNEXPECTED_MESSAGE),
        (lambda end: end.send_raw(ContentType.HANDSHAKE, b"\x18\0\0\2\0\0"), A.DECODE_ERROR),
        (lambda end: end.send_raw(ContentType.CHANGE_CIPHER_SPEC, b"\1"), A.UNEXPECTED_MESSAGE),
        (lambda end: end.send_raw(99, b"what"), A.UNEXPECTED_MESSAGE),
    ],
)
def test_misbehaviour_after_the_handshake_is_refused(
    misbehave: Callable[[Connection], None], alert: AlertDescription
) -> None:
    client, server = ends()
    talk(client, server)
    misbehave(client)
    with pytest.raises(Violation) as caught:
        server.receive(client.data_to_send())
    assert caught.value.alert == alert


def test_a_wrong_binder_is_refused() -> None:
    client, server = ends()
    talk(client, server)
    stolen = replace(client.sessions[-1], psk=bytes(32))
    with pytest.raises(Violation, match="binder") as caught:
        talk(Client(replace(client.config, session=stolen)), Server(server.config))
    assert caught.value.alert == A.DECRYPT_ERROR


def test_a_failed_connection_stays_failed() -> None:
    server = Server(hostile.server_config())
    with pytest.raises(Violation):
        server.receive(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(Violation):
        server.receive(b"")


def test_data_before_the_handshake_is_an_error_of_the_caller() -> None:
    client = Client(ClientConfig())
    with pytest.raises(RuntimeError, match="not complete"):
        client.send(b"too soon")


def test_hybrid_secret_is_both_parts_mlkem_first() -> None:
    mine = offer(NamedGroup.X25519MLKEM768)
    public, secret, parts = answer(NamedGroup.X25519MLKEM768, mine.public)
    assert mine.finish(public) == (secret, parts)
    assert (len(mine.public), len(public), len(secret)) == (1216, 1120, 64)
    assert [name for name, _ in parts] == ["ML-KEM-768 shared secret", "X25519 shared secret"]


def test_secrets_never_show_in_a_repr() -> None:
    client, server = ends()
    talk(client, server)
    session = client.sessions[-1]
    shown = repr(session) + repr(client.config) + repr(server.config) + repr(replace(client.config, session=session))
    assert session.psk.hex() not in shown
    assert repr(session.psk) not in shown
    assert repr(session.ticket) not in shown
    assert "PrivateKey" not in shown


@pytest.mark.parametrize("role", ["client", "server"])
def test_no_single_changed_byte_goes_unnoticed_or_breaks_out(role: str) -> None:
    """Whatever byte of a handshake is changed, an end refuses; nothing but HandshakeFailure ever comes out."""
    honest_client, honest_server = ends()
    honest_client.start()
    hello = honest_client.data_to_send()
    honest_server.receive(hello)
    flight = honest_server.data_to_send()
    victim_bytes = hello if role == "server" else flight
    for place in range(0, len(victim_bytes), 3):
        changed = flip(place)(victim_bytes)
        client, server = ends()
        try:
            if role == "server":
                server.receive(changed)
            else:
                client.start()
                client.receive(changed)
        except HandshakeFailure:
            continue
        # A changed hello may be a good hello of somebody else; a changed flight never completes a handshake.
        assert client.state is not State.CONNECTED
        assert server.state is not State.CONNECTED


def test_records_split_anywhere_come_out_whole() -> None:
    buffer = RecordBuffer()
    record = Record(ContentType.HANDSHAKE, 0x0303, b"abc")
    found = []
    for byte in record.encode() * 2:
        buffer.feed(bytes([byte]))
        found += list(buffer.records())
    assert found == [record, record]
    assert buffer.is_empty


def test_an_optional_client_certificate_may_be_missing() -> None:
    client, server = ends(server_changes={"client_auth": ClientAuth.OPTIONAL})
    talk(client, server)
    assert server.client_chain == ()
    assert server.state is State.CONNECTED


def test_server_without_a_fitting_certificate_says_handshake_failure() -> None:
    pair = certificates.server("localhost", key_type="RSA 2048")
    config = ServerConfig(credentials=(hostile.credential(pair),))
    client = Client(replace(hostile.client_config(), signature_schemes=(0x0403,)))
    with pytest.raises(Violation) as caught:
        talk(client, Server(config))
    assert caught.value.alert == A.HANDSHAKE_FAILURE
