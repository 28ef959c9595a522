"""Our client and our server with each other, in memory: what they agree on, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support import certificates, hostile
from tests.support.tampering import (
    Hostile,
)
from tests.support.tls13_pairs import A, ends, talk
from tlstunnel.tools.tls13.client import Client
from tlstunnel.tools.tls13.client_config import ChainVerdict, ClientConfig
from tlstunnel.tools.tls13.events import (
    ApplicationData,
    Closed,
    HandshakeComplete,
    PeerKeysUpdated,
    State,
    TicketReceived,
)
from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.keyexchange import answer, offer, supported_groups
from tlstunnel.tools.tls13.names import (
    CipherSuite,
    ContentType,
    NamedGroup,
)
from tlstunnel.tools.tls13.server import Server
from tlstunnel.tools.tls13.server_config import ClientAuth, ServerConfig
from tlstunnel.tools.tls13.wire import Record, RecordBuffer


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
