"""What our client and our server refuse of each other: every breach of the rules, with the alert of RFC 8446 for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support import certificates, hostile
from tests.support.tampering import (
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
from tests.support.tls13_pairs import A, H, X, ends, talk
from tlstunnel.tools.tls13.client import Client
from tlstunnel.tools.tls13.client_config import ChainVerdict
from tlstunnel.tools.tls13.connection import Connection
from tlstunnel.tools.tls13.events import (
    State,
)
from tlstunnel.tools.tls13.failure import HandshakeFailure, PeerAlert, Violation
from tlstunnel.tools.tls13.messages import HELLO_RETRY_RANDOM
from tlstunnel.tools.tls13.names import (
    AlertDescription,
    ContentType,
    alert_name,
)
from tlstunnel.tools.tls13.server import Server
from tlstunnel.tools.tls13.server_config import ClientAuth


def test_a_refused_chain_ends_the_handshake_with_the_verifiers_alert() -> None:
    def refuse(chain: tuple[bytes, ...]) -> ChainVerdict:
        raise Violation(A.UNKNOWN_CA, "nobody knows this CA")

    client, server = ends({"verify": refuse})
    with pytest.raises(Violation, match="nobody knows this CA"):
        talk(client, server)
    with pytest.raises(PeerAlert) as caught:
        server.receive(client.data_to_send())
    assert caught.value.alert == A.UNKNOWN_CA


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
