"""Messages and stories: every message survives the trip to bytes and back, and no stranger's bytes break a story."""

from __future__ import annotations

import json

import pytest
from hypothesis import strategies as st

from tests.support import certificates, hostile_certificates
from tests.support.fuzzing import fuzz
from tlstunnel.tools.tls13 import extensions as ext
from tlstunnel.tools.tls13.client_config import ChainVerdict, ClientConfig
from tlstunnel.tools.tls13.describe import describe
from tlstunnel.tools.tls13.extension_block import Extension
from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.messages import (
    Certificate,
    CertificateEntry,
    CertificateRequest,
    CertificateVerify,
    ClientHello,
    EncryptedExtensions,
    EndOfEarlyData,
    Finished,
    KeyUpdate,
    Message,
    NewSessionTicket,
    ServerHello,
    decode_message,
)
from tlstunnel.tools.tls13.names import ExtensionType, HandshakeType, NamedGroup, group_name, is_grease, suite_name
from tlstunnel.tools.tls13.narrate import Narrator, TaggedNote
from tlstunnel.tools.tls13.notes import CheckNote, Role, SecretNote
from tlstunnel.tools.tls13.rehearsal import SERVER_NAME, make_cast, rehearse
from tlstunnel.tools.tls13.schedule import Transcript, hkdf_label
from tlstunnel.tools.tls13.server_config import ServerConfig
from tlstunnel.tools.tls13.signature import load_public_key
from tlstunnel.tools.tls13.story import Story

_EXTENSIONS = (
    ext.server_name("server.example"),
    ext.groups((0x11EC, 0x1D, 0x0A0A, 0x9999)),
    ext.signature_algorithms((0x0403, 0x0905)),
    ext.client_versions((0x0304, 0x0303)),
    ext.client_shares((ext.KeyShare(0x1D, bytes(32)),)),
    ext.psk_modes(),
    ext.alpn(("h2", "http/1.1")),
    ext.cookie(b"cookie"),
    Extension(0x2A2A, b""),
    Extension(ExtensionType.PADDING, bytes(5)),
    ext.OfferedPSK(((b"ticket", 7),), (bytes(32),)).encode(),
)
MESSAGES: tuple[Message, ...] = (
    ClientHello(bytes(32), b"session", (0x1301, 0x1A1A), _EXTENSIONS),
    ServerHello(bytes(32), b"", 0x1303, (ext.single(ExtensionType.SUPPORTED_VERSIONS, 0x0304),)),
    EncryptedExtensions((Extension(ExtensionType.SERVER_NAME, b""),)),
    CertificateRequest(b"", (ext.signature_algorithms((0x0403,)), ext.certificate_authorities((b"\x30\x01\x02",)))),
    Certificate(b"", (CertificateEntry(b"not a certificate", (Extension(5, b"staple"),)),)),
    CertificateVerify(0x0804, b"signature"),
    Finished(bytes(32)),
    EndOfEarlyData(),
    NewSessionTicket(7200, 1, b"\0\1", b"ticket", (Extension(ExtensionType.EARLY_DATA, bytes(4)),)),
    KeyUpdate(True),
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_survives_the_trip_to_bytes_and_back(message: Message) -> None:
    assert decode_message(message.encode()) == message
    assert all(field.value for field in describe(message))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_truncated_or_lengthened_message_is_a_violation(message: Message) -> None:
    raw = message.encode()
    if isinstance(message, Finished):
        return  # its length is the hash's, which only the receiver knows
    for length in range(4, len(raw)):
        try:
            decoded = decode_message(raw[:length])
        except Violation:
            continue
        # TLS 1.2 allows hellos without extensions, so a cut exactly there is a message.
        assert isinstance(decoded, ClientHello | ServerHello)
        assert decoded.extensions == ()
    with pytest.raises(Violation):
        decode_message(raw + b"\0")


def test_an_extension_twice_is_a_violation() -> None:
    twice = EncryptedExtensions((Extension(10, b""), Extension(10, b"")))
    with pytest.raises(Violation, match="supported_groups twice"):
        decode_message(twice.encode())


@fuzz(st.sampled_from(list(HandshakeType)), st.binary(max_size=200), examples=300)
def test_any_bytes_are_a_message_or_a_violation_and_can_be_described(kind: HandshakeType, data: bytes) -> None:
    try:
        message = decode_message(bytes([kind]) + len(data).to_bytes(3) + data)
    except Violation:
        return
    describe(message)


@fuzz(st.sampled_from([each.type for each in _EXTENSIONS]), st.binary(max_size=60), examples=300)
def test_any_extension_can_be_described_in_either_hello(kind: int, data: bytes) -> None:
    hellos = (
        ClientHello(bytes(32), b"", (0x1301,), (Extension(kind, data),)),
        ServerHello(bytes(32), b"", 0x1301, (Extension(kind, data),)),
    )
    for hello in hellos:
        for field in describe(hello):
            assert field.value.isprintable()


@fuzz(st.integers(0, 400), st.integers(0, 255), examples=300)
def test_any_damaged_certificate_can_be_described_and_is_refused_with_an_alert(place: int, value: int) -> None:
    data = bytearray(certificates.server("localhost").leaf_der)
    data[place % len(data)] = value
    describe(Certificate(b"", (CertificateEntry(bytes(data)),)))
    try:
        load_public_key(bytes(data))
    except Violation:
        return


def test_a_strangers_names_cannot_steer_the_terminal() -> None:
    name = (hostile_certificates.CN, "evil\x1b[2J\u202e")
    certificate = hostile_certificates.certificate(name)
    shown = "".join(field.value for field in describe(Certificate(b"", (CertificateEntry(certificate),))))
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def notes_of(verdict: ChainVerdict | None = None, **options: bool) -> list[TaggedNote]:
    cast = make_cast()
    config = ClientConfig(server_name=SERVER_NAME, groups=(NamedGroup.X25519,), verify=lambda _: verdict)  # type: ignore[arg-type,return-value]
    if verdict is None:
        config = ClientConfig(server_name=SERVER_NAME, groups=(NamedGroup.X25519,))
    return rehearse(config, ServerConfig(credentials=(cast.server,)), **options)[0]


def test_a_story_refuses_to_be_told_when_the_ends_disagree() -> None:
    notes = notes_of()
    place = next(at for at, (role, note) in enumerate(notes) if role is Role.SERVER and isinstance(note, SecretNote))
    role, note = notes[place]
    assert isinstance(note, SecretNote)
    notes[place] = role, SecretNote(note.name, note.formula, note.inputs, b"something else")
    with pytest.raises(RuntimeError, match="different secrets"):
        Narrator().tell(notes)


def test_a_check_that_did_not_pass_stands_with_its_message() -> None:
    narrator = Narrator()
    narrator.tell(notes_of(ChainVerdict(False, "nobody knows this CA")))
    step = next(step for step in narrator.steps if step.title == "Server's Certificate")
    assert [(check.passed, check.text) for check in step.checks] == [(False, "nobody knows this CA")]


def test_every_check_is_told() -> None:
    notes = notes_of()
    narrator = Narrator()
    narrator.tell(notes)
    checks = [note for _, note in notes if isinstance(note, CheckNote)]
    assert len(checks) == 3
    assert sum(len(step.checks) for step in narrator.steps) == len(checks)


def test_a_story_becomes_json_with_bytes_as_hexadecimal() -> None:
    narrator = Narrator()
    narrator.tell(notes_of(update_keys=True))
    told = Story("a title", "here", {"version": "TLS 1.3"}, narrator.steps, narrator.records).as_json()
    again = json.loads(json.dumps(told))
    assert again["steps"][0]["bytes"].startswith("01")
    assert again["steps"][2]["derivations"][0]["inputs"][0]["name"] == "salt (0)"
    assert {step["kind"] for step in again["steps"]} == {"message", "secrets", "record"}


def test_a_synthetic_message_stands_for_the_first_hello_after_a_retry() -> None:
    from cryptography.hazmat.primitives import hashes

    transcript = Transcript()
    transcript.add("ClientHello", b"\1\0\0\0")
    before = transcript.hash(hashes.SHA256())
    transcript.fold(hashes.SHA256())
    expected = Transcript()
    expected.add("message_hash", b"\xfe\0\0\x20" + before)
    assert transcript.hash(hashes.SHA256()) == expected.hash(hashes.SHA256())


def test_the_label_of_hkdf_expand_label_is_that_of_rfc_8446() -> None:
    assert hkdf_label("key", b"", 16) == bytes.fromhex("0010 09 746c733133206b6579 00")


def test_names_of_numbers_nobody_knows() -> None:
    assert is_grease(0x2A2A)
    assert not is_grease(0x2A3A)
    assert group_name(0x2A2A) == "GREASE 0x2a2a"
    assert group_name(0x11EC) == "X25519MLKEM768"
    assert suite_name(0x4242) == "unknown 0x4242"


def test_hostile_peers_are_reproducible_by_name() -> None:
    from tests.support.tampering import (
        Alter,
        Drop,
        Hostile,
        append,
        body,
        claim_length,
        cut,
        extension,
        field,
        flip,
    )

    raw = Finished(b"1234").encode()
    assert flip(-1)(raw) == raw[:-1] + b"5"
    assert body(b"x")(raw) == b"\x14\0\0\1x"
    assert cut(1)(raw) == b"\x14\0\0\x03123"
    assert append(b"5")(raw) == b"\x14\0\0\x0512345"
    assert claim_length(9)(raw) == b"\x14\0\0\x091234"
    assert field(verify_data=b"")(raw) == b"\x14\0\0\0"
    with pytest.raises(TypeError, match="no extensions"):
        extension(10, b"")(raw)
    tamper = Hostile(Drop(HandshakeType.FINISHED), Alter(HandshakeType.FINISHED, body(b"")))
    assert [tamper.messages(raw) for _ in range(3)] == [[], [b"\x14\0\0\0"], [raw]]
    assert tamper.has_acted


def test_a_name_whose_text_is_of_no_known_asn1_type_is_described_as_damaged_not_raised() -> None:
    whole = certificates.server("localhost").leaf_der
    tag = whole.index(b"\x0c")  # the first UTF8String: a part of the issuer's name
    for value in range(256):
        data = whole[:tag] + bytes([value]) + whole[tag + 1 :]
        (*_, shown) = describe(Certificate(b"", (CertificateEntry(data),)))
        assert shown.value.isprintable()
