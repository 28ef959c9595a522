"""Who may connect: every kind of rule, judged on certificates of openssl(1), asked for by `openssl s_client`.

The backend speaks first and counts, so a denied client that got one byte of it, or made it be dialled, would show.
"""

from __future__ import annotations

import base64
import hashlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import backends, openssl_ca, services
from tests.support.backends import Backend
from tests.support.interop import require
from tests.support.openssl_ca import Authority, Pair
from tests.support.services import GREETING, Services, ask

pytestmark = [pytest.mark.interop, pytest.mark.slow]

HANDSHAKE_FAILURE, CERTIFICATE_REQUIRED = 40, 116
VERSIONS = ["-tls1_2", "-tls1_3"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return openssl_ca.make(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Pair:
    return authority.issue("localhost", "subjectAltName=DNS:localhost")


@pytest.fixture(scope="module")
def client(authority: Authority) -> Pair:
    """One certificate that every rule below matches."""
    return authority.issue(
        "billing",
        "subjectAltName=DNS:a.clients.example,URI:spiffe://example.org/ns/prod/billing,IP:192.0.2.7,"
        "email:Ops@EXAMPLE.org",
        subject="/OU=finance/OU=ops/CN=billing",
    )


@pytest.fixture(scope="module")
def stranger(authority: Authority) -> Pair:
    """One that no rule below matches, although the CA vouches for it and it looks almost right."""
    return authority.issue(
        "billing2",
        "subjectAltName=DNS:a.b.clients.example,URI:spiffe://example.org/ns/prod/x/billing,IP:192.0.3.7,"
        "email:ops@example.org.evil.example",
        subject="/OU=finances/CN=billing2",
    )


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with backends.serve(services.greet) as running:
        yield running


def pin(pair: Pair) -> str:
    key = subprocess.run(
        [require("openssl"), "x509", "-in", str(pair.certificate), "-pubkey", "-noout"], capture_output=True, check=True
    )
    der = subprocess.run(
        [require("openssl"), "pkey", "-pubin", "-outform", "DER"], input=key.stdout, capture_output=True, check=True
    )
    return "sha256:" + base64.b64encode(hashlib.sha256(der.stdout).digest()).decode()


RULES = {
    "cn": '{ cn = "billing" }',
    "ou": '{ ou = "finance" }',
    "dns": '{ dns = "*.clients.example" }',
    "uri": '{ uri = "spiffe://example.org/ns/*/billing" }',
    "ip": '{ ip = "192.0.2.0/24" }',
    "email": '{ email = "Ops@example.org" }',
    "pin": '{ spki_pin = "PIN" }',
    "all_of_a_rule": '{ cn = "billing", ou = "ops", dns = "a.clients.example" }',
    "any_of_the_rules": '{ cn = "nobody" }, { cn = "nobody", ou = "ops" }, { ou = "ops" }',
}
NAMED = {
    "cn": "cn=billing",
    "ou": "ou=finance",
    "dns": "dns=*.clients.example",
    "uri": "uri=spiffe://example.org/ns/*/billing",
    "ip": "ip=192.0.2.0/24",
    "email": "email=Ops@example.org",
    "pin": "spki_pin=PIN",
    "all_of_a_rule": "cn=billing ou=ops dns=a.clients.example",
    "any_of_the_rules": "ou=ops",
}


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, server: Pair, client: Pair, backend: Backend
) -> Iterator[Services]:
    common = (
        f'certificate = "{server.certificate}"\nkey = "{server.key}"\n'
        f'client_auth = "required"\nclient_ca = "{authority.certificate}"'
    )
    cases = {name: f"allow = [{rule.replace('PIN', pin(client))}]" for name, rule in RULES.items()}
    cases |= {
        f"deny_{name}": f"allow_any = true\ndeny = [{rule}]".replace("PIN", pin(client)) for name, rule in RULES.items()
    }
    cases["allow_any"] = "allow_any = true"
    cases["deny_wins"] = 'allow = [{ cn = "billing" }]\ndeny = [{ ou = "ops" }]'
    cases["half_a_rule"] = 'allow = [{ cn = "billing", ou = "sales" }]'
    cases["optional"] = 'client_auth = "optional"\nallow = [{ cn = "billing" }]'
    cases["no_anonymous"] = 'client_auth = "optional"\nanonymous = "deny"\nallow = [{ cn = "billing" }]'
    with services.run(tmp_path_factory.mktemp("rules"), backend.port, cases, common) as found:
        yield found


@pytest.mark.parametrize("name", RULES)
def test_a_client_that_a_rule_matches_is_admitted_and_the_rule_is_named(
    running: Services, authority: Authority, client: Pair, name: str
) -> None:
    assert GREETING in ask(running.at(name), authority.certificate, pair=client).text
    record = running.record()
    assert record["rule"] == "allow " + NAMED[name].replace("PIN", pin(client))
    assert record["identity"] is not None
    assert record["reason"] == "finished"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [*RULES, "half_a_rule"])
def test_a_client_that_no_rule_matches_gets_an_alert_and_nothing_of_the_backend(
    running: Services, authority: Authority, stranger: Pair, backend: Backend, name: str, version: str
) -> None:
    dialled = backend.count
    said = ask(running.at(name), authority.certificate, version, pair=stranger)
    assert said.alert == HANDSHAKE_FAILURE
    assert GREETING not in said.text
    record = running.record()
    assert (record["reason"], record["rule"]) == ("denied", "no rule matches")
    assert record["identity"] is not None
    assert record["detail"] == f"{record['identity']}: no rule matches; add an allow rule if it may connect"
    assert record["target"] is None
    assert backend.count == dialled


@pytest.mark.parametrize("name", [f"deny_{name}" for name in RULES] + ["deny_wins"])
def test_a_deny_rule_wins_over_whatever_allows(
    running: Services, authority: Authority, client: Pair, backend: Backend, name: str
) -> None:
    dialled = backend.count
    said = ask(running.at(name), authority.certificate, pair=client)
    assert (said.alert, GREETING in said.text) == (HANDSHAKE_FAILURE, False)
    record = running.record()
    assert record["reason"] == "denied"
    rule = "ou=ops" if name == "deny_wins" else NAMED[name.removeprefix("deny_")].replace("PIN", pin(client))
    assert record["rule"] == f"deny {rule}"
    assert backend.count == dialled


def test_deny_rules_refuse_nobody_else(running: Services, authority: Authority, stranger: Pair) -> None:
    for name in RULES:
        assert GREETING in ask(running.at(f"deny_{name}"), authority.certificate, pair=stranger).text
        assert running.record()["rule"] == "allow_any"


def test_allow_any_admits_whom_the_ca_vouches_for_and_nobody_else(
    running: Services, authority: Authority, stranger: Pair, backend: Backend, tmp_path: Path
) -> None:
    assert GREETING in ask(running.at("allow_any"), authority.certificate, pair=stranger).text
    assert running.record()["rule"] == "allow_any"
    dialled = backend.count
    other = openssl_ca.make(tmp_path, "another CA").issue("billing", subject="/OU=finance/CN=billing")
    said = ask(running.at("allow_any"), authority.certificate, pair=other)
    assert (said.alert, GREETING in said.text) == (48, False)  # unknown_ca
    assert running.record()["reason"] == "unknown_ca"
    assert backend.count == dialled


@pytest.mark.parametrize("version", VERSIONS)
def test_without_a_certificate_an_optional_service_admits_and_a_required_one_says_what_is_missing(
    running: Services, authority: Authority, backend: Backend, version: str
) -> None:
    assert GREETING in ask(running.at("optional"), authority.certificate, version).text
    record = running.record()
    assert (record["rule"], record["identity"], record["reason"]) == ("anonymous", None, "finished")
    dialled = backend.count
    for name in ("cn", "no_anonymous"):
        said = ask(running.at(name), authority.certificate, version)
        # TLS 1.2 has no alert of its own for it (RFC 8446 section 6.2).
        assert said.alert == (CERTIFICATE_REQUIRED if version == "-tls1_3" else HANDSHAKE_FAILURE)
        assert GREETING not in said.text
        assert running.record()["reason"] == "no_client_certificate"
    assert backend.count == dialled


def test_on_an_optional_service_the_rules_hold_for_those_who_show_a_certificate(
    running: Services, authority: Authority, client: Pair, stranger: Pair
) -> None:
    for name in ("optional", "no_anonymous"):
        assert GREETING in ask(running.at(name), authority.certificate, pair=client).text
        assert running.record()["rule"] == "allow cn=billing"
        assert ask(running.at(name), authority.certificate, pair=stranger).alert == HANDSHAKE_FAILURE
        assert running.record()["reason"] == "denied"


def test_clients_without_a_certificate_go_to_the_fallback_target(
    authority: Authority, server: Pair, client: Pair, stranger: Pair, backend: Backend, tmp_path: Path
) -> None:
    with backends.serve(services.say("the fallback")) as fallback:
        case = (
            f'certificate = "{server.certificate}"\nkey = "{server.key}"\nclient_auth = "optional"\n'
            f'client_ca = "{authority.certificate}"\nallow = [{{ cn = "billing" }}]\n'
            f'fallback_target = "127.0.0.1:{fallback.port}"'
        )
        with services.run(tmp_path, backend.port, {"web": case}) as running:
            said = ask(running.at("web"), authority.certificate)
            assert "the fallback" in said.text
            assert GREETING not in said.text
            record = running.record()
            assert (record["rule"], record["target"]) == ("fallback_target", f"127.0.0.1:{fallback.port}")
            assert GREETING in ask(running.at("web"), authority.certificate, pair=client).text
            assert running.record()["rule"] == "allow cn=billing"
            dialled = fallback.count + backend.count
            assert ask(running.at("web"), authority.certificate, pair=stranger).alert == HANDSHAKE_FAILURE
            assert running.record()["reason"] == "denied"
            assert fallback.count + backend.count == dialled


@pytest.mark.parametrize("version", VERSIONS)
def test_a_resumed_session_is_judged_again_and_a_change_of_rules_ends_resumption(
    authority: Authority, server: Pair, client: Pair, backend: Backend, tmp_path: Path, version: str
) -> None:
    common = (
        f'certificate = "{server.certificate}"\nkey = "{server.key}"\n'
        f'client_auth = "required"\nclient_ca = "{authority.certificate}"'
    )
    session = tmp_path / "session"

    def go(running: Services, *options: str) -> tuple[services.Said, dict[str, object]]:
        return ask(running.at("web"), authority.certificate, version, *options, pair=client), running.record()

    with services.run(tmp_path, backend.port, {"web": 'allow = [{ cn = "billing" }]'}, common) as running:

        def rules(lines: str) -> None:
            services.write(running.config, backend.port, {"web": lines}, common)
            before = len(running.daemon.messages)
            running.daemon.process.send_signal(signal.SIGHUP)
            running.daemon.until(
                lambda: [m for m in running.daemon.messages[before:] if "; the old one drains" in m["message"]
                         or m["message"].startswith("reloaded")],
                "a reload",
            )  # fmt: skip

        rules('allow = [{ cn = "billing" }]')
        said, record = go(running, "-sess_out", str(session))
        assert record["resumed"] is False
        said, record = go(running, "-sess_in", str(session))
        assert (record["resumed"], record["rule"]) == (True, "allow cn=billing")
        assert record["identity"]
        assert GREETING in said.text
        dialled = backend.count
        rules('allow_any = true\ndeny = [{ cn = "billing" }]')
        said, record = go(running, "-sess_in", str(session))
        assert said.alert == HANDSHAKE_FAILURE
        assert record["reason"] == "denied"
        assert backend.count == dialled
        rules('allow = [{ ou = "ops" }]')
        said, record = go(running, "-sess_in", str(session))
        assert (record["resumed"], record["rule"], record["reason"]) == (False, "allow ou=ops", "finished")
