"""Networks, rates and limits by the address that a PROXY header names, IPv6 among them, and what counts without one.

A header may name any address, so networks of IPv6 are tried here that no machine of ours has.
"""

from __future__ import annotations

import contextlib
import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import backends, certificates, clients, peers, services
from tests.support.services import GREETING, Services
from tests.support.wire_peers import client_context
from tlstunnel.proxy_protocol import Endpoint, encode_v1, encode_v2

pytestmark = pytest.mark.slow

HERE = Endpoint("2001:db8:ffff::1", 443)
UNKNOWN = encode_v1(None, None)
LOCAL = encode_v2(None, None)
UNSPECIFIED = b"\r\n\r\n\x00\r\nQUIT\n\x21\x00\x00\x00"
"""PROXY without a family: a client, of whom nothing is known (section 2.2)."""


@contextlib.contextmanager
def running(tmp_path: Path, cases: dict[str, str]) -> Iterator[tuple[Services, int]]:
    pair = certificates.server("localhost")
    common = f'certificate = "{pair.certificate}"\nkey = "{pair.key}"'
    admin = peers.free_port()
    with backends.serve(services.greet) as backend:
        rest = f'[admin]\nlisten = "127.0.0.1:{admin}"\n'
        with services.run(tmp_path, backend.port, cases, common, rest) as found:
            yield found, admin


def as_client(host: str) -> bytes:
    there = HERE if ":" in host else Endpoint("203.0.113.1", 443)
    return encode_v2(Endpoint(host, 7), there)


def enter(port: int, header: bytes, host: str = "127.0.0.1") -> socket.socket | None:
    """A session of the client that the header names, open; None if it is closed without a word."""
    sock = clients.raw(port, host=host)
    sock.sendall(header)
    try:
        tls = client_context().wrap_socket(sock, server_hostname="localhost")
    except OSError:
        sock.close()
        return None
    assert tls.recv(100).startswith(GREETING.encode())
    return tls


def is_admitted(port: int, header: bytes, host: str = "127.0.0.1") -> bool:
    sock = enter(port, header, host)
    if sock is not None:
        sock.close()
    return sock is not None


def rejected(admin: int, reason: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=60) as page:
        text = page.read().decode()
    found = re.findall(rf'^tlstunnel_connections_rejected_total{{reason="{reason}",service="web"}} (\S+)$', text, re.M)
    return float(found[0])


def test_networks_of_ipv6_are_told_apart_to_the_bit(tmp_path: Path) -> None:
    case = (
        'accept_proxy_protocol = true\nallow_from = ["2001:db8::/33", "192.0.2.0/24"]\n'
        'deny_from = ["2001:db8:0:1::/64", "192.0.2.128/25"]'
    )
    with running(tmp_path, {"web": case}) as (tunnel, admin):
        port = tunnel.at("web")
        said = {
            host: is_admitted(port, as_client(host))
            for host in (
                "2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:7fff:ffff::1", "2001:db8:8000::1",
                "2001:db7::1", "192.0.2.1", "192.0.2.129", "198.51.100.1", "::ffff:192.0.2.1", "::ffff:192.0.2.200",
            )
        }  # fmt: skip
        assert [host for host, admitted in said.items() if admitted] == [
            "2001:db8::1", "2001:db8:0:2::1", "2001:db8:7fff:ffff::1", "192.0.2.1", "::ffff:192.0.2.1",
        ]  # fmt: skip
        assert rejected(admin, "network_denied") == 6


@pytest.mark.parametrize("key", ["max_connections_per_ip = 2", 'connection_rate_per_ip = "1/h burst 2"'])
def test_clients_of_ipv6_are_counted_by_their_64(tmp_path: Path, key: str) -> None:
    with running(tmp_path, {"web": f"accept_proxy_protocol = true\n{key}"}) as (tunnel, admin):
        port = tunnel.at("web")
        with contextlib.ExitStack() as stack:
            for number in range(2):
                sock = enter(port, as_client(f"2001:db8:0:1:{number}:{number}::1"))
                assert sock is not None
                stack.enter_context(sock)
            assert not is_admitted(port, as_client("2001:db8:0:1:ffff:ffff:ffff:ffff"))
            assert is_admitted(port, as_client("2001:db8:0:2::1"))
            assert is_admitted(port, as_client("192.0.2.1"))
            assert rejected(admin, key.partition(" ")[0]) == 1


def test_clients_that_come_by_ipv6_themselves_are_asked_about_too(tmp_path: Path) -> None:
    """A listener for both families sees IPv4 clients as such."""
    cases = {
        "web": 'listen = "[::1]:0"\nmax_connections_per_ip = 1',
        "six_denied": 'listen = ":0"\ndeny_from = "::1"',
        "four_denied": 'listen = ":0"\ndeny_from = "127.0.0.0/8"',
    }
    with running(tmp_path, cases) as (tunnel, admin):
        web = tunnel.at("web")
        with clients.raw(web, host="::1"):
            # Half open, and counted.
            assert not is_admitted(web, b"", "::1")
            assert rejected(admin, "max_connections_per_ip") == 1
        for host, six, four in (("::1", False, True), ("127.0.0.1", True, False)):
            assert is_admitted(tunnel.at("six_denied"), b"", host) is six
            assert is_admitted(tunnel.at("four_denied"), b"", host) is four
        message = tunnel.daemon.message("rejected", "four_denied")
        assert message["client"].startswith("127.0.0.1:")  # and not ::ffff:127.0.0.1


@pytest.mark.parametrize("header", [UNKNOWN, UNSPECIFIED], ids=["v1", "v2"])
def test_a_client_the_proxy_does_not_know_stands_under_the_proxys_address(tmp_path: Path, header: bytes) -> None:
    """Section 2.1 of the specification: the real connection's addresses count then. They must not be a way around
    the networks."""
    cases = {
        "web": 'accept_proxy_protocol = true\nallow_from = "192.0.2.0/24"',
        "own": 'accept_proxy_protocol = true\nallow_from = ["192.0.2.0/24", "127.0.0.1"]\nmax_connections_per_ip = 1',
    }
    with running(tmp_path, cases) as (tunnel, admin):
        assert not is_admitted(tunnel.at("web"), header)
        record = tunnel.record()
        assert (record["reason"], record["real_client"]) == ("network_denied", None)
        assert rejected(admin, "network_denied") == 1
        sock = enter(tunnel.at("own"), header)
        assert sock is not None
        with sock:
            assert not is_admitted(tunnel.at("own"), header)
            assert tunnel.record()["reason"] == "max_connections_per_ip"


def test_a_proxys_own_health_check_is_nobodys_client(tmp_path: Path) -> None:
    case = 'accept_proxy_protocol = true\nallow_from = "192.0.2.0/24"\nmax_connections_per_ip = 1'
    with running(tmp_path, {"web": case}) as (tunnel, _):
        for _ in range(3):
            assert is_admitted(tunnel.at("web"), LOCAL)
            assert tunnel.record()["reason"] in ("finished", "client_reset", "truncated")


@pytest.mark.interop
def test_haproxys_health_checks_are_let_in_beside_networks_that_admit_none_of_them(tmp_path: Path) -> None:
    """The checker says LOCAL, its clients are named."""
    case = 'accept_proxy_protocol = true\nallow_from = "192.0.2.0/24"'
    with running(tmp_path, {"web": case}) as (tunnel, _):
        options = "send-proxy-v2 check check-send-proxy check-ssl verify none inter 100ms rise 1 fall 1"
        with peers.haproxy("", f"127.0.0.1:{tunnel.at('web')} {options}") as front:
            record = tunnel.record()
            while record["version"] is None:
                record = tunnel.record()
            # Its check speaks TLS and was let in. Its client is 127.0.0.1, whom allow_from does not list.
            assert record["real_client"] is None
            with clients.raw(front.port) as sock:
                sock.sendall(b"\x16")
                clients.read_to_end(sock)
            tunnel.daemon.until(
                lambda: [r for r in tunnel.daemon.records if r["reason"] == "network_denied"], "the client's refusal"
            )
