"""Our client and our server produce the handshakes of RFC 8448 byte for byte.

Each test gives an end what the trace's end had (random values, keys, tickets, and the signatures, which RSA-PSS and
ECDSA make from random numbers of their own), feeds it the records of the other end, and compares what it sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tlstunnel.tools.tls13 import signature
from tlstunnel.tools.tls13.client import Client
from tlstunnel.tools.tls13.client_config import ClientConfig
from tlstunnel.tools.tls13.events import ApplicationData, Closed, Event, HandshakeComplete, TicketReceived
from tlstunnel.tools.tls13.extension_block import Extension
from tlstunnel.tools.tls13.messages import Certificate
from tlstunnel.tools.tls13.names import CipherSuite, NamedGroup, SignatureScheme
from tlstunnel.tools.tls13.notes import KeysNote, MessageNote, Note, SecretNote, SharedSecretNote
from tlstunnel.tools.tls13.server import Server
from tlstunnel.tools.tls13.server_config import ClientAuth, ServerConfig
from tlstunnel.tools.tls13.session import Session

GOLDEN = Path(__file__).parent.parent / "golden" / "rfc8448"
GROUPS = (0x001D, 0x0017, 0x0018, 0x0019, 0x0100, 0x0101, 0x0102, 0x0103, 0x0104)
SCHEMES = tuple(
    int(each, 16) for each in "0403 0503 0603 0203 0804 0805 0806 0401 0501 0601 0201 0402 0502 0602 0202".split()
)
SUITES = (0x1301, 0x1303, 0x1302)
RENEGOTIATION_INFO = Extension(0xFF01, b"\0")
SESSION_TICKET = Extension(0x0023, b"")
RECORD_SIZE_LIMIT = Extension(0x001C, b"\x40\x01")
# The order in which the traces' client, NSS, writes its extensions.
ORDER = (0, 0xFF01, 0x0A, 0x23, 0x33, 0x2A, 0x2B, 0x0D, 0x2C, 0x2D, 0x1C, 0x15, 0x29)


def load(name: str) -> dict[str, bytes]:
    lines = (GOLDEN / f"{name}.txt").read_text().splitlines()
    return {key: bytes.fromhex(value) for key, value in (line.split(" = ") for line in lines)}


CERTIFICATES = load("certificates")


class Script:
    """Random values in the order in which each purpose asks for them."""

    def __init__(self, **values: bytes | list[bytes]) -> None:
        self._values = {
            name.replace("_", " "): list(value) if isinstance(value, list) else [value]
            for name, value in values.items()
        }

    def __call__(self, count: int, purpose: str) -> bytes:
        return self._values[purpose.replace("_", " ")].pop(0)


@dataclass(frozen=True)
class TracedCredential(signature.Credential):
    """Gives the trace's signature, after checking that it is one over the content we would sign."""

    signature: bytes = b""

    def choose_scheme(self, offered: object) -> SignatureScheme | None:
        key = signature.load_public_key(self.chain[0])
        is_rsa = isinstance(key, rsa.RSAPublicKey)
        return SignatureScheme.RSA_PSS_RSAE_SHA256 if is_rsa else SignatureScheme.ECDSA_SECP256R1_SHA256

    def sign(self, scheme: SignatureScheme, content: bytes) -> bytes:
        signature.verify(scheme, signature.load_public_key(self.chain[0]), content, self.signature)
        return self.signature


def credential(certificate: bytes, made: bytes) -> TracedCredential:
    unused = ec.generate_private_key(ec.SECP256R1())
    return TracedCredential((certificate,), unused, made)


def client_config(**changes: object) -> ClientConfig:
    values: dict[str, object] = {
        "server_name": "server",
        "cipher_suites": SUITES,
        "groups": GROUPS,
        "key_shares": (NamedGroup.X25519,),
        "signature_schemes": SCHEMES,
        "compatibility_mode": False,
        "pad_hello": True,
        "extra_extensions": (RENEGOTIATION_INFO, RECORD_SIZE_LIMIT),
        "extension_order": ORDER,
        **changes,
    }
    return ClientConfig(**values)  # type: ignore[arg-type]


def server_config(groups_hex: str = "0012001d00170018001901000101010201030104", **changes: object) -> ServerConfig:
    values: dict[str, object] = {
        "groups": (NamedGroup.X25519,),
        "cipher_suites": SUITES,
        "signature_schemes": SCHEMES,
        "tickets": 0,
        "encrypted_extensions": (Extension(0x0A, bytes.fromhex(groups_hex)), RECORD_SIZE_LIMIT),
        **changes,
    }
    return ServerConfig(**values)  # type: ignore[arg-type]


def scripts(trace: dict[str, bytes]) -> tuple[Script, Script]:
    client = Script(
        client_random=trace["client_random"],
        session_id=trace.get("session_id", b""),
        x25519_private_key=trace["client_private"],
        secp256r1_private_key=trace.get("client_private_p256", b""),
    )
    server = Script(
        server_random=trace["server_random"],
        x25519_private_key=trace.get("server_private", b""),
        secp256r1_private_key=trace.get("server_private_p256", b""),
        ticket=trace.get("ticket", b""),
        ticket_age_add=trace.get("ticket_age_add", b""),
    )
    return client, server


class Notes(list[Note]):
    """A witness that keeps what it is told."""

    def __call__(self, note: Note) -> None:
        self.append(note)

    def secret(self, name: str) -> bytes:
        return next(note.value for note in self if isinstance(note, SecretNote) and note.name == name)


def session_of_section_3() -> Session:
    trace = load("simple")
    suite, age_add = CipherSuite.TLS_AES_128_GCM_SHA256, int.from_bytes(trace["ticket_age_add"])
    return Session(trace["ticket"], trace["resumption_psk"], suite, age_add, 30, 1024)


def close_and_compare(trace: dict[str, bytes], client: Client, server: Server) -> None:
    client.close()
    assert client.data_to_send() == trace["record_client_close"]
    assert server.receive(trace["record_client_close"]) == [Closed()]
    server.close()
    assert server.data_to_send() == trace["record_server_close"]
    assert client.receive(trace["record_server_close"]) == [Closed()]


def exchange_data(trace: dict[str, bytes], client: Client, server: Server) -> None:
    client.send(trace["data"])
    assert client.data_to_send() == trace["record_client_data"]
    assert server.receive(trace["record_client_data"]) == [ApplicationData(trace["data"])]
    server.send(trace["data"])
    assert server.data_to_send() == trace["record_server_data"]
    assert client.receive(trace["record_server_data"]) == [ApplicationData(trace["data"])]


def start(trace: dict[str, bytes], client: Client) -> None:
    client.start()
    assert client.data_to_send() == trace["record_client_hello"]


def answer(trace: dict[str, bytes], server: Server, received: bytes) -> list[Event]:
    events = server.receive(received)
    assert server.data_to_send() == trace["record_server_hello"] + trace["record_server_flight"]
    return events


def finish(trace: dict[str, bytes], client: Client, server: Server) -> None:
    # Record by record, as they came, and the client's flight only then.
    assert client.receive(trace["record_server_hello"]) == []
    assert client.receive(trace["record_server_flight"]) == [HandshakeComplete()]
    assert client.data_to_send() == trace["record_client_flight"]
    assert HandshakeComplete() in server.receive(trace["record_client_flight"])


def test_simple_1rtt_handshake_of_section_3_is_reproduced() -> None:
    trace = load("simple")
    randoms, server_randoms = scripts(trace)
    config = client_config(extra_extensions=(RENEGOTIATION_INFO, SESSION_TICKET, RECORD_SIZE_LIMIT))
    client = Client(config, entropy=randoms)
    made = credential(CERTIFICATES["rsa"], trace["server_signature"])
    settings = server_config(credentials=(made,), tickets=1, ticket_lifetime=30, max_early_data=1024)
    server = Server(settings, entropy=server_randoms)
    start(trace, client)
    answer(trace, server, trace["record_client_hello"])
    finish(trace, client, server)
    assert server.data_to_send() == trace["record_ticket"]
    assert client.receive(trace["record_ticket"]) == [TicketReceived()]
    assert client.sessions == [session_of_section_3()]
    assert list(settings.sessions.values()) == client.sessions
    exchange_data(trace, client, server)
    close_and_compare(trace, client, server)


@pytest.mark.parametrize("role", ["client", "server"])
def test_every_secret_of_section_3_is_reproduced_by_both_ends(role: str) -> None:
    trace = load("simple")
    notes = Notes()
    randoms, server_randoms = scripts(trace)
    config = client_config(extra_extensions=(RENEGOTIATION_INFO, SESSION_TICKET, RECORD_SIZE_LIMIT))
    if role == "client":
        client = Client(config, entropy=randoms, witness=notes)
        client.start()
        client.receive(trace["record_server_hello"] + trace["record_server_flight"] + trace["record_ticket"])
    else:
        made = credential(CERTIFICATES["rsa"], trace["server_signature"])
        server = Server(server_config(credentials=(made,), tickets=1), entropy=server_randoms, witness=notes)
        server.receive(trace["record_client_hello"])
        server.receive(trace["record_client_flight"])
    for name, expected in {
        "Early Secret": "early_secret",
        "derived from Early Secret": "derived_from_early",
        "Handshake Secret": "handshake_secret",
        "client_handshake_traffic_secret": "client_handshake_traffic",
        "server_handshake_traffic_secret": "server_handshake_traffic",
        "derived from Handshake Secret": "derived_from_handshake",
        "Master Secret": "master_secret",
        "client_application_traffic_secret_0": "client_application_traffic",
        "server_application_traffic_secret_0": "server_application_traffic",
        "exporter_master_secret": "exporter_master",
        "resumption_master_secret": "resumption_master",
        "PSK of the ticket": "resumption_psk",
    }.items():
        assert notes.secret(name) == trace[expected], name
    shared = next(note for note in notes if isinstance(note, SharedSecretNote))
    assert shared.value == trace["shared_secret"]
    keys = next(
        note for note in notes if isinstance(note, KeysNote) and note.secret_name == "server_handshake_traffic_secret"
    )
    assert (keys.key, keys.iv) == (trace["server_handshake_key"], trace["server_handshake_iv"])


def test_resumed_handshake_with_early_data_of_section_4_is_reproduced() -> None:
    trace = load("resumed")
    session = session_of_section_3()
    randoms, server_randoms = scripts(trace)
    config = client_config(session=session, ticket_age_ms=6, early_data=trace["early_data"])
    client = Client(config, entropy=randoms)
    server = Server(server_config(max_early_data=1024, sessions={session.ticket: session}), entropy=server_randoms)
    client.start()
    sent = trace["record_client_hello"] + trace["record_early_data"]
    assert client.data_to_send() == sent
    assert answer(trace, server, sent) == [ApplicationData(trace["early_data"], is_early=True)]
    finish(trace, client, server)
    assert client.is_resumed
    assert client.early_data_accepted
    assert server.is_resumed
    exchange_data(trace, client, server)
    close_and_compare(trace, client, server)


def test_hello_retry_request_of_section_5_is_reproduced() -> None:
    trace = load("retry")
    randoms, server_randoms = scripts(trace)
    client = Client(client_config(groups=(0x1D, 0x17, 0x18)), entropy=randoms)
    made = credential(CERTIFICATES["rsa"], trace["server_signature"])
    settings = server_config(
        "000600170018001d", groups=(NamedGroup.SECP256R1,), credentials=(made,), cookie=trace["cookie"]
    )
    server = Server(settings, entropy=server_randoms)
    start(trace, client)
    assert server.receive(trace["record_client_hello"]) == []
    assert server.data_to_send() == trace["record_retry"]
    assert client.receive(trace["record_retry"]) == []
    assert client.data_to_send() == trace["record_client_hello_2"]
    answer(trace, server, trace["record_client_hello_2"])
    finish(trace, client, server)
    assert client.was_retried
    close_and_compare(trace, client, server)


def client_certificate(trace: dict[str, bytes]) -> bytes:
    """Section 6's client certificate is on the wire only encrypted, so a server of ours reads it first."""
    notes = Notes()
    made = credential(CERTIFICATES["ecdsa"], trace["server_signature"])
    settings = server_config(credentials=(made,), client_auth=ClientAuth.REQUIRED, acknowledge_name=True)
    server = Server(settings, entropy=scripts(trace)[1], witness=notes)
    server.receive(trace["record_client_hello"])
    server.receive(trace["record_client_flight"])
    certificates = [note.message for note in notes if isinstance(note, MessageNote)]
    found = [each for each in certificates if isinstance(each, Certificate)][-1]
    return found.entries[0].data


def test_client_authentication_of_section_6_is_reproduced() -> None:
    trace = load("client_auth")
    certificate = client_certificate(trace)
    assert x509.load_der_x509_certificate(certificate).subject.rfc4514_string() == "CN=client"
    randoms, server_randoms = scripts(trace)
    own = credential(certificate, trace["client_signature"])
    client = Client(client_config(credential=own), entropy=randoms)
    made = credential(CERTIFICATES["ecdsa"], trace["server_signature"])
    settings = server_config(credentials=(made,), client_auth=ClientAuth.REQUIRED)
    server = Server(settings, entropy=server_randoms)
    start(trace, client)
    answer(trace, server, trace["record_client_hello"])
    finish(trace, client, server)
    assert server.client_chain == (certificate,)
    close_and_compare(trace, client, server)


def test_middlebox_compatibility_mode_of_section_7_is_reproduced() -> None:
    trace = load("compatibility")
    randoms, server_randoms = scripts(trace)
    client = Client(client_config(compatibility_mode=True), entropy=randoms)
    made = credential(CERTIFICATES["rsa"], trace["server_signature"])
    server = Server(server_config(credentials=(made,)), entropy=server_randoms)
    start(trace, client)
    answer(trace, server, trace["record_client_hello"])
    finish(trace, client, server)
    close_and_compare(trace, client, server)
