"""What an OCSP response must be to be stapled, for how long it is, and when the next one is fetched."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as builder
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support import certificates
from tests.support.certificates import NOW, Pair
from tlstunnel.tls import ocsp
from tlstunnel.tls.ocsp import NotOursError, OCSPError, Staple

HOUR = timedelta(hours=1)
SIGNING = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])


def response(
    pair: Pair,
    *,
    signer: Pair | None = None,
    issuer: Pair | None = None,
    status: Any = builder.OCSPCertStatus.GOOD,
    digest: Any = None,
    names: Any = builder.OCSPResponderEncoding.HASH,
    until: Any = NOW + HOUR,
    included: tuple[Pair, ...] = (),
) -> bytes:
    issuer = issuer or certificates.ca()
    signer = signer or issuer
    is_revoked = status is builder.OCSPCertStatus.REVOKED
    made = builder.OCSPResponseBuilder().add_response(
        cert=pair.leaf, issuer=issuer.leaf, algorithm=digest or hashes.SHA1(), cert_status=status,  # noqa: S303
        this_update=NOW - HOUR, next_update=until, revocation_time=NOW - HOUR if is_revoked else None,
        revocation_reason=None,
    )  # fmt: skip
    made = made.responder_id(names, signer.leaf)
    if included:
        made = made.certificates([each.leaf for each in included])
    is_bare = certificates.rsa.RSAPrivateKey, certificates.ec.EllipticCurvePrivateKey
    how = hashes.SHA256() if isinstance(signer.private_key, is_bare) else None
    return made.sign(signer.private_key, how).public_bytes(Encoding.DER)


def judge(data: bytes, pair: Pair, issuer: Pair | None = None) -> Staple:
    return ocsp.judge(data, pair.leaf_der, (issuer or certificates.ca()).leaf_der)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return certificates.server("localhost")


@pytest.mark.parametrize("names", list(builder.OCSPResponderEncoding))
@pytest.mark.parametrize("digest", [hashes.SHA1(), hashes.SHA256()])  # noqa: S303
def test_a_proof_of_the_issuer_is_believed(pair: Pair, names: Any, digest: Any) -> None:
    data = response(pair, names=names, digest=digest)
    found = judge(data, pair)
    assert found.der == data
    assert (found.since, found.until) == ((NOW - HOUR).timestamp(), (NOW + HOUR).timestamp())


@pytest.mark.parametrize("key_type", ["ECDSA P-256", "RSA 2048", "Ed25519"])
def test_a_delegate_that_the_issuer_certified_for_it_is_believed(pair: Pair, key_type: str) -> None:
    delegate = certificates.issue("delegate", key_type=key_type, purpose=None, extensions=(SIGNING,))
    assert judge(response(pair, signer=delegate, included=(delegate,)), pair).until


@pytest.mark.parametrize(
    ("delegate", "why"),
    [
        (certificates.issue("delegate without the purpose"), "a certificate that is not for signing responses"),
        (certificates.issue("no purpose at all", purpose=None), "a certificate that is not for signing responses"),
        (
            certificates.issue("another's", purpose=None, extensions=(SIGNING,), authority="another CA"),
            "a delegate of another CA",
        ),
        (
            certificates.issue(
                "too late", purpose=None, extensions=(SIGNING,), not_before=NOW - 9 * HOUR, not_after=NOW - 8 * HOUR
            ),
            "a delegate whose certificate has expired",
        ),
    ],
)
def test_other_signers_are_named_and_not_believed(pair: Pair, delegate: Pair, why: str) -> None:
    with pytest.raises(OCSPError, match=why):
        judge(response(pair, signer=delegate, included=(delegate,)), pair)


def test_a_signer_whose_certificate_is_not_there_is_not_believed(pair: Pair) -> None:
    delegate = certificates.issue("delegate", purpose=None, extensions=(SIGNING,))
    with pytest.raises(OCSPError, match="but by nobody that it names"):
        judge(response(pair, signer=delegate), pair)


def test_the_issuer_under_another_certificate_is_the_issuer(pair: Pair) -> None:
    """Cross-signed CAs have several certificates with one name and one key."""
    ca = certificates.ca()
    builder_ = x509.CertificateBuilder().subject_name(ca.leaf.subject).issuer_name(ca.leaf.subject)
    builder_ = builder_.public_key(ca.leaf.public_key()).serial_number(7)
    again = builder_.not_valid_before(NOW - HOUR).not_valid_after(NOW + HOUR).sign(ca.private_key, hashes.SHA256())
    other = Pair(ca.certificate, ca.key, ca.combined, again, (), ca.private_key)
    assert judge(response(pair, signer=other, included=(other,)), pair).until


def test_every_bit_of_it_counts(pair: Pair) -> None:
    """Nothing that was changed on the way is believed, and nothing but an OCSPError comes of it."""
    data = response(pair)
    original = builder.load_der_ocsp_response(data)
    for at in range(0, len(data) * 8, 5):
        changed = bytearray(data)
        changed[at // 8] ^= 1 << (at % 8)
        try:
            judge(bytes(changed), pair)
        except OCSPError:
            continue
        # DER says beside the signature how many of its last bits are padding: that may change where they are zero.
        found = builder.load_der_ocsp_response(bytes(changed))
        assert (found.tbs_response_bytes, found.signature) == (original.tbs_response_bytes, original.signature), at


@pytest.mark.parametrize("data", [b"", b"\x30", b"<html>", bytes(1000), b"\x30\x03\x0a\x01\x00"])
def test_what_is_no_response_is_called_so(pair: Pair, data: bytes) -> None:
    with pytest.raises(OCSPError, match="is not an OCSP response in DER, or damaged; fetch it anew"):
        judge(data, pair)


@pytest.mark.parametrize("status", [each for each in builder.OCSPResponseStatus if each.value])
def test_a_responder_that_refuses_is_quoted(pair: Pair, status: builder.OCSPResponseStatus) -> None:
    data = builder.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)
    with pytest.raises(OCSPError, match=r"says nothing of the certificate: the responder .+; ask it again"):
        judge(data, pair)


def test_a_response_for_another_certificate_or_of_another_ca_is_not_ours(pair: Pair) -> None:
    with pytest.raises(NotOursError):
        judge(response(certificates.server("other")), pair)
    twin = certificates.ca("another CA")
    with pytest.raises(NotOursError):
        judge(response(pair, issuer=twin), pair)


def test_only_good_is_stapled(pair: Pair) -> None:
    with pytest.raises(OCSPError, match="the certificate is revoked; replace the certificate"):
        judge(response(pair, status=builder.OCSPCertStatus.REVOKED), pair)
    with pytest.raises(OCSPError, match="the certificate is unknown to its CA"):
        judge(response(pair, status=builder.OCSPCertStatus.UNKNOWN), pair)


def test_a_staple_without_an_end_holds_for_a_day(pair: Pair) -> None:
    found = judge(response(pair, until=None), pair)
    assert found.until - found.since == 86400


def test_a_proof_is_good_between_its_dates_give_or_take_a_clock() -> None:
    staple = Staple(der=b"", since=1000.0, until=2000.0)
    assert not staple.is_good_at(600.0)
    assert staple.is_good_at(800.0)
    assert staple.is_good_at(1999.0)
    assert not staple.is_good_at(2000.0)
    assert staple.problem(1500.0) == ""
    assert staple.problem(2000.0) == "expired on 1970-01-01 00:33 UTC; fetch it anew"
    assert staple.problem(0.0) == "is dated 1970-01-01 00:16 UTC; check the clock"


def test_the_next_proof_is_asked_for_half_way_through_and_then_ever_closer_to_the_end() -> None:
    staple = Staple(der=b"", since=0.0, until=1000.0)
    assert ocsp.refresh_at(staple, 10.0) == 500.0
    assert ocsp.refresh_at(staple, 600.0) == 700.0
    assert ocsp.refresh_at(staple, 999.0) == 1000.0


def test_the_request_names_the_certificate_and_its_issuer(pair: Pair) -> None:
    asked = builder.load_der_ocsp_request(ocsp.request(pair.leaf_der, certificates.ca().leaf_der))
    assert asked.serial_number == pair.leaf.serial_number
    assert len(asked.extensions) == 0  # no nonce: responders sign ahead, and caches answer


def test_the_issuer_is_found_by_its_signature(pair: Pair) -> None:
    stranger = certificates.ca("another CA").leaf_der
    ours = certificates.ca().leaf_der
    assert ocsp.issuer_of(pair.leaf_der, [stranger, ours]) == ours
    assert ocsp.issuer_of(pair.leaf_der, [stranger]) is None
