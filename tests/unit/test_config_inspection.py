"""Looking at everything a configuration names: nothing is asked twice, and every finding has its key path."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.support import certificates
from tlstunnel.address import parse_listen, parse_target
from tlstunnel.config.model import CertificateFiles, ClientAuth, Config, Mode, ServerName, Service, TLSSettings
from tlstunnel.tls.context import ContextError
from tlstunnel.tls.inspection import Finding, inspect
from tlstunnel.tls.passphrase import PassphraseSource
from tlstunnel.tls.policy import Policy
from tlstunnel.tls.store import Material, ServiceContexts

NOW = datetime.now(UTC)
PASSPHRASE = "correct horse"


def config(files: CertificateFiles, **more: object) -> Config:
    service = Service(
        name="web",
        mode=Mode.SERVER,
        listen=(parse_listen(":0"),),
        targets=(parse_target("127.0.0.1:1"),),
        certificate=(files,),
        **more,  # type: ignore[arg-type]
    )
    return Config(services=(service,))


def plain() -> CertificateFiles:
    pair = certificates.server("localhost")
    return CertificateFiles(certificate=pair.certificate, key=pair.key)


def test_what_openssl_has_against_the_whole_is_a_finding_of_its_key() -> None:
    def build(service: Service, material: Material) -> ServiceContexts:
        assert material.credentials
        raise ContextError("certificate", "OpenSSL refuses it; write another")

    found = inspect(config(plain()), PassphraseSource(), now=NOW, build=build)
    assert found.problems == (Finding(("services", "web", "certificate"), "OpenSSL refuses it; write another"),)
    assert found.contexts == ()


def test_what_was_read_is_handed_out_for_a_start() -> None:
    found = inspect(config(plain()), PassphraseSource(), now=NOW)
    assert found.problems == ()
    assert [len(material.credentials) for material in found.materials] == [1]
    assert len(found.contexts) == 1


def test_a_passphrase_is_asked_for_once_however_many_names_share_the_key() -> None:
    asked: list[str] = []

    def prompt(question: str) -> str:
        asked.append(question)
        return PASSPHRASE

    pair = certificates.server("localhost")
    files = CertificateFiles(certificate=pair.certificate, key=certificates.encrypted_key(pair, PASSPHRASE))
    name = ServerName(
        names=("localhost",), certificate=(files,), targets=(), policy=Policy(), tls=TLSSettings(min_version="1.3")
    )
    found = inspect(config(files, sni=(name,)), PassphraseSource(prompt=prompt), now=NOW)
    assert (found.problems, len(asked)) == ((), 1)


def test_a_name_the_certificate_is_not_for_is_a_warning() -> None:
    files = plain()
    name = ServerName(names=("a.example.org",), certificate=(files,), targets=(), policy=Policy(), tls=TLSSettings())
    found = inspect(config(files, sni=(name,)), PassphraseSource(), now=NOW)
    assert any("not for a.example.org" in warning for warning in found.warnings)


@pytest.mark.filterwarnings("ignore:.*X509:DeprecationWarning")
def test_an_expired_revocation_list_is_a_warning_with_its_date() -> None:
    yesterday = NOW.replace(microsecond=0) - timedelta(days=1)
    crl = certificates.crl(last_update=yesterday - timedelta(days=7), next_update=yesterday)
    trust = {"client_auth": ClientAuth.REQUIRED, "client_ca": certificates.ca().certificate, "crl": (crl,)}
    found = inspect(config(plain(), policy=Policy(allow_any=True), **trust), PassphraseSource(), now=NOW)
    assert any(f"expired on {yesterday:%Y-%m-%d}" in warning for warning in found.warnings)
