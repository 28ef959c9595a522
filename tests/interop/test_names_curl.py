"""Many names on one listener: curl and openssl(1) see the certificate, target and settings of each."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support import backends, certificates, openssl_ca, services
from tests.support.certificates import NOW
from tests.support.interop import require
from tests.support.services import Services, ask

pytestmark = [pytest.mark.interop, pytest.mark.slow]

UNRECOGNIZED_NAME, PROTOCOL_VERSION, NO_APPLICATION_PROTOCOL, HANDSHAKE_FAILURE = 112, 70, 120, 40
TARGETS = ("own", "exact", "wildcard", "strict")
DAY = timedelta(days=1)


def http(name: str) -> backends.Handler:
    """A web server with one page, its name."""
    body = f"{name}\n".encode()

    def handler(sock: Any) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            piece = sock.recv(4096)
            if not piece:
                return
            request += piece
        sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        backends.half_close(sock)
        backends.read_all(sock)

    return handler


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> openssl_ca.Authority:
    return openssl_ca.make(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, authority: openssl_ca.Authority) -> Iterator[Services]:
    def files(name: str, *more: str, **how: Any) -> str:
        pair = authority.issue(name, "subjectAltName=" + ",".join(f"DNS:{each}" for each in (name, *more)), **how)
        return f'certificate = "{pair.certificate}"\nkey = "{pair.key}"'

    rsa, ecdsa = (
        authority.issue("both.example", "subjectAltName=DNS:both.example", key=key) for key in ("rsa:2048", "ec:P-256")
    )
    past = ("-startdate", "20200101000000Z", "-enddate", "20200102000000Z")
    with contextlib.ExitStack() as stack:
        ports = {name: stack.enter_context(backends.serve(http(name))).port for name in TARGETS}

        def to(name: str) -> str:
            return f'target = "127.0.0.1:{ports[name]}"'

        entries = "\n".join([
            "[[sni]]", 'names = ["*.example.org"]', files("*.example.org"), to("wildcard"),
            "[[sni]]", 'names = ["www.example.org"]', files("www.example.org"), to("exact"),
            "[[sni]]", 'names = ["strict.example"]', files("strict.example"), to("strict"),
            'min_version = "1.3"', 'alpn = ["postgresql"]', "alpn_required = true",
            "[[sni]]", 'names = ["renewed.example"]', files("renewed.example", options=past),
            "[[sni]]", 'names = ["renewed.example"]', files("renewed.example"),
            "[[sni]]", 'names = ["both.example"]',
            f'certificate = ["{rsa.certificate}", "{ecdsa.certificate}"]', f'key = ["{rsa.key}", "{ecdsa.key}"]',
        ])  # fmt: skip
        own = files("localhost", "own.example") + '\nalpn = ["http/1.1", "http/1.0"]'
        cases = {"default": f"{own}\n{entries}", "reject": f'{own}\nsni_mismatch = "reject"\n{entries}'}
        folder = tmp_path_factory.mktemp("names")
        with services.run(folder, ports["own"], cases) as found:
            yield found


def curl(running: Services, authority: openssl_ca.Authority, name: str, *options: str, service: str = "default") -> str:
    """The page of a name, or curl's exit status."""
    port = running.at(service)
    done = subprocess.run(
        [
            require("curl"), "--silent", "--max-time", "60", "--noproxy", "*", "--cacert", str(authority.certificate),
            "--resolve", f"{name}:{port}:127.0.0.1", *options, f"https://{name}:{port}/",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() if done.returncode == 0 else f"curl {done.returncode}"


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("www.example.org", "exact"),
        ("WWW.example.ORG", "exact"),
        ("api.example.org", "wildcard"),
        ("localhost", "own"),
        ("own.example", "own"),
        ("renewed.example", "own"),
        ("both.example", "own"),
    ],
)
@pytest.mark.parametrize("service", ["default", "reject"])
def test_each_name_gets_its_certificate_and_its_target(
    running: Services, authority: openssl_ca.Authority, name: str, target: str, service: str
) -> None:
    """curl verifies the certificate for the name it asked for."""
    assert curl(running, authority, name, service=service) == target
    record = running.record()
    assert record["server_name"] == name.lower()
    assert record["stage"] == "link"


def test_a_wildcard_stands_for_one_label(running: Services, authority: openssl_ca.Authority) -> None:
    for name in ("a.b.example.org", "example.org"):
        assert curl(running, authority, name, "--insecure") == "own"
        assert running.record()["server_name"] == name


def test_a_name_nobody_has_gets_the_default_or_an_alert(running: Services, authority: openssl_ca.Authority) -> None:
    assert curl(running, authority, "stranger.example", "--insecure") == "own"
    running.record()
    said = ask(running.at("reject"), authority.certificate, name="stranger.example")
    assert said.alert == UNRECOGNIZED_NAME
    record = running.record()
    assert (record["reason"], record["server_name"]) == ("unrecognized_name", "stranger.example")
    assert record["detail"].startswith('it asks for "stranger.example"; ')
    assert curl(running, authority, "stranger.example", "--insecure", service="reject") == "curl 35"
    running.record()
    # Who asks for no name is not told that there are others.
    assert "CN=localhost" in ask(running.at("reject"), authority.certificate, name=None, waits=False).text
    running.record()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize(("sigalgs", "kind"), [("rsa_pss_rsae_sha256", "RSA"), ("ecdsa_secp256r1_sha256", "EC")])
def test_rsa_and_ecdsa_of_one_name_are_chosen_by_what_the_client_can_verify(
    running: Services, authority: openssl_ca.Authority, version: str, sigalgs: str, kind: str
) -> None:
    said = ask(
        running.at("default"), authority.certificate, version, "-sigalgs", sigalgs, "-verify_return_error",
        name="both.example", waits=False,
    )  # fmt: skip
    running.record()
    assert "Verify return code: 0 (ok)" in said.text
    # rsaEncryption or RSA, id-ecPublicKey or EC, as the version of openssl has it.
    assert str(said.field(r"^   a:PKEY: (?:id-)?(ec|rsa|EC|RSA)")).upper() == kind


def test_versions_and_alpn_are_those_of_the_name(running: Services, authority: openssl_ca.Authority) -> None:
    port, ca = running.at("default"), authority.certificate
    assert ask(port, ca, "-tls1_2", "-alpn", "postgresql", name="strict.example").alert == PROTOCOL_VERSION
    record = running.record()
    assert record["reason"] == "no_shared_version"
    assert record["detail"].startswith("client offers TLS 1.2; ")
    assert ask(port, ca, "-alpn", "http/1.1", name="strict.example").alert == NO_APPLICATION_PROTOCOL
    assert running.record()["reason"] == "no_shared_alpn"
    assert curl(running, authority, "own.example") == "own"
    assert running.record()["alpn"] == "http/1.1"
    assert ask(port, ca, "-alpn", "h2", name="own.example").alert == NO_APPLICATION_PROTOCOL
    assert running.record()["reason"] == "no_shared_alpn"
    for offered, agreed in (("http/1.0,http/1.1", "http/1.1"), ("http/1.0", "http/1.0")):
        ask(port, ca, "-alpn", offered, name="own.example", waits=False)
        assert running.record()["alpn"] == agreed
    assert curl(running, authority, "own.example", "--no-alpn", "--tls-max", "1.2") == "own"
    record = running.record()
    assert (record["alpn"], record["version"]) == ("", "TLSv1.2")


def test_rules_are_those_of_the_name(authority: openssl_ca.Authority, tmp_path: Path) -> None:
    server = authority.issue("localhost", "subjectAltName=DNS:localhost,DNS:admin.example")
    with backends.serve(services.greet) as backend:
        lines = (
            f'certificate = "{server.certificate}"\nkey = "{server.key}"\nclient_auth = "required"\n'
            f'client_ca = "{authority.certificate}"\nallow_any = true\n'
            '[[sni]]\nnames = ["admin.example"]\nallow = [{ ou = "ops" }]\n'
        )
        clerk, admin = (authority.issue("x", subject=f"/OU={unit}/CN=x") for unit in ("sales", "ops"))
        with services.run(tmp_path, backend.port, {"web": lines}) as running:
            for pair, name, rule in (
                (clerk, "localhost", "allow_any"),
                (clerk, "admin.example", "no rule matches"),
                (admin, "admin.example", "allow ou=ops"),
            ):
                said = ask(running.at("web"), authority.certificate, pair=pair, name=name)
                record = running.record()
                assert record["rule"] == rule
                assert said.alert == (HANDSHAKE_FAILURE if rule == "no rule matches" else None)
                assert (services.GREETING in said.text) is (rule != "no rule matches")
            # A session of one name does not open the other.
            session = str(tmp_path / "session")
            ask(running.at("web"), authority.certificate, "-sess_out", session, pair=clerk)
            running.record()
            said = ask(running.at("web"), authority.certificate, "-sess_in", session, pair=clerk, name="admin.example")
            record = running.record()
            assert (record["reason"], services.GREETING in said.text) == ("denied", False)


def test_chains_of_rsa_and_ecdsa_are_each_their_own(tmp_path: Path) -> None:
    pairs = [
        certificates.server(
            "localhost",
            key_type=key_type,
            through_intermediate=True,
            authority=f"{key_type} root",
            not_after=NOW + DAY * 30,
        )
        for key_type in ("RSA 2048", "ECDSA P-256")
    ]
    with backends.serve(services.greet) as backend:
        lines = (
            f"certificate = [{', '.join(f'{str(pair.certificate)!r}' for pair in pairs)}]\n"
            f"key = [{', '.join(f'{str(pair.key)!r}' for pair in pairs)}]"
        )
        with services.run(tmp_path, backend.port, {"web": lines}) as running:
            for key_type, sigalgs in (("RSA 2048", "rsa_pss_rsae_sha256"), ("ECDSA P-256", "ecdsa_secp256r1_sha256")):
                root = certificates.ca(f"{key_type} root")
                said = ask(
                    running.at("web"), root.certificate, "-sigalgs", sigalgs, "-verify_return_error", "-showcerts"
                )
                assert "Verify return code: 0 (ok)" in said.text
                assert said.text.count("-----BEGIN CERTIFICATE-----") == 2
