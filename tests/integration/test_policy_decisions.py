"""Every decision of the access rules is named twice: its rule in the log, its reason in a metric; once each.

The peers are openssl's: `s_client` with certificates of openssl(1) in server mode, `s_server` in client mode.
"""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import backends, clients, openssl_ca, peers, services
from tests.support.backends import Backend
from tests.support.interop import require
from tests.support.openssl_ca import Authority, Pair
from tests.support.services import GREETING, Services, ask
from tlstunnel.observe.series import DECISIONS

pytestmark = [pytest.mark.interop, pytest.mark.slow]

VERSIONS = ["-tls1_2", "-tls1_3"]
RULES = 'allow = [{ cn = "billing" }]\ndeny = [{ ou = "left" }]\n'
SERVICES = {
    "required": f'client_auth = "required"\n{RULES}',
    "any": 'client_auth = "required"\nallow_any = true\n',
    "optional": f'client_auth = "optional"\n{RULES}',
    "no_anonymous": f'client_auth = "optional"\nanonymous = "deny"\n{RULES}',
    "fallback": f'client_auth = "optional"\n{RULES}fallback_target = "TARGET"\n',
    "unasked": "",
}
# Which subject, at which service, is told what by which rule.
CASES = [
    ("required", "/CN=billing", "allow_rule", "allow cn=billing"),
    ("any", "/CN=stranger", "allow_any", "allow_any"),
    ("optional", None, "anonymous", "anonymous"),
    ("fallback", None, "anonymous", "fallback_target"),
    ("required", "/OU=left/CN=billing", "deny_rule", "deny ou=left"),
    ("optional", "/CN=stranger", "no_rule", "no rule matches"),
    ("required", None, "no_certificate", "no certificate"),
    ("no_anonymous", None, "no_certificate", "no certificate"),
]
ALLOWS = ("allow_rule", "allow_any", "anonymous")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return openssl_ca.make(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def pairs(authority: Authority) -> dict[str | None, Pair | None]:
    subjects = {subject for _, subject, _, _ in CASES if subject is not None}
    return {None: None} | {subject: authority.issue("client", subject=subject) for subject in subjects}


@pytest.fixture(scope="module")
def server(authority: Authority) -> Pair:
    return authority.issue("localhost", "subjectAltName=DNS:localhost")


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with backends.serve(services.greet) as running:
        yield running


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, server: Pair, backend: Backend
) -> Iterator[tuple[Services, int]]:
    pair = f'certificate = "{server.certificate}"\nkey = "{server.key}"\n'
    asking = f'client_ca = "{authority.certificate}"\n'
    cases = {
        name: pair + (asking if lines else "") + lines.replace("TARGET", f"127.0.0.1:{backend.port}")
        for name, lines in SERVICES.items()
    }
    admin = peers.free_port()
    rest = f'[admin]\nlisten = "127.0.0.1:{admin}"\n'
    with services.run(tmp_path_factory.mktemp("decisions"), backend.port, cases, rest=rest) as found:
        yield found, admin


def counted(admin: int) -> dict[tuple[str, str], float]:
    """How often which decision was made, by service and reason."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=60) as page:
        text = page.read().decode()
    lines = re.findall(
        r'^tlstunnel_access_decisions_total{reason="(\w+)",service="(\w+)"} (\S+)$', text, flags=re.MULTILINE
    )
    return {(service, reason): float(value) for reason, service, value in lines}


def added(admin: int, before: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    return {key: value - before[key] for key, value in counted(admin).items() if value != before[key]}


def test_series_are_there_from_the_start_and_only_of_services_that_ask_for_certificates(
    running: tuple[Services, int],
) -> None:
    assert set(counted(running[1])) == {
        (name, reason) for name in SERVICES if name != "unasked" for reason in DECISIONS
    }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("service", "subject", "reason", "rule"), CASES)
def test_a_full_handshake_counts_one_decision_under_the_reason_of_the_rule_that_is_logged(
    running: tuple[Services, int],
    authority: Authority,
    pairs: dict[str | None, Pair | None],
    service: str,
    subject: str | None,
    reason: str,
    rule: str,
    version: str,
) -> None:
    tunnel, admin = running
    before = counted(admin)
    said = ask(tunnel.at(service), authority.certificate, version, pair=pairs[subject])
    record = tunnel.record()
    assert (GREETING in said.text) is (reason in ALLOWS)
    assert (record["rule"], record["reason"] == "finished") == (rule, reason in ALLOWS)
    assert added(admin, before) == {(service, reason): 1}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("service", "subject", "reason", "rule"), [case for case in CASES if case[2] in ALLOWS])
def test_a_resumed_session_counts_one_decision_of_its_own(
    running: tuple[Services, int],
    authority: Authority,
    pairs: dict[str | None, Pair | None],
    tmp_path: Path,
    service: str,
    subject: str | None,
    reason: str,
    rule: str,
    version: str,
) -> None:
    tunnel, admin = running
    session = str(tmp_path / "session")
    ask(tunnel.at(service), authority.certificate, version, "-sess_out", session, pair=pairs[subject])
    assert tunnel.record()["resumed"] is False
    before = counted(admin)
    ask(tunnel.at(service), authority.certificate, version, "-sess_in", session, pair=pairs[subject])
    record = tunnel.record()
    assert (record["resumed"], record["rule"]) == (True, rule)
    assert added(admin, before) == {(service, reason): 1}


def test_what_openssl_refuses_no_rule_has_judged(
    running: tuple[Services, int], authority: Authority, tmp_path: Path
) -> None:
    tunnel, admin = running
    other = openssl_ca.make(tmp_path, "another CA").issue("client", subject="/CN=billing")
    before = counted(admin)
    ask(tunnel.at("required"), authority.certificate, pair=other)
    record = tunnel.record()
    assert (record["reason"], record["rule"]) == ("unknown_ca", None)
    assert added(admin, before) == {}


def test_a_service_that_asks_for_no_certificate_decides_nothing(
    running: tuple[Services, int], authority: Authority
) -> None:
    tunnel, admin = running
    assert GREETING in ask(tunnel.at("unasked"), authority.certificate).text
    assert tunnel.record()["rule"] is None
    assert not [key for key in counted(admin) if key[0] == "unasked"]


def test_in_client_mode_verify_rules_are_counted_and_without_them_there_is_nothing(
    authority: Authority, server: Pair, tmp_path: Path
) -> None:
    verify = {"allow_rule": 'verify_cn = "localhost"', "no_rule": 'verify = [{ cn = "other" }, { ou = "other" }]'}
    common = f'mode = "client"\nca = "{authority.certificate}"\n'
    port, admin = peers.free_port(), peers.free_port()
    command = [
        require("openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(server.certificate),
        "-key", str(server.key), "-rev",
    ]  # fmt: skip
    cases = {"none": common} | {reason: common + lines for reason, lines in verify.items()}
    rest = f'[admin]\nlisten = "127.0.0.1:{admin}"\n'
    with (
        peers.talking(command) as peer,
        services.run(tmp_path, f"localhost:{port}", cases, rest=rest) as running,
    ):
        peer.read_until("ACCEPT")
        with clients.raw(running.at("none")) as sock:
            sock.sendall(b"hello\n")
            assert sock.recv(100) == b"olleh\n"
        assert running.record()["rule"] is None
        assert set(counted(admin)) == {(service, reason) for service in verify for reason in verify}
        for reason in verify:
            before = counted(admin)
            for is_second in (False, True):
                with clients.raw(running.at(reason)) as sock:
                    sock.sendall(b"hello\n")
                    allowed = reason.startswith("allow")
                    assert (sock.recv(100) == b"olleh\n") is allowed
                    sock.shutdown(1)
                    clients.read_to_end(sock)
                record = running.record()
                assert record["rule"] == ("allow cn=localhost" if allowed else "no rule matches")
                assert record["resumed"] is (is_second if allowed else None)  # refused within the handshake
            assert added(admin, before) == {(reason, reason): 2}
