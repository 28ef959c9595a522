"""Client mode before nginx and `openssl s_server`: rules on top of the host name, and a protocol that is demanded."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support import backends, certificates, peers, services, tls_servers
from tests.support.certificates import Pair
from tests.support.services import Services

pytestmark = [pytest.mark.interop, pytest.mark.slow]

REQUEST = b"GET / HTTP/1.0\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def pair() -> Pair:
    return certificates.issue(
        "db", dns=("db.example.org", "localhost"), uris=("spiffe://example.org/ns/prod/db",), ou=("data",)
    )


@pytest.fixture(scope="module")
def nginx(pair: Pair) -> Iterator[int]:
    with tls_servers.nginx(pair=pair) as port:
        yield port


def pin(pair: Pair) -> str:
    key = pair.leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + base64.b64encode(hashlib.sha256(key).digest()).decode()


def fetch(running: Services, service: str, data: bytes = REQUEST) -> bytes:
    with socket.create_connection(("127.0.0.1", running.at(service)), 60) as sock:
        sock.sendall(data)
        if data is not REQUEST:  # which asks nginx to close
            sock.shutdown(socket.SHUT_WR)
        try:
            return backends.read_all(sock)
        except ConnectionResetError:
            return b""


def test_every_rule_comes_on_top_of_the_name_and_server_name_overrides_it(
    tmp_path: Path, nginx: int, pair: Pair
) -> None:
    by_address = f'target = "127.0.0.1:{nginx}"'
    good = {
        "host": ("", None),
        "dns": ('verify_dns = "db.example.org"', "allow dns=db.example.org"),
        "uri": ('verify_uri = "spiffe://example.org/ns/*/db"', "allow uri=spiffe://example.org/ns/*/db"),
        "cn": ('verify_cn = "db"', "allow cn=db"),
        "ou": ('verify_ou = "data"', "allow ou=data"),
        "pin": (f'verify_spki_pin = "{pin(pair)}"', f"allow spki_pin={pin(pair)}"),
        "all": ('verify = [{ cn = "db", ou = "data", dns = "localhost" }]', "allow cn=db ou=data dns=localhost"),
        "any": ('verify_cn = "nobody"\nverify_ou = "data"', "allow ou=data"),
        "name": (f'{by_address}\nserver_name = "db.example.org"', None),
    }  # fmt: skip
    bad = {
        # A rule that matches does not help a name that does not.
        "address": (f'{by_address}\nverify_cn = "db"', "name_mismatch"),
        "other_name": (f'server_name = "db2.example.org"\nverify_spki_pin = "{pin(pair)}"', "name_mismatch"),
        # Nor a name that is right a rule that does not match.
        "half": ('verify = [{ cn = "db", ou = "sales" }]', "denied"),
        "other_pin": ('verify_spki_pin = "sha256:' + "A" * 43 + '="', "denied"),
        "part_of_path": ('verify_uri = "spiffe://example.org/*/db"', "denied"),
    }
    common = f'ca = "{certificates.ca().certificate}"'
    cases = {name: f'mode = "client"\n{lines}' for name, (lines, _) in (good | bad).items()}
    with services.run(tmp_path, f"localhost:{nginx}", cases, common) as running:
        for name, (_, rule) in good.items():
            assert fetch(running, name).startswith(b"HTTP/1.1 "), name
            record = running.record()
            assert (name, record["stage"], record["rule"]) == (name, "link", rule)
            assert record["identity"] == "uri=spiffe://example.org/ns/prod/db"
            assert record["server_name"] == ("db.example.org" if name == "name" else "localhost"), name
        for name, (_, reason) in bad.items():
            assert fetch(running, name) == b"", name
            record = running.record()
            assert (name, record["reason"], record["bytes_forward"]) == (name, reason, 0)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_protocol_that_is_required_is_required_of_servers_too(tmp_path: Path, pair: Pair, version: str) -> None:
    """A server that knows no ALPN is silent about it, and would else be served in whatever it speaks."""
    with (
        peers.s_server("-rev", pair=pair) as silent,
        peers.s_server("-rev", "-alpn", "y,x", pair=pair) as other,
    ):
        ca = f'ca = "{certificates.ca().certificate}"\nmax_version = "{version}"'
        cases = {
            f"{who}_{need}": f'mode = "client"\n{ca}\ntarget = "localhost:{port}"\nalpn = ["x"]\nalpn_required = {need}'
            for who, port in (("silent", silent.port), ("speaks", other.port))
            for need in ("true", "false")
        }
        own = certificates.server("localhost")
        cases["inside"] = (
            f'certificate = "{own.certificate}"\nkey = "{own.key}"\ntarget = "localhost:{silent.port}"\n'
            f'target_tls = {{ ca = "{certificates.ca().certificate}", alpn = ["x"], alpn_required = true }}'
        )
        with services.run(tmp_path, "", cases) as running:
            for name in ("speaks_true", "speaks_false", "silent_false"):
                assert fetch(running, name, b"drawer\n") == b"reward\n", name
                record = running.record()
                assert (name, record["alpn"]) == (name, "x" if name.startswith("speaks") else "")
            assert fetch(running, "silent_true", b"drawer\n") == b""
            record = running.record()
            assert (record["reason"], record["bytes_forward"]) == ("no_shared_alpn", 0)
            said = services.ask(running.at("inside"), certificates.ca().certificate)
            assert "reward" not in said.text
            assert running.record()["reason"] == "no_shared_alpn"
