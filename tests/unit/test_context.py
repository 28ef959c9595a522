"""Contexts: what OpenSSL refuses, what survives a renewal, what ends with a change of trust, and what is negotiated."""

from __future__ import annotations

import contextlib
import gc
import pickle
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from tests.support import certificates, material_files, memory, mldsa_keys
from tests.support.wire_peers import client_context, server_context
from tlstunnel._openssl import TLSError
from tlstunnel.access.policy import Policy
from tlstunnel.address import parse_listen, parse_target
from tlstunnel.config.model import ALPNMismatch, CertificateFiles, ClientAuth, Mode, Service, TargetTLS, TLSSettings
from tlstunnel.outcome import CloseReason
from tlstunnel.tls import context as contexts
from tlstunnel.tls.ciphers import settings_warnings, unusable_ciphers
from tlstunnel.tls.context import ContextError, Objection, check_settings
from tlstunnel.tls.store import Material, ServiceContexts
from tlstunnel.tools.probe.certificates import judge
from tlstunnel.x509.checks import crl_problems
from tlstunnel.x509.material import Credential, load_ca, load_credential, load_crls
from tlstunnel.x509.passphrase import PassphraseSource


def credential(pair: certificates.Pair) -> Credential:
    return load_credential(CertificateFiles(certificate=pair.certificate, key=pair.key), PassphraseSource({}))


def our_credential(**options: Any) -> Credential:
    return credential(certificates.server("localhost", "127.0.0.1", **options))


CA = load_ca(certificates.ca().certificate)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ciphers", "NO-SUCH-CIPHER"),
        ("ciphers", "ÜMLAUT"),
        ("ciphersuites", "TLS_NO_SUCH_SUITE"),
        ("groups", "X25519:no-such-group"),
        ("groups", "ÜMLAUT"),
    ],
)
def test_what_openssl_refuses_is_named_with_its_key_and_value(key: str, value: str) -> None:
    settings = replace(TLSSettings(), **{key: value})
    (error,) = check_settings(settings)
    assert error.key == key
    assert value in str(error)
    assert "\n" not in str(error)
    with pytest.raises(ContextError):
        contexts.client_context(settings, CA)


def test_everything_that_is_refused_is_reported_together() -> None:
    settings = TLSSettings(ciphers="x", ciphersuites="x", groups="x", min_version="1.3", max_version="1.2")
    assert [error.key for error in check_settings(settings)] == ["ciphers", "ciphersuites", "groups", "min_version"]


def test_the_defaults_are_good_settings() -> None:
    assert check_settings(TLSSettings()) == []


KEY_TYPES = [
    "RSA 2048", "ECDSA P-256", "ECDSA P-384", "ECDSA P-521", "Ed25519", "Ed448", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87",
]  # fmt: skip


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_every_kind_of_key_shakes_hands_with_ourselves(key_type: str) -> None:
    server = contexts.server_context(TLSSettings(), [our_credential(key_type=key_type)])
    client = contexts.client_context(TLSSettings(), CA)
    ends = memory.engine_of(server), memory.engine_of(client, is_server=False)
    ends[1].expect("localhost", is_ip=False, send_name="localhost")
    assert shake_engines(*ends)
    assert ends[1].peer_certificate() == certificates.server("localhost", "127.0.0.1", key_type=key_type).leaf_der
    for end in ends:
        end.free()


@pytest.mark.parametrize("is_encrypted", [False, True])
@pytest.mark.parametrize("form", mldsa_keys.FORMS)
@pytest.mark.parametrize("key_type", [name for name in KEY_TYPES if name.startswith("ML-DSA")])
def test_a_post_quantum_key_shakes_hands_in_every_form_it_may_be_written_in(
    key_type: str, form: str, is_encrypted: bool, tmp_path: Path
) -> None:
    pair = certificates.server("localhost", key_type=key_type)
    der = mldsa_keys.pkcs8(pair.private_key, form)
    place = material_files.Place(tmp_path)
    written = mldsa_keys.encrypted(der, "secret") if is_encrypted else mldsa_keys.pem(der)
    passphrases = PassphraseSource({"TLSTUNNEL_KEY_PASSPHRASE": "secret"})
    read = load_credential(place.pair(pair.certificate, written), passphrases)
    assert read.key_type == key_type
    ends = (
        memory.engine_of(contexts.server_context(TLSSettings(), [read])),
        memory.engine_of(contexts.client_context(TLSSettings(), CA), is_server=False),
    )
    ends[1].expect("localhost", is_ip=False, send_name="localhost")
    assert shake_engines(*ends)
    for end in ends:
        end.free()


def shake_engines(server: Any, client: Any) -> bool:
    """A handshake between two engines of ours; whether both are done."""
    done = [False, client.handshake(0)]
    for _ in range(6):
        for number, (source, sink) in enumerate(((client, server), (server, client))):
            wire = bytearray()

            def take(data: Any, _flags: int, wire: bytearray = wire) -> int:
                wire.extend(bytes(data))
                return len(data)

            source.flush(take)
            for at in range(0, len(wire), memory.RECORD):
                piece = wire[at : at + memory.RECORD]
                memory.SCRATCH.wire[: len(piece)] = piece
                if not done[number]:
                    done[number] = sink.handshake(len(piece))
    return all(done)


SHOWN: dict[str, Any] = {
    "good": (lambda: certificates.server("localhost"), certificates.ca),
    "good below an intermediate": (
        lambda: certificates.server("localhost", through_intermediate=True), certificates.ca,
    ),
    "good, self-signed": (lambda: certificates.server("localhost", self_signed=True),) * 2,
    "only the intermediate is trusted": (
        lambda: certificates.server("localhost", through_intermediate=True), certificates.intermediate,
    ),
    "another CA": (lambda: certificates.server("localhost"), lambda: certificates.ca("another CA")),
    "self-signed": (lambda: certificates.server("localhost", self_signed=True), certificates.ca),
    "another name": (lambda: certificates.server("example.org"), certificates.ca),
    "a common name": (lambda: certificates.issue("localhost"), certificates.ca),
    "for clients": (lambda: certificates.server("localhost", purpose="client"), certificates.ca),
    "expired": (lambda: certificates.expired("localhost"), certificates.ca),
    "not valid yet": (lambda: certificates.not_yet_valid("localhost"), certificates.ca),
    "under a weak CA": (
        lambda: certificates.server("localhost", under=certificates.intermediate(name="weak", key_type="RSA 1024")),
        certificates.ca,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SHOWN)
def test_what_probe_says_of_a_chain_is_what_a_handshake_decides(case: str, tmp_path: Path) -> None:
    pair, ca = (make() for make in SHOWN[case])
    chain = certificates.pem(pair.leaf, *pair.chain)
    credential = load_credential(material_files.Place(tmp_path).pair(chain, pair.key), PassphraseSource())
    ends = (
        memory.engine_of(contexts.server_context(TLSSettings(), [credential])),
        memory.engine_of(contexts.client_context(TLSSettings(), load_ca(ca.certificate)), is_server=False),
    )
    ends[1].expect("localhost", is_ip=False, send_name="localhost")
    try:
        is_accepted = shake_engines(*ends)
    except TLSError:
        is_accepted = False
    for end in ends:
        end.free()
    shown = [credential.certificate_der, *credential.chain_der]
    found = judge(shown, [ca.leaf], host="localhost", staple=None, versions=[], now=datetime.now(UTC))
    assert found.verifies is is_accepted is case.startswith("good"), found.problems
    assert found.verifies is not bool(found.problems)


def test_what_is_offered_is_post_quantum_first_and_a_server_without_it_needs_no_second_round_trip() -> None:
    client = memory.engine_of(contexts.client_context(TLSSettings(), CA), is_server=False)
    client.expect("localhost", is_ip=False, send_name="localhost")
    made = memory.Outcome(client, memory.Peer(server_context(), is_server=True))
    client.handshake(0)
    made.to_peer()
    made.peer.step()
    assert made.from_peer(client.handshake), "the server asked for another key share"
    client.free()


# Certificates at the door.


def client_pair(name: str = "billing") -> certificates.Pair:
    return certificates.client(name)


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_required_means_required_and_optional_means_optional(version: str) -> None:
    for auth, pair, is_good in (
        (ClientAuth.REQUIRED, client_pair(), True),
        (ClientAuth.REQUIRED, None, False),
        (ClientAuth.REQUIRED, certificates.client("billing", authority="another CA"), False),
        (ClientAuth.OPTIONAL, client_pair(), True),
        (ClientAuth.OPTIONAL, None, True),
        (ClientAuth.OPTIONAL, certificates.client("billing", authority="another CA"), False),
        (ClientAuth.NONE, client_pair(), True),
    ):
        context = contexts.server_context(TLSSettings(), [our_credential()], client_auth=auth, client_ca=CA)
        made = memory.shake(memory.engine_of(context), memory.Peer(client_context(version, pair), name="localhost"))
        assert (made.error is None) is is_good, (auth, pair)
        if is_good and pair is not None and auth is not ClientAuth.NONE:
            assert made.engine.peer_certificate() == pair.leaf_der
        made.engine.free()


def test_a_revoked_client_is_refused_and_the_others_are_not() -> None:
    crls = load_crls(certificates.crl(client_pair("revoked").leaf))
    for name, is_good in (("revoked", False), ("billing", True)):
        context = contexts.server_context(
            TLSSettings(), [our_credential()], client_auth=ClientAuth.REQUIRED, client_ca=CA, crls=crls
        )
        made = memory.shake(memory.engine_of(context), memory.Peer(client_context(pair=client_pair(name))))
        assert (made.error is None) is is_good
        made.engine.free()


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_the_list_of_a_ca_that_only_the_peer_sends_is_used(version: str) -> None:
    """So `check` must not say that it is of no use."""
    parent = certificates.intermediate()
    builder = x509.CertificateRevocationListBuilder().issuer_name(parent.leaf.subject)
    builder = builder.last_update(certificates.NOW - timedelta(1)).next_update(certificates.NOW + timedelta(1))
    gone = certificates.client("gone", through_intermediate=True)
    entry = x509.RevokedCertificateBuilder().serial_number(gone.leaf.serial_number).revocation_date(certificates.NOW)
    signed = builder.add_revoked_certificate(entry.build()).sign(parent.private_key, hashes.SHA256())
    path = certificates.folder() / f"inter-{version}.crl"
    path.write_bytes(signed.public_bytes(Encoding.PEM))
    crls = (*load_crls(certificates.crl()), *load_crls(path))
    lines = crl_problems(crls, CA, now=certificates.NOW)
    assert len(lines) == 1
    assert "only where the peer sends that CA's certificate" in lines[0]
    for pair, is_good in ((certificates.client("there", through_intermediate=True), True), (gone, False)):
        context = contexts.server_context(
            TLSSettings(), [our_credential()], client_auth=ClientAuth.REQUIRED, client_ca=CA, crls=crls
        )
        made = memory.shake(memory.engine_of(context), memory.Peer(client_context(version, pair)))
        assert (made.error is None) is is_good, made.error
        if made.error is not None:
            assert made.error.verify_code == 23  # revoked
        made.engine.free()


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_a_client_certificate_that_fits_into_no_ticket_is_refused_by_its_own_reason(version: str) -> None:
    """OpenSSL would make an error of ours of it."""
    rules = service(client_auth=ClientAuth.REQUIRED, policy=Policy(allow_any=True))
    side = ServiceContexts(rules, material(client_ca=CA)).server
    assert side is not None
    for count, is_good in ((600, True), (680, False)):
        pair = certificates.client("long", uris=tuple(f"urn:{number:0>93}" for number in range(count)))
        assert (len(pair.leaf_der) > 60 * 1024) is (count == 680)
        made = memory.shake(memory.engine_of(side.current), memory.Peer(client_context(version, pair)))
        assert (made.error is None) is is_good, made.error
        assert made.peer.is_done is is_good or version == "1.3"
        if not is_good:
            objection = made.error.objection if made.error is not None else None
            assert isinstance(objection, Objection)
            assert objection.reason is CloseReason.BAD_CERTIFICATE
            assert "bytes, and at most 61440 fit into a session ticket" in objection.detail
        made.engine.free()


# Sessions.


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_the_claim_of_a_refused_client_is_there_when_its_handshake_fails_and_is_not_kept(version: str) -> None:
    live = ServiceContexts(
        service(client_auth=ClientAuth.REQUIRED, policy=Policy(allow_any=True)),
        material(client_ca=CA, crls=load_crls(certificates.crl(client_pair("revoked").leaf))),
    )
    side = live.server
    assert side is not None
    for name, is_good in (("revoked", False), ("billing", True), ("revoked", False)):
        made = memory.shake(engine(live), memory.Peer(client_context(version, client_pair(name))))
        made.engine.free()
        assert made.is_good is is_good
        assert (None if made.error is None else made.error.objection) == (None if is_good else f"cn={name}")


def service(**options: Any) -> Service:
    return Service(
        name="s",
        mode=Mode.SERVER,
        listen=(parse_listen("127.0.0.1:0"),),
        targets=(parse_target("127.0.0.1:1"),),
        **options,
    )


def material(**options: Any) -> Material:
    return Material(credentials=(our_credential(),), **options)


def engine(of: ServiceContexts) -> Any:
    """As a worker makes it."""
    side = of.server
    assert side is not None
    made = memory.engine_of(side.base)
    if side.current is not side.base:
        made.switch(side.current.raw)
    return made


def session_from(of: ServiceContexts, context: Any) -> Any:
    """A session that a client got here."""
    made = memory.shake(engine(of), memory.Peer(context))
    assert made.is_good
    made.send(b"x")
    assert made.peer.read() == b"x"
    session = made.peer.tls.session
    made.engine.free()
    return session


def is_resumed(of: ServiceContexts, context: Any, session: Any) -> bool:
    made = memory.shake(engine(of), memory.Peer(context, session=session))
    assert made.is_good
    assert made.engine.is_resumed() == made.peer.tls.session_reused
    made.engine.free()
    return bool(made.peer.tls.session_reused)


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_sessions_survive_new_certificates_whatever_way_they_come(version: str) -> None:
    context = client_context(version)
    live = ServiceContexts(service(), material())
    session = session_from(live, context)
    assert is_resumed(live, context, session)
    renewed = Material(credentials=(our_credential(key_type="ECDSA P-384"),))
    for _ in range(2):
        session = session_from(live, context)
        live.renew(pickle.loads(pickle.dumps(renewed)))  # noqa: S301 - as a worker gets it
        assert is_resumed(live, context, session)
    # A new generation, and a supervisor that adopts what it has judged.
    session = session_from(live, context)
    successor = ServiceContexts(service(), material(), live)
    assert is_resumed(successor, context, session)
    live.adopt(successor)
    assert is_resumed(live, context, session)


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_a_session_made_after_renewals_shows_the_new_certificate(version: str) -> None:
    live = ServiceContexts(service(), material())
    live.renew(Material(credentials=(our_credential(key_type="ECDSA P-384"),)))
    made = memory.shake(engine(live), memory.client(version))
    assert made.is_good
    expected = certificates.server("localhost", "127.0.0.1", key_type="ECDSA P-384").leaf_der
    assert made.peer.tls.getpeercert(binary_form=True) == expected


@pytest.mark.parametrize("version", ["1.3", "1.2"])
@pytest.mark.parametrize("change", ["CA", "CRL", "rules"])
def test_a_change_of_trust_ends_resumption(change: str, version: str) -> None:
    context = client_context(version, client_pair())
    asking = service(client_auth=ClientAuth.REQUIRED, policy=Policy(allow_any=True))
    live = ServiceContexts(asking, material(client_ca=CA))
    session = session_from(live, context)
    assert is_resumed(live, context, session)
    session = session_from(live, context)
    if change == "rules":
        live = ServiceContexts(replace(asking, policy=Policy()), material(client_ca=CA), live)
    elif change == "CRL":
        live.renew(material(client_ca=CA, crls=load_crls(certificates.crl(client_pair("revoked").leaf))))
    else:
        both = certificates.folder() / "both-cas.pem"
        both.write_bytes(certificates.pem(certificates.ca().leaf, certificates.ca("another CA").leaf))
        live.renew(material(client_ca=load_ca(both)))
    made = memory.shake(engine(live), memory.Peer(context, session=session))
    assert not made.peer.tls.session_reused
    made.engine.free()


def test_a_renewal_that_is_refused_changes_nothing() -> None:
    live = ServiceContexts(service(), material())
    before = live.server
    broken = replace(our_credential(), key_der=credential(certificates.server("other.example")).key_der)
    with pytest.raises(ContextError, match="OpenSSL refuses it"):
        live.renew(Material(credentials=(broken,)))
    assert live.server is before


# ALPN.


@pytest.mark.parametrize(
    ("ours", "theirs", "mismatch", "chosen"),
    [
        (("h2", "http/1.1"), ["http/1.1", "h2"], "ignore", "h2"),
        (("h2", "http/1.1"), ["http/1.1"], "reject", "http/1.1"),
        (("h2",), ["http/1.1"], "ignore", ""),
        (("h2",), ["http/1.1"], "reject", None),
        (("h2",), ["http/1.1"], "ignore, but one is required", None),
        (("h2",), [], "reject", ""),
        (("h2",), ["h2" * 20, "h", "h2x"], "ignore", ""),
        (("h2",), ["h2" * 20, "h", "h2x"], "reject", None),
    ],
)
def test_alpn_is_our_first_that_they_offer_and_who_offers_others_alone_is_refused_unless_that_is_ignored(
    ours: Any, theirs: list[str], mismatch: str, chosen: str | None
) -> None:
    word, _, required = mismatch.partition(",")
    settings = TLSSettings(alpn=ours, alpn_required=bool(required), alpn_mismatch=ALPNMismatch(word))
    context = contexts.server_context(settings, [our_credential()])
    theirs_context = client_context()
    if theirs:
        theirs_context.set_alpn_protocols(theirs)
    made = memory.shake(memory.engine_of(context), memory.Peer(theirs_context))
    if chosen is None:
        assert made.error is not None
        assert "NO_APPLICATION_PROTOCOL" in str(made.peer.error).upper().replace(" ", "_")
    else:
        assert made.is_good
        assert made.engine.alpn() == chosen
        assert (made.peer.tls.selected_alpn_protocol() or "") == chosen
    made.engine.free()


def test_a_handshake_under_way_during_a_renewal_still_finds_its_callbacks() -> None:
    """They belong to a context that nobody but this session knows any more."""
    live = ServiceContexts(service(tls=TLSSettings(alpn=("h2",))), material())
    live.renew(material())
    waiting = [engine(live) for _ in range(5)]
    for _ in range(3):
        live.renew(material())
    gc.collect()
    littered = [bytearray(range(256)) for _ in range(2000)]
    for each in waiting:
        context = client_context()
        context.set_alpn_protocols(["h2"])
        made = memory.shake(each, memory.Peer(context))
        assert made.is_good
        assert each.alpn() == "h2"
        each.free()
    assert littered


# The host name.


@pytest.mark.parametrize(
    ("names", "host", "is_good"),
    [
        (("localhost",), "localhost", True),
        (("LocalHost",), "localhost", True),
        (("other.example",), "localhost", False),
        (("*.example.org",), "a.example.org", True),
        (("*.example.org",), "a.b.example.org", False),
        (("*.example.org",), "example.org", False),
        (("a*.example.org",), "ab.example.org", False),
        (("127.0.0.1",), "127.0.0.1", True),
        (("127.0.0.1",), "127.0.0.2", False),
        (("::1",), "::1", True),
        (("localhost",), "127.0.0.1", False),
        ((), "localhost", False),
    ],
)
def test_a_host_name_is_verified_by_alternative_names_alone(names: Any, host: str, is_good: bool) -> None:
    import ssl

    pair = certificates.server(*names) if names else certificates.issue(host)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(pair.certificate, pair.key)
    ours = memory.engine_of(contexts.client_context(TLSSettings(), CA), is_server=False)
    is_ip = host[0].isdigit() or ":" in host
    ours.expect(host, is_ip=is_ip, send_name=None if is_ip else host)
    made = memory.shake(ours, memory.Peer(theirs, is_server=True), is_client=True)
    assert (made.error is None) is is_good
    if not is_good:
        assert made.error is not None
        assert made.error.verify_code in (62, 64)
    ours.free()


def test_client_mode_has_contexts_for_the_backend_alone() -> None:
    client = replace(service(), mode=Mode.CLIENT, target_tls=TargetTLS())
    made = ServiceContexts(client, Material(target_ca=CA))
    assert made.server is None
    assert made.target is not None


# What is sent, and what may be set.


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_exactly_what_the_certificate_file_holds_is_sent_also_where_the_clients_cas_hold_more(version: str) -> None:
    """OpenSSL would complete the chain from the CAs that clients are verified by, and hide that the file is short."""
    pair = certificates.server("localhost", under=certificates.intermediate())
    bundle = certificates.folder() / "both-cas.pem"
    bundle.write_bytes(certificates.pem(certificates.intermediate().leaf, certificates.ca().leaf))
    both = load_ca(bundle)
    context = contexts.server_context(
        TLSSettings(max_version=version), [credential(pair)], client_auth=ClientAuth.OPTIONAL, client_ca=both
    )
    client = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    client.set_connect_state()
    server = SSL.Connection(context.raw, None)
    server.set_accept_state()
    for _ in range(3):
        for source, sink in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                source.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                sink.bio_write(source.bio_read(1 << 20))
    sent = client.get_peer_cert_chain(as_cryptography=True)
    assert sent is not None
    assert [each.subject for each in sent] == [pair.leaf.subject]


@pytest.mark.parametrize(
    "ciphers",
    [
        "NULL-SHA256:@SECLEVEL=0",
        "ADH-AES128-SHA256",
        "AECDH-AES128-SHA",
        "eNULL",
        "aNULL",
        "ALL",
        "HIGH",
        "kRSA",
        "PSK",
    ],
)
def test_ciphers_that_leave_data_in_the_clear_or_the_server_unproved_are_refused(ciphers: str) -> None:
    (error,) = check_settings(TLSSettings(ciphers=ciphers))
    assert error.key == "ciphers"
    assert "in the clear or the server unproved" in str(error)
    with pytest.raises(ContextError):
        contexts.server_context(TLSSettings(ciphers=ciphers), [our_credential()])


@pytest.mark.parametrize(
    "ciphers", ["HIGH:!aNULL:!eNULL", "DEFAULT", "EECDH+AESGCM:EDH+AESGCM", "ECDHE-RSA-AES128-SHA"]
)
def test_ciphers_that_encrypt_and_prove_are_taken(ciphers: str) -> None:
    assert check_settings(TLSSettings(ciphers=ciphers)) == []


def test_a_suite_of_tls_1_3_that_does_not_encrypt_is_refused() -> None:
    (error,) = check_settings(TLSSettings(ciphersuites="TLS_AES_128_GCM_SHA256:TLS_SHA256_SHA256"))
    assert (error.key, "in the clear" in str(error)) == ("ciphersuites", True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ciphers": "DEFAULT:@SECLEVEL=0"}, "@SECLEVEL=0 lets in keys and hashes that can be broken"),
        ({"ciphers": "DEFAULT:@SECLEVEL=1"}, "@SECLEVEL=1"),
        ({"ciphers": "ECDHE-RSA-AES128-GCM-SHA256", "min_version": "1.3"}, "ciphers has no effect"),
        ({"ciphersuites": "TLS_AES_128_GCM_SHA256", "max_version": "1.2"}, "ciphersuites has no effect"),
        ({"ciphers": "ECDHE-RSA-AES128-GCM-SHA256:NOPE"}, "ciphers: OpenSSL does not know NOPE,"),
        ({"ciphers": "ECDHE-RSA-AES128-GCM-SHA256:TLS_AES_128_GCM_SHA256"}, "know TLS_AES_128_GCM_SHA256,"),
        ({"ciphersuites": "TLS_AES_128_GCM_SHA256:TLS_X"}, "ciphersuites: OpenSSL does not know TLS_X,"),
    ],
)
def test_settings_that_do_less_than_they_seem_to_are_warned_about(settings: dict[str, str], words: str) -> None:
    (line,) = settings_warnings(TLSSettings(**settings))  # type: ignore[arg-type]
    assert words in line


@pytest.mark.parametrize("ciphers", ["", "DEFAULT", "DEFAULT:@SECLEVEL=2", "DEFAULT:!RC4:-NOPE", "DEFAULT:@SECLEVEL=3"])
def test_ordinary_settings_are_not_warned_about(ciphers: str) -> None:
    assert settings_warnings(TLSSettings(ciphers=ciphers)) == []


RSA, ECDSA = ("RSA 2048",), ("ECDSA P-256",)


@pytest.mark.parametrize(
    ("ciphers", "keys", "is_usable"),
    [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", RSA, False),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", ECDSA, True),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", ("Ed25519",), True),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", RSA + ECDSA, True),
        ("ECDHE-RSA-AES128-GCM-SHA256", ECDSA, False),
        ("ECDHE-RSA-AES128-GCM-SHA256", RSA, True),
        ("ECDHE-RSA-AES128-GCM-SHA256", ("ML-DSA-65",), False),
        ("AES128-GCM-SHA256", ECDSA, False),
        ("AES128-GCM-SHA256", RSA, True),
        ("DHE-RSA-AES128-GCM-SHA256", RSA, False),
        ("DHE-RSA-AES128-GCM-SHA256", None, True),
        ("PSK-AES128-GCM-SHA256", None, False),
        ("PSK-AES128-GCM-SHA256:SRP-RSA-AES-128-CBC-SHA", RSA, False),
        ("DHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256", RSA, True),
        ("DEFAULT", RSA, True),
    ],
)
def test_a_list_of_ciphers_that_can_never_work_is_known_and_one_that_works_is_not_blamed(
    ciphers: str, keys: tuple[str, ...] | None, is_usable: bool
) -> None:
    settings = TLSSettings(ciphers=ciphers, max_version="1.2")
    assert (unusable_ciphers(settings, keys) is None) is is_usable
    if keys is not None and len(keys) == 1:  # and OpenSSL agrees
        pair = certificates.server("localhost", key_type=keys[0])
        context = contexts.server_context(settings, [credential(pair)])
        theirs = client_context("1.2")
        with contextlib.suppress(ssl.SSLError):
            theirs.set_ciphers(ciphers)
        made = memory.shake(memory.engine_of(context), memory.Peer(theirs))
        assert made.is_good is is_usable
        made.engine.free()
