"""The identity in a certificate: what is taken from it, and which certificates are refused."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import warnings
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier
from OpenSSL import SSL, crypto

from tests.support.hostile_certificates import (
    CN,
    DIRECTORY,
    DNS,
    EDI,
    EMAIL,
    IP,
    NOT_AFTER,
    NOT_BEFORE,
    OU,
    REGISTERED,
    URI,
    X400,
    certificate,
    der,
    general,
    key,
)
from tlstunnel.access.peer import MAX_CLAIM, MAX_TEXT, UnusableCertificateError, claim, identity, printable
from tlstunnel.errors import TunnelError
from tlstunnel.outcome import CloseReason
from tlstunnel.tools.pki import readers
from tlstunnel.tools.probe.certificates import judge

C = NameOID.COUNTRY_NAME


def refusal(certificate_der: bytes) -> str:
    with pytest.raises(UnusableCertificateError) as caught:
        identity(certificate_der)
    assert caught.value.close_reason is CloseReason.BAD_CERTIFICATE
    return str(caught.value)


@pytest.mark.parametrize(
    ("names", "shown"),
    [(1, "dns=a.example"), (2, "dns=a.example (+1)"), (MAX_CLAIM, ""), (0, "")],
    ids=["one", "two", "too_many", "no_certificate"],
)
def test_a_claim_reads_like_an_identity_or_is_a_fingerprint_and_never_takes_a_clients_place(
    names: int, shown: str
) -> None:
    cached = identity.cache_info()
    made = certificate(names=general(DNS, b"a.example") * names) if names else b"no certificate"
    assert claim(made) == (shown or f"sha256={hashlib.sha256(made).hexdigest()[:32]}")
    assert identity.cache_info() == cached


def test_everything_a_rule_can_ask_for_is_taken_from_the_certificate() -> None:
    names = (
        general(DNS, b"API.Example.org")
        + general(DNS, b"*.example.org")
        + general(URI, b"spiffe://example.org/ns/a/Billing")
        + general(IP, bytes([192, 0, 2, 7]))
        + general(IP, ip_address("2001:db8::7").packed)
        + general(EMAIL, b"Ann.Other@Example.ORG")
    )
    encoded = certificate((CN, "billing"), (OU, "finance"), (OU, "ops"), names=names)
    found = identity(encoded)
    public = key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert found.common_names == ("billing",)
    assert found.organizational_units == ("finance", "ops")
    assert found.dns_names == ("api.example.org", "*.example.org")
    assert found.uris == ("spiffe://example.org/ns/a/Billing",)
    assert found.ip_addresses == (ip_address("192.0.2.7"), ip_address("2001:db8::7"))
    assert found.emails == ("Ann.Other@example.org",)
    assert found.spki_pin == "sha256:" + base64.b64encode(hashlib.sha256(public).digest()).decode()
    assert found.fingerprint == hashlib.sha256(encoded).hexdigest()
    assert found.serial == 4711
    assert found.subject == "OU=ops,OU=finance,CN=billing"
    assert found.issuer == "CN=a CA"
    assert (found.not_before, found.not_after) == (NOT_BEFORE, NOT_AFTER)
    assert found.is_ca is False


@pytest.mark.parametrize("kind", [0x00, 0x07, 0x0A, 0x10, 0x15, 0x1D])
def test_a_name_of_an_odd_asn1_type_is_damage_to_everyone_who_looks(kind: int) -> None:
    """OpenSSL takes most of them. Version 49 of cryptography raises KeyError where the name is looked at."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "zzz")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key().public_key())
    builder = builder.serial_number(5).not_valid_before(NOT_BEFORE).not_valid_after(NOT_AFTER)
    good = builder.sign(key(), hashes.SHA256()).public_bytes(Encoding.DER)
    odd = good.replace(b"\x0c\x03zzz", bytes([kind]) + b"\x03zzz")
    assert odd != good
    assert claim(odd) == f"sha256={hashlib.sha256(odd).hexdigest()[:32]}"
    with pytest.raises(UnusableCertificateError, match="cannot be parsed"):
        identity(odd)
    with pytest.raises(TunnelError, match=r"odd\.der: is a certificate in DER that is damaged; copy it anew"):
        readers.certificates(odd, where="odd.der")
    chain = judge([odd], [], host=None, staple=None, versions=["TLS 1.3"], now=NOT_BEFORE)
    assert "damaged" in chain.problems[0]


def test_the_same_certificate_is_parsed_once() -> None:
    encoded = certificate((CN, "billing"))
    assert identity(encoded) is identity(bytes(bytearray(encoded)))


def test_an_empty_subject_without_names_is_known_by_its_fingerprint_only() -> None:
    found = identity(certificate())
    assert found.common_names == found.dns_names == found.uris == ()
    assert found.subject == ""
    assert str(found) == f"sha256={found.fingerprint[:32]}"


def test_several_common_names_are_all_kept() -> None:
    assert identity(certificate((CN, "billing"), (CN, "mallory"))).common_names == ("billing", "mallory")


def test_a_ca_certificate_as_a_leaf_is_told_and_not_refused() -> None:
    ca = (x509.BasicConstraints(ca=True, path_length=None), True)
    assert identity(certificate((CN, "billing"), extensions=(ca,))).is_ca
    no_ca = (x509.BasicConstraints(ca=False, path_length=None), True)
    assert not identity(certificate((CN, "billing"), extensions=(no_ca,))).is_ca


def test_a_critical_extension_nobody_knows_is_left_to_openssl() -> None:
    unknown = (x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\0"), True)
    assert identity(certificate((CN, "billing"), extensions=(unknown,))).common_names == ("billing",)


def test_a_kind_of_key_nobody_knows_still_has_its_pin() -> None:
    ec_public_key, unknown = bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0279")
    usual = identity(certificate((CN, "billing")))
    found = identity(certificate((CN, "billing"), replace=((ec_public_key, unknown),)))
    assert found.spki_pin.startswith("sha256:")
    assert found.spki_pin != usual.spki_pin


def test_a_certificate_of_version_1_still_has_its_pin() -> None:
    """Without the version field and extensions, the key is one field earlier."""
    tbs = x509.load_der_x509_certificate(certificate((CN, "billing"))).tbs_certificate_bytes
    fields = tbs[4:] if tbs[1] == 0x82 else tbs[3:]
    assert fields[:5] == bytes.fromhex("a003020102")
    algorithm = der(0x30, bytes.fromhex("06082a8648ce3d040302"))
    version_1 = der(0x30, der(0x30, fields[5:]) + algorithm + der(0x03, b"\0\x30\0"))
    assert identity(version_1).spki_pin == identity(certificate((CN, "billing"))).spki_pin


def test_a_thousand_names_are_all_kept_and_shown_as_one() -> None:
    names = b"".join(general(DNS, f"host{number}.example.org".encode()) for number in range(1000))
    found = identity(certificate(names=names))
    assert len(found.dns_names) == 1000
    assert str(found) == "dns=host0.example.org (+999)"
    assert len(repr(found)) < 100


def test_names_of_other_kinds_are_ignored() -> None:
    directory = der(0x30, der(0x31, der(0x30, bytes.fromhex("0603550403") + der(0x0C, b"billing"))))
    names = general(DIRECTORY, directory) + general(REGISTERED, bytes.fromhex("2a0304")) + general(DNS, b"a.example")
    found = identity(certificate(names=names))
    assert found.common_names == ()
    assert found.dns_names == ("a.example",)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (
            general(DNS, b"bank.example\0.evil.example"),
            "DNS name in the certificate holds a character that does not print",
        ),
        (general(DNS, b"a.example\n"), "DNS name in the certificate holds a character that does not print"),
        (general(URI, b"spiffe://a/b\r\n"), "URI in the certificate holds a character that does not print"),
        (general(EMAIL, b"a\0@a.example"), "e-mail address in the certificate holds a character that does not print"),
        (general(DNS, "аpple.example".encode()), "DNS name in the certificate is not ASCII"),
        (general(DNS, b"\xff.example"), "certificate cannot be parsed"),
        (general(URI, "https://müller.example/".encode()), "URI in the certificate is not ASCII"),
        (general(EMAIL, "jörg@a.example".encode()), "e-mail address in the certificate is not ASCII"),
        (general(IP, b"\x7f\0\0"), "certificate cannot be parsed"),
        (general(IP, bytes(8)), "IP address in the certificate is a network"),
        (general(X400, b""), "certificate cannot be parsed"),
        (general(EDI, b""), "certificate cannot be parsed"),
        (b"\x82\x7fa", "certificate cannot be parsed"),
    ],
)
def test_an_alternative_name_that_could_be_misread_makes_the_certificate_unusable(names: bytes, problem: str) -> None:
    assert refusal(certificate((CN, "billing"), names=names)) == problem


@pytest.mark.parametrize("sign", ["\0", "\n", "\x1b", "\x7f", "\u0085", "\u200b", "\u202e", "\ufeff"])
def test_a_character_that_does_not_print_makes_the_certificate_unusable(sign: str) -> None:
    assert refusal(certificate((CN, f"bill{sign}ing"))) == (
        "common name in the certificate holds a character that does not print"
    )
    assert refusal(certificate((CN, "billing"), (OU, f"fin{sign}ance"))) == (
        "organizational unit in the certificate holds a character that does not print"
    )


def test_a_common_name_that_is_no_text_makes_the_certificate_unusable() -> None:
    text, bits = der(0x0C, b"Xbilling"), der(0x03, b"\0billing")
    assert refusal(certificate((CN, "Xbilling"), replace=((text, bits),))) == "certificate cannot be parsed"
    assert refusal(certificate((CN, "Xbilling"), replace=((b"Xbilling", b"\xffbilling"),))) == (
        "certificate cannot be parsed"
    )


def test_names_that_look_alike_stay_different() -> None:
    latin, cyrillic = identity(certificate((CN, "apple"))), identity(certificate((CN, "аpple")))
    assert latin.common_names != cyrillic.common_names
    assert str(cyrillic) == 'cn="\\u0430pple"'
    composed, decomposed = identity(certificate((CN, "müller"))), identity(certificate((CN, "mu\u0308ller")))
    assert composed.common_names != decomposed.common_names


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\x30", b"\x30\x80", b"no certificate", certificate((CN, "a"))[:-1], certificate((CN, "a")) + b"!"],
)
def test_what_is_no_certificate_is_refused(garbage: bytes) -> None:
    assert refusal(garbage) == "certificate cannot be parsed"


def test_an_extension_that_comes_twice_makes_the_certificate_unusable() -> None:
    twice = (
        (x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\0"), False),
        (x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.2"), b"\x05\0"), False),
    )
    one, other = bytes.fromhex("06092b06010401868d1f01"), bytes.fromhex("06092b06010401868d1f02")
    assert refusal(certificate((CN, "a"), extensions=twice, replace=((other, one),))) == "certificate cannot be parsed"


def test_a_certificate_that_is_disliked_writes_no_warning() -> None:
    """A country of three letters makes cryptography warn; a stranger must not write to our stderr with it."""
    country = der(0x30, bytes.fromhex("0603550406") + der(0x0C, b"DE"))
    odd = der(0x30, bytes.fromhex("0603550407") + der(0x0C, b"DE"))
    encoded = certificate((CN, "a"), (NameOID.LOCALITY_NAME, "DE"), replace=((odd, country),))
    zero_serial = encoded.replace(bytes.fromhex("02021267"), bytes.fromhex("02020080"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        identity(encoded)
        identity(zero_serial)
    assert caught == []


def test_subject_and_issuer_are_safe_to_show() -> None:
    found = identity(certificate((NameOID.LOCALITY_NAME, "a\nb\x1b[2J"), issuer="CA\r\nwarning: forged"))
    for text in (found.subject, found.issuer):
        assert text.isascii()
        assert text.isprintable()
    assert "\\n" in found.subject


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ((general(URI, b"spiffe://example.org/a") + general(DNS, b"a.example")), "uri=spiffe://example.org/a"),
        (general(DNS, b"a.example"), "cn=billing"),
    ],
)
def test_an_identity_is_shown_by_its_most_telling_name(names: bytes, shown: str) -> None:
    assert str(identity(certificate((CN, "billing"), (OU, "ops"), names=names))) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (general(DNS, b"a.example"), "dns=a.example"),
        (general(EMAIL, b"a@a.example"), "email=a@a.example"),
        (general(IP, bytes([192, 0, 2, 7])), "ip=192.0.2.7"),
        (general(IP, ip_address("2001:db8::7").packed), "ip=2001:db8::7"),
    ],
)
def test_an_identity_without_common_name_is_shown_by_another(name: bytes, shown: str) -> None:
    assert str(identity(certificate((OU, "ops"), names=name))) == shown
    assert str(identity(certificate((OU, "ops")))) == "ou=ops"


def test_a_repr_names_the_identity_and_holds_no_certificate() -> None:
    found = identity(certificate((CN, "billing")))
    assert repr(found) == f"<Identity cn=billing sha256={found.fingerprint[:16]}>"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("billing", "billing"),
        ("spiffe://example.org/a_b~c", "spiffe://example.org/a_b~c"),
        ("", '""'),
        ("a b", '"a b"'),
        ('a" allowed="yes', '"a\\" allowed=\\"yes"'),
        ("back\\slash", '"back\\\\slash"'),
        ("müller", '"m\\xfcller"'),
        ("a\nb", '"a\\nb"'),
        ("\u202e", '"\\u202e"'),
        ("x" * (MAX_TEXT + 1), "x" * MAX_TEXT + "..."),
    ],
)
def test_a_strangers_text_is_one_short_word_or_quoted(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key_bits", "is_critical", "is_accepted"),
    [(2048, False, True), (2048, True, False), (1024, False, False)],
)
def test_openssl_refuses_what_is_left_to_it(key_bits: int, is_critical: bool, is_accepted: bool) -> None:
    """Small keys and unknown critical extensions end the handshake, so they never get as far as an identity."""
    client_key = rsa.generate_private_key(65537, key_bits)
    unknown = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\0")
    ca = issued("a CA", key(), x509.BasicConstraints(ca=True, path_length=None), is_critical=True)
    leaf = issued("billing", client_key, unknown, is_critical=is_critical)

    server, client = SSL.Context(SSL.TLS_SERVER_METHOD), SSL.Context(SSL.TLS_CLIENT_METHOD)
    client.set_cipher_list(b"DEFAULT@SECLEVEL=0")  # the client may do as it likes
    for context, own_key, own in ((server, key(), ca), (client, client_key, leaf)):
        context.use_certificate(own)
        context.use_privatekey(own_key)
    store = server.get_cert_store()
    assert store is not None
    store.add_cert(crypto.X509.from_cryptography(ca))
    server.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    ends = SSL.Connection(server, None), SSL.Connection(client, None)
    ends[0].set_accept_state()
    ends[1].set_connect_state()
    if is_accepted:
        shake_hands(*ends)
        shown = ends[0].get_peer_certificate(as_cryptography=True)
        assert shown is not None
        assert identity(shown.public_bytes(Encoding.DER)).common_names == ("billing",)
    else:
        with pytest.raises(SSL.Error, match="certificate verify failed"):
            shake_hands(*ends)


def issued(name: str, own_key: Any, extension: x509.ExtensionType, *, is_critical: bool) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(CN, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(CN, "a CA")]))
        .public_key(own_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(extension, is_critical)
        .sign(key(), hashes.SHA256())
    )


def shake_hands(server: SSL.Connection, client: SSL.Connection) -> None:
    for _ in range(3):
        for end, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                end.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(end.bio_read(65536))
