"""stunnel, HAProxy and socat as the other end of the tunnel, in both directions."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.support import certificates, peers, tunnel
from tests.support.peers import Peer
from tests.support.traffic import Backend, Plain, Stream, backend, receive, talk

pytestmark = [pytest.mark.interop, pytest.mark.slow]

CA = certificates.ca
Start = Callable[[int], AbstractContextManager[Peer]]


def stunnel_to(port: int, *lines: str) -> AbstractContextManager[Peer]:
    """stunnel accepts plaintext and originates TLS to a port."""
    verify = ["verifyChain = yes", f"CAfile = {CA().certificate}", "checkHost = localhost"]
    return peers.stunnel("client = yes", f"connect = 127.0.0.1:{port}", *verify, *lines)


def stunnel_before(port: int, *lines: str) -> AbstractContextManager[Peer]:
    """stunnel accepts TLS and forwards plaintext to a port."""
    pair = certificates.server("localhost")
    return peers.stunnel(f"connect = 127.0.0.1:{port}", f"cert = {pair.certificate}", f"key = {pair.key}", *lines)


def haproxy_to(port: int) -> AbstractContextManager[Peer]:
    verify = f"ssl verify required ca-file {CA().certificate} sni str(localhost) verifyhost localhost"
    return peers.haproxy("", f"127.0.0.1:{port} {verify}")


def haproxy_before(port: int) -> AbstractContextManager[Peer]:
    return peers.haproxy(f"ssl crt {certificates.server('localhost').combined}", f"127.0.0.1:{port}")


def socat_to(port: int) -> AbstractContextManager[Peer]:
    target = f"OPENSSL:localhost:{port},cafile={CA().certificate},pf=ip4"
    return peers.socat("TCP-LISTEN", "bind=127.0.0.1,fork,reuseaddr", target)


def socat_before(port: int) -> AbstractContextManager[Peer]:
    pair = certificates.server("localhost")
    options = f"bind=127.0.0.1,fork,reuseaddr,verify=0,cert={pair.certificate},key={pair.key}"
    return peers.socat("OPENSSL-LISTEN", options, f"TCP:127.0.0.1:{port}")


def answer(sock: socket.socket) -> object:
    """Read the question to its end, then answer; socat closes a second after one side has."""
    asked = receive(sock)
    talk(Plain(sock), REPLY)
    return asked


QUESTION, REPLY = Stream(1_000_003, seed=1), Stream(1 << 20, seed=2)
BOTH_WAYS = Stream(2_000_003, seed=3)


def ask(port: int) -> None:
    """A question, a half-close, and the whole reply."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        assert talk(Plain(sock), QUESTION) == REPLY.digest()


def asked(service: Backend) -> object:
    """What the service was asked; a proxy that was asked whether it is ready asked nothing, or broke off."""
    while True:
        with contextlib.suppress(ConnectionError):
            if (got := service.got()) != Stream(0).digest():
                return got


def exchanged(daemon: tunnel.Tunnel) -> tunnel.Record:
    """The record of the connection that carried the question."""

    def find() -> tunnel.Record | None:
        return next((record for record in daemon.records if record["bytes_forward"]), None)

    record: tunnel.Record = daemon.until(find, "a record of the exchange")
    return record


@pytest.mark.parametrize("start", [stunnel_to, haproxy_to, socat_to])
def test_another_proxy_originates_and_the_tunnel_terminates(start: Start) -> None:
    with backend(answer) as service, tunnel.server(service.port) as daemon, start(daemon.port) as other:
        ask(other.port)
        assert asked(service) == QUESTION.digest()
        record = exchanged(daemon)
        assert record["reason"] in {"finished", "truncated"}
        assert (record["bytes_forward"], record["bytes_reverse"]) == (QUESTION.size, REPLY.size)


@pytest.mark.parametrize("start", [stunnel_before, haproxy_before, socat_before])
def test_the_tunnel_originates_and_another_proxy_terminates(start: Start) -> None:
    with backend(answer) as service, start(service.port) as other, tunnel.client(other.port) as daemon:
        ask(daemon.port)
        assert asked(service) == QUESTION.digest()
        record = daemon.record()
        assert record["reason"] in {"finished", "truncated"}
        assert (record["bytes_forward"], record["bytes_reverse"]) == (QUESTION.size, REPLY.size)


def both_ways(sock: socket.socket) -> object:
    return talk(Plain(sock), BOTH_WAYS)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_stunnel_in_both_roles_with_both_directions_at_once(version: str) -> None:
    lines = [f"sslVersion = {version}"]
    with (
        backend(both_ways) as service,
        tunnel.server(service.port) as server,
        stunnel_to(server.port, *lines) as client_peer,
    ):
        with socket.create_connection(("127.0.0.1", client_peer.port)) as sock:
            assert talk(Plain(sock), QUESTION) == BOTH_WAYS.digest()
        assert exchanged(server)["version"] == version
    with (
        backend(both_ways) as service,
        stunnel_before(service.port, *lines) as server_peer,
        tunnel.client(server_peer.port) as client,
    ):
        with socket.create_connection(("127.0.0.1", client.port)) as sock:
            assert talk(Plain(sock), QUESTION) == BOTH_WAYS.digest()
        assert client.record()["version"] == version


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_stunnel_and_the_tunnel_show_each_other_their_certificates(version: str) -> None:
    pair, authority = certificates.client("billing"), str(CA().certificate)
    lines = [f"sslVersion = {version}"]
    demand = ["--client-auth", "required", "--client-ca", authority, "--allow-cn", "billing"]
    with (
        backend(answer) as service,
        tunnel.server(service.port, *demand) as server,
        stunnel_to(server.port, *lines, f"cert = {pair.certificate}", f"key = {pair.key}") as other,
    ):
        ask(other.port)
        assert "billing" in exchanged(server)["identity"]
    asks = [*lines, "verifyChain = yes", f"CAfile = {authority}"]
    shown = ["--cert", str(pair.certificate), "--key", str(pair.key)]
    with (
        backend(answer) as service,
        stunnel_before(service.port, *asks) as other,
        tunnel.client(other.port, *shown) as client,
    ):
        ask(client.port)
