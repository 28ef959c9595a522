"""Hostile and odd client certificates, all made by openssl(1), before the daemon: who gets in, who gets which alert."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import backends, openssl_ca, services
from tests.support.backends import Backend
from tests.support.openssl_ca import Authority, Pair
from tests.support.services import GREETING, Services, ask

pytestmark = [pytest.mark.interop, pytest.mark.slow]

HANDSHAKE_FAILURE, BAD_CERTIFICATE, UNSUPPORTED_CERTIFICATE, CERTIFICATE_UNKNOWN = 40, 42, 43, 46
VERSIONS = ["-tls1_2", "-tls1_3"]
SPIFFE = "spiffe://example.org/ns/prod/billing"


@dataclass(frozen=True)
class Case:
    """A certificate, the service it is shown to, and what becomes of it."""

    service: str
    extensions: tuple[str, ...] = ()
    subject: str = "/CN=billing"
    key: str = "ec:P-256"
    options: tuple[str, ...] = ()
    reason: str = "finished"
    alert: int | None = None
    rule: str | None = None
    identity: str | None = None


def name(der: str) -> str:
    """A subjectAltName of DNS names whose bytes are given in hexadecimal."""
    length = len(der) // 2
    return f"subjectAltName=DER:30:{length + 2:02x}:82:{length:02x}:" + ":".join(
        der[at : at + 2] for at in range(0, len(der), 2)
    )


THOUSAND = ",".join(f"DNS:host{number}.clients.example" for number in range(1000))
DENIED: dict[str, Any] = {"reason": "denied", "alert": HANDSHAKE_FAILURE, "rule": "no rule matches"}

CASES = {
    "empty subject, named by its URI": Case(
        "uri", (f"subjectAltName=critical,URI:{SPIFFE}",), "/", rule=f"allow uri={SPIFFE}", identity=f"uri={SPIFFE}"
    ),
    "empty subject and no names": Case("cn", subject="/", **DENIED),
    "empty subject, admitted because all are": Case("any", subject="/", rule="allow_any"),
    "two common names, one of them right": Case("cn", subject="/CN=billing/CN=admin", **DENIED),
    "two common names, one of them denied": Case(
        "not_cn", subject="/CN=admin/CN=billing", reason="denied", alert=HANDSHAKE_FAILURE, rule="deny cn=billing"
    ),
    "a common name that only looks right": Case(
        "cn", subject="/CN=b\u0456lling", identity='cn="b\\u0456lling"', **DENIED
    ),
    "a common name in other case": Case("cn", subject="/CN=Billing", **DENIED),
    "a thousand names, the last one right": Case(
        "dns", (f"subjectAltName={THOUSAND}",), rule="allow dns=host999.clients.example"
    ),
    "no names, asked for one": Case("dns", **DENIED),
    "a name beyond a NUL": Case(
        "any", (name(b"billing.example\0.evil.example".hex()),), reason="bad_certificate", alert=HANDSHAKE_FAILURE
    ),
    "a name with a line break": Case(
        "any", (name(b"billing.example\nlevel=info".hex()),), reason="bad_certificate", alert=HANDSHAKE_FAILURE
    ),
    "a critical extension nobody knows": Case(
        "any", ("1.2.3.4.5=critical,ASN1:UTF8String:x",), reason="bad_certificate", alert=CERTIFICATE_UNKNOWN
    ),
    "an extension nobody knows": Case("any", ("1.2.3.4.5=ASN1:UTF8String:x",), rule="allow_any"),
    "a key of 1,024 bits": Case("any", key="rsa:1024", reason="bad_certificate", alert=BAD_CERTIFICATE),
    "a signature with SHA-1": Case("any", options=("-md", "sha1"), reason="bad_certificate", alert=BAD_CERTIFICATE),
    "a certificate for servers": Case(
        "any", ("extendedKeyUsage=serverAuth",), reason="wrong_purpose", alert=UNSUPPORTED_CERTIFICATE
    ),
    "a CA's certificate": Case("cn", options=("-extensions", "authority"), rule="allow cn=billing"),
    "two SPIFFE IDs, one of them right": Case("uri", (f"subjectAltName=URI:{SPIFFE},URI:spiffe://evil/x",), **DENIED),
    "a trust domain in upper case": Case("uri", ("subjectAltName=URI:spiffe://EXAMPLE.org/ns/prod/billing",), **DENIED),
    "a SPIFFE ID with a port": Case("uri", ("subjectAltName=URI:spiffe://example.org:1/ns/prod/billing",), **DENIED),
    "several segments for two stars": Case(
        "stars", ("subjectAltName=URI:spiffe://example.org/a/b/c/billing",), rule="allow uri=spiffe://example.org/**/billing"
    ),
    "no segment for two stars": Case("stars", ("subjectAltName=URI:spiffe://example.org/billing",), **DENIED),
    "a way up below two stars": Case("stars", ("subjectAltName=URI:spiffe://example.org/a/../billing",), **DENIED),
}  # fmt: skip


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    found = openssl_ca.make(tmp_path_factory.mktemp("ca"))
    with (found.folder / "ca.cnf").open("a") as file:
        file.write("[authority]\nbasicConstraints = critical,CA:true\nkeyUsage = digitalSignature,keyCertSign\n")
    return found


@pytest.fixture(scope="module")
def shown(authority: Authority) -> dict[str, Pair]:
    return {
        title: authority.issue(
            f"case{number}", *case.extensions, subject=case.subject, key=case.key, options=case.options
        )
        for number, (title, case) in enumerate(CASES.items())
    }


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with backends.serve(services.greet) as running:
        yield running


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, authority: Authority, backend: Backend) -> Iterator[Services]:
    server = authority.issue("localhost", "subjectAltName=DNS:localhost")
    common = (
        f'certificate = "{server.certificate}"\nkey = "{server.key}"\n'
        f'client_auth = "required"\nclient_ca = "{authority.certificate}"'
    )
    rules = {
        "any": "allow_any = true",
        "cn": 'allow = [{ cn = "billing" }]',
        "not_cn": 'allow_any = true\ndeny = [{ cn = "billing" }]',
        "dns": 'allow = [{ dns = "host999.clients.example" }]',
        "uri": f'allow = [{{ uri = "{SPIFFE}" }}]',
        "stars": 'allow = [{ uri = "spiffe://example.org/**/billing" }]',
    }
    with services.run(tmp_path_factory.mktemp("identity"), backend.port, rules, common) as found:
        yield found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("title", CASES)
def test_every_certificate_is_judged_by_what_it_surely_says(
    running: Services, authority: Authority, backend: Backend, shown: dict[str, Pair], title: str, version: str
) -> None:
    case = CASES[title]
    dialled = backend.count
    # Our own side of the conversation, too, has to dare to use such keys.
    said = ask(
        running.at(case.service), authority.certificate, version, "-cipher", "DEFAULT@SECLEVEL=0", pair=shown[title]
    )
    record = running.record()
    assert (record["reason"], record["rule"]) == (case.reason, case.rule), record
    assert case.identity is None or record["identity"] == case.identity
    if case.reason == "finished":
        assert GREETING in said.text
        assert backend.count == dialled + 1
    else:
        assert said.alert == case.alert
        assert GREETING not in said.text
        assert record["target"] is None
        assert backend.count == dialled


def test_whatever_a_certificate_says_a_record_stays_one_line(running: Services) -> None:
    assert all(line.startswith(("{", "ready: ")) for line in running.daemon.lines)
