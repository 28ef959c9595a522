"""Judgement: what is weak is said, with its severity and a remedy; what is good is not; what is unknown is neither."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from tlstunnel.tools.probe.findings import (
    Chain,
    Ciphers,
    Features,
    Findings,
    GroupFound,
    Groups,
    Resumption,
    Severity,
    SuiteFound,
    Target,
    Version,
)
from tlstunnel.tools.probe.groups import group
from tlstunnel.tools.probe.suites import SUITES, suite
from tlstunnel.tools.probe.weaknesses import flaws_of, judge
from tlstunnel.tools.tls13.names import TLS_1_2, TLS_1_3, version_name

NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)
GOOD_SUITE, CBC, STATIC, RC4, NULL, ANON, EXPORT, DES, TRIPLE_DES = (
    0xC02B, 0xC009, 0x009C, 0x0005, 0x0002, 0x0034, 0x0003, 0x0009, 0x000A,
)  # fmt: skip


def version(number: int, offered: bool | None = True) -> Version:
    return Version(name="SSL 2.0" if number == 2 else version_name(number), id=number, offered=offered)


def listed(*numbers: int, order: str | None = "server", exchange: str = "") -> Ciphers:
    found = [
        SuiteFound(name=suite(n).name, id=n, bits=suite(n).bits, key_exchange=exchange, flaws=flaws_of(suite(n)))
        for n in numbers
    ]
    return Ciphers(version="TLS 1.2", order=order, suites=found)


def groups(*numbers: int, name: str = "TLS 1.3") -> Groups:
    found = [group(number) for number in numbers]
    return Groups(
        version=name, order="server",
        groups=[GroupFound(name=g.name, id=g.id, bits=g.bits, post_quantum=g.is_post_quantum) for g in found],
    )  # fmt: skip


def facts(**changes: Any) -> dict[str, Any]:
    return {
        "subject": "CN=www", "names": ["DNS:www.example.org"], "not_before": "2026-01-01T00:00:00Z",
        "not_after": "2027-01-01T00:00:00Z", "remarks": [], "ocsp_urls": [],
    } | changes  # fmt: skip


def chain(*certificates: dict[str, Any], **changes: Any) -> Chain:
    given: dict[str, Any] = {
        "versions": ["TLS 1.3"], "certificates": list(certificates) or [facts()], "verifies": True, "trusted": True,
        "names_match": True, "problems": [], "strict": None, "staple": None, "wants_staple": False,
    }  # fmt: skip
    return Chain(**given | changes)


def findings(**changes: Any) -> Findings:
    """A server without fault, but for the changes."""
    given: dict[str, Any] = {
        "target": Target(host="www.example.org", port=443, name="www.example.org"), "started": "",
        "versions": [version(TLS_1_3), version(TLS_1_2), version(0x0301, offered=False)],
        "ciphers": [listed(GOOD_SUITE)], "groups": [groups(0x11EC, 0x1D), groups(0x1D, name="TLS 1.2")],
        "features": Features(secure_renegotiation=True, extended_master_secret=True, fallback_scsv=True),
        "chains": [chain()],
    }  # fmt: skip
    return Findings(**given | changes)


def weak(**changes: Any) -> dict[str, Severity]:
    return {each.id: each.severity for each in judge(findings(**changes), NOW)}


def test_a_good_server_has_no_weakness() -> None:
    assert weak() == {}


def test_what_is_unknown_is_no_weakness() -> None:
    unknown = [version(TLS_1_3, offered=None), version(TLS_1_2, offered=None)]
    assert weak(versions=unknown, groups=[], ciphers=[], features=Features(), chains=[]) == {}


CASES: list[tuple[str, Severity, dict[str, Any]]] = [
    ("ssl2", Severity.CRITICAL, {"versions": [version(TLS_1_3), version(2)]}),
    ("ssl3", Severity.HIGH, {"versions": [version(TLS_1_3), version(0x0300)]}),
    ("tls1.0", Severity.MEDIUM, {"versions": [version(TLS_1_3), version(0x0301)]}),
    ("tls1.1", Severity.MEDIUM, {"versions": [version(TLS_1_3), version(0x0302)]}),
    ("no-tls1.2", Severity.HIGH, {"versions": [version(0x0302)]}),
    ("no-tls1.3", Severity.LOW, {"versions": [version(TLS_1_2), version(TLS_1_3, offered=False)]}),
    ("cipher-null", Severity.CRITICAL, {"ciphers": [listed(NULL)]}),
    ("cipher-anonymous", Severity.CRITICAL, {"ciphers": [listed(ANON)]}),
    ("cipher-export", Severity.CRITICAL, {"ciphers": [listed(EXPORT)]}),
    ("cipher-des", Severity.CRITICAL, {"ciphers": [listed(DES)]}),
    ("cipher-rc4", Severity.HIGH, {"ciphers": [listed(RC4)]}),
    ("cipher-64-bit-blocks", Severity.MEDIUM, {"ciphers": [listed(TRIPLE_DES)]}),
    ("no-forward-secrecy", Severity.MEDIUM, {"ciphers": [listed(STATIC)]}),
    ("cipher-md5", Severity.MEDIUM, {"ciphers": [listed(0x0001)]}),
    ("cipher-cbc", Severity.LOW, {"ciphers": [listed(CBC)]}),
    ("cipher-short-tag", Severity.LOW, {"ciphers": [listed(0xC0AE)]}),
    ("cipher-order", Severity.LOW, {"ciphers": [listed(GOOD_SUITE, STATIC, order="client")]}),
    ("dh-weak", Severity.HIGH, {"ciphers": [listed(0x009E, exchange="DH 1024")]}),
    ("dh-weak", Severity.MEDIUM, {"ciphers": [listed(0x009E, exchange="DH 1536")]}),
    ("group-weak", Severity.HIGH, {"groups": [groups(0x11EC), groups(0x13, name="TLS 1.2")]}),
    ("no-post-quantum", Severity.LOW, {"groups": [groups(0x1D)]}),
    ("no-post-quantum", Severity.LOW, {"groups": [groups(0x1D, name="TLS 1.2")]}),
    ("compression", Severity.HIGH, {"features": Features(compression=["DEFLATE"])}),
    ("renegotiation", Severity.MEDIUM, {"features": Features(secure_renegotiation=False)}),
    ("no-extended-master-secret", Severity.LOW, {"features": Features(extended_master_secret=False)}),
    ("no-fallback-scsv", Severity.LOW,
     {"features": Features(fallback_scsv=False), "versions": [version(TLS_1_3), version(0x0301)]}),
    ("sha1-signature", Severity.MEDIUM, {"features": Features(sha1_signatures=True)}),
    ("early-data", Severity.LOW, {"resumption": Resumption(early_data=16384)}),
    ("expired", Severity.HIGH, {"chains": [chain(facts(not_after="2026-11-20T00:00:00Z"))]}),
    ("expired", Severity.HIGH, {"chains": [chain(facts(), facts(not_after="2026-11-20T00:00:00Z"))]}),
    ("expires-soon", Severity.MEDIUM, {"chains": [chain(facts(not_after="2026-12-04T00:00:00Z"))]}),
    ("not-yet-valid", Severity.HIGH, {"chains": [chain(facts(not_before="2026-12-01T00:00:00Z"))]}),
    ("name-mismatch", Severity.HIGH, {"chains": [chain(names_match=False, problems=['not for "x": its names are y'])]}),
    ("untrusted", Severity.HIGH, {"chains": [chain(trusted=False, problems=['the issuer "CN=x" is neither sent'])]}),
    ("chain-invalid", Severity.HIGH, {"chains": [chain(problems=['the CA "x" may not sign certificates'])]}),
    ("key-weak", Severity.HIGH, {"chains": [chain(facts(remarks=["its key: RSA 1024 is refused; replace it"]))]}),
    ("sha1-certificate", Severity.HIGH,
     {"chains": [chain(facts(remarks=["signed with a broken hash; have it issued again"]))]}),
    ("no-alternative-names", Severity.MEDIUM,
     {"chains": [chain(facts(remarks=["no alternative names; clients ignore the common name and refuse it"]))]}),
    ("staple-missing", Severity.HIGH, {"chains": [chain(wants_staple=True)]}),
    ("staple-missing", Severity.INFO, {"chains": [chain(facts(ocsp_urls=["http://ocsp.example.org"]))]}),
    ("revoked", Severity.CRITICAL, {"chains": [chain(staple={"status": "revoked"})]}),
    ("staple-bad", Severity.MEDIUM, {"chains": [chain(staple={"status": "damaged"})]}),
    ("staple-bad", Severity.MEDIUM, {"chains": [chain(staple={"status": "good", "is_for": False})]}),
    ("staple-bad", Severity.MEDIUM,
     {"chains": [chain(staple={"status": "good", "is_for": True, "next_update": "2026-11-20T00:00:00Z"})]}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "severity", "changes"), CASES, ids=[f"{n}-{s.label}" for n, s, _ in CASES])
def test_each_weakness_is_called_by_its_name(name: str, severity: Severity, changes: dict[str, Any]) -> None:
    assert weak(**changes)[name] is severity


def test_one_fault_in_a_chain_is_one_weakness() -> None:
    expired = facts(not_after="2026-11-20T00:00:00Z")
    problems = ["the certificate expired on 2026-11-20 00:00:00 UTC"]
    assert list(weak(chains=[chain(expired, verifies=False, problems=problems)])) == ["expired"]
    lone = ['ends at "CN=x", which is self-signed and not trusted here; give it with --ca']
    assert list(weak(chains=[chain(verifies=False, trusted=False, problems=lone)])) == ["untrusted"]
    assert list(weak(chains=[chain(certificates=[], problems=["cannot be read: damaged"])])) == ["chain-invalid"]


def test_a_good_staple_is_no_weakness() -> None:
    good = {"status": "good", "is_for": True, "next_update": "2026-11-22T00:00:00Z"}
    assert weak(chains=[chain(staple=good, wants_staple=True)]) == {}


def test_the_worst_comes_first_and_every_weakness_has_a_remedy() -> None:
    found = findings(ciphers=[listed(CBC, NULL, RC4, STATIC)], versions=[version(0x0300)])
    found.weaknesses = judge(found, NOW)
    severities = [each.severity for each in found.weaknesses]
    assert severities == sorted(severities, reverse=True)
    assert found.worst() is Severity.CRITICAL
    for each in found.weaknesses:
        assert each.what
        assert each.remedy
        assert "\n" not in each.what + each.remedy


def test_only_modern_suites_are_without_flaw() -> None:
    without = {each.name for each in SUITES.values() if not flaws_of(each)}
    assert "TLS_AES_128_GCM_SHA256" in without
    assert all("GCM" in name or "CCM" in name or "POLY1305" in name for name in without)
    assert all("ECDHE" in name or "DHE" in name or name.startswith(("TLS_AES", "TLS_CHACHA", "TLS_SM4"))
               for name in without)  # fmt: skip


def test_the_json_is_plain_and_says_severities_in_words() -> None:
    found = findings(ciphers=[listed(CBC)])
    found.weaknesses = judge(found, NOW)
    document = json.loads(json.dumps(found.as_json()))
    assert document["schema"] == 1
    assert document["weaknesses"][0]["severity"] == "low"
    assert document["versions"][0] == {"name": "TLS 1.3", "id": 0x0304, "offered": True}
