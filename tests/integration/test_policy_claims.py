"""Of a client whose certificate is refused, the log says whose it claims to be, and never that it was."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator

import pytest

from tests.support import backends, openssl_ca, services
from tests.support.openssl_ca import Authority, Pair
from tests.support.services import GREETING, Services, ask

pytestmark = [pytest.mark.interop, pytest.mark.slow]

VERSIONS = ["-tls1_2", "-tls1_3"]
PAST = ("-startdate", "20200101000000Z", "-enddate", "20210101000000Z")
FUTURE = ("-startdate", "20990101000000Z", "-enddate", "20991231000000Z")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return openssl_ca.make(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return openssl_ca.make(tmp_path_factory.mktemp("stranger"), "another CA")


@pytest.fixture(scope="module")
def good(authority: Authority) -> Pair:
    return authority.issue("billing")


@pytest.fixture(scope="module")
def refused(authority: Authority, stranger: Authority) -> dict[str, tuple[Pair, str]]:
    """By the reason: a certificate, and whose it says it is."""
    workload = "subjectAltName=URI:spiffe://example.org/batch"
    found = {
        "unknown_ca": (stranger.issue("billing", with_issuer=True), "cn=billing"),
        "expired_certificate": (authority.issue("old", options=PAST), "cn=old"),
        "not_yet_valid_certificate": (authority.issue("early", options=FUTURE), "cn=early"),
        "revoked": (authority.issue("lost", workload), "uri=spiffe://example.org/batch"),
        "wrong_purpose": (authority.issue("shop", "extendedKeyUsage=serverAuth"), "cn=shop"),
    }
    authority.revoke(found["revoked"][0])
    return found


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    authority: Authority,
    good: Pair,
    refused: dict[str, tuple[Pair, str]],
) -> Iterator[Services]:
    assert refused, "the list below holds the revoked one"
    server = authority.issue("localhost", "subjectAltName=DNS:localhost")
    case = (
        f'certificate = "{server.certificate}"\nkey = "{server.key}"\nclient_auth = "optional"\n'
        f'client_ca = "{authority.certificate}"\ncrl = "{authority.crl()}"\nallow = [{{ cn = "billing" }}]\n'
    )
    with (
        backends.serve(services.greet) as backend,
        services.run(tmp_path_factory.mktemp("claims"), backend.port, {"web": case}) as found,
    ):
        yield found


def der_of(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_claim_is_told_of_the_client_that_made_it_and_of_no_other(
    running: Services, authority: Authority, good: Pair, refused: dict[str, tuple[Pair, str]], version: str
) -> None:
    for reason, (pair, claim) in refused.items():
        assert GREETING not in ask(running.at("web"), authority.certificate, version, pair=pair).text
        record = running.record()
        assert (record["reason"], record["claimed"]) == (reason, claim)
        assert (record["identity"], record["rule"], record["target"]) == (None, None, None)
        for admitted, identity in ((good, "cn=billing"), (None, None)):
            assert GREETING in ask(running.at("web"), authority.certificate, version, pair=admitted).text
            record = running.record()
            assert (record["reason"], record["identity"], record["claimed"]) == ("finished", identity, None)


def test_who_is_verified_and_denied_has_an_identity_and_claims_nothing(running: Services, authority: Authority) -> None:
    ask(running.at("web"), authority.certificate, pair=authority.issue("nobody"))
    record = running.record()
    assert (record["reason"], record["identity"], record["claimed"]) == ("denied", "cn=nobody", None)


@pytest.mark.parametrize("kind", ["big", "two_lines"])
def test_what_is_big_or_unfit_to_be_shown_is_named_by_its_fingerprint(
    running: Services, authority: Authority, stranger: Authority, kind: str
) -> None:
    if kind == "big":
        pair = stranger.issue("big", "subjectAltName=" + ",".join(f"DNS:host{number}.example" for number in range(300)))
    else:
        pair = stranger.issue("forged", subject="/CN=billing\ninfo forged line")
    ask(running.at("web"), authority.certificate, pair=pair)
    record = running.record()
    assert record["reason"] == "unknown_ca"
    assert record["claimed"] == f"sha256={hashlib.sha256(der_of(pair)).hexdigest()[:32]}"
