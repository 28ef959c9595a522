"""Where it listens and where it connects to: unix sockets on both sides, IPv6, both at once, several listens."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from tests.support import backends, certificates, clients, tunnel


def echoes(client: clients.Client) -> bool:
    client.send(b"ping")
    got = client.read(4)
    client.close_notify(fin=True)
    client.read_all()
    return got == b"ping"


def test_unix_sockets_on_both_sides(tmp_path: Path) -> None:
    front, back = tmp_path / "front.sock", tmp_path / "back.sock"
    with (
        backends.serve(backends.echo, path=back),
        tunnel.server(f"unix:{back}", listen=(f"unix:{front}",)) as daemon,
        socket.socket(socket.AF_UNIX) as sock,
    ):
        assert daemon.listens[0].address == f"unix:{front}"
        assert stat.S_ISSOCK(front.stat().st_mode)
        sock.connect(str(front))
        assert echoes(clients.Client(sock, clients.client_context()).handshake())
        record = daemon.record()
        assert (record["reason"], record["client"], record["target"]) == ("finished", "unix", f"unix:{back}")
    assert not front.exists(), "the file is removed by who made it"


def test_client_mode_from_a_unix_socket(tmp_path: Path) -> None:
    front = tmp_path / "front.sock"
    with (
        backends.serve(backends.echo) as backend,
        tunnel.server(backend.port) as far,
        tunnel.client(far.port, listen=(f"unix:{front}",)),
        socket.socket(socket.AF_UNIX) as sock,
    ):
        sock.connect(str(front))
        sock.sendall(b"through two tunnels")
        sock.shutdown(socket.SHUT_WR)
        assert backends.read_all(sock) == b"through two tunnels"


def test_ipv6_on_both_sides() -> None:
    pair = certificates.server("localhost", "::1")
    with (
        backends.serve(backends.echo, host="::1") as backend,
        tunnel.server(f"[::1]:{backend.port}", listen=("[::1]:0",), pair=pair) as daemon,
    ):
        assert daemon.listens[0].address.startswith("[::1]:")
        with clients.connect(daemon.port, host="::1", name="::1") as client:
            assert echoes(client)
        record = daemon.record()
        assert record["client"].startswith("[::1]:")
        assert record["target"] == f"[::1]:{backend.port}"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_listen_without_a_host_serves_ipv4_and_ipv6(host: str) -> None:
    with backends.serve(backends.echo) as backend, tunnel.server(backend.port, listen=(":0",)) as daemon:
        with clients.connect(daemon.port, host=host) as client:
            assert echoes(client)
        client_address = daemon.record()["client"]
        assert client_address.startswith("127.0.0.1:" if host == "127.0.0.1" else "[::1]:")


def test_several_listens_each_get_a_ready_line_and_all_serve(tmp_path: Path) -> None:
    listen = ("127.0.0.1:0", "[::1]:0", f"unix:{tmp_path}/s.sock", "127.0.0.1:0")
    with backends.serve(backends.echo) as backend, tunnel.server(backend.port, listen=listen) as daemon:
        assert len(daemon.listens) == 4
        assert len({each.address for each in daemon.listens}) == 4
        for each in daemon.listens:
            if each.address.startswith("unix:"):
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(each.address.removeprefix("unix:"))
            else:
                host = "::1" if each.address.startswith("[") else "127.0.0.1"
                sock = clients.raw(each.port, host=host)
            with sock:
                assert echoes(clients.Client(sock, clients.client_context()).handshake())
            assert daemon.record()["reason"] == "finished"


def test_max_connections_pauses_every_listen_of_a_service_and_all_resume() -> None:
    listen = ("127.0.0.1:0", "127.0.0.1:0")
    with (
        backends.serve(backends.echo) as backend,
        tunnel.server(backend.port, "--max-connections", "1", listen=listen) as daemon,
    ):
        for _ in range(2):
            with clients.connect(daemon.listens[0].port) as first, clients.raw(daemon.listens[1].port) as second:
                daemon.message("accept", "max_connections")
                assert echoes(first)
                assert echoes(clients.Client(second, clients.client_context()).handshake())
    assert [record["reason"] for record in daemon.records] == ["finished"] * 4


def test_a_service_of_a_file_runs_like_one_of_options(tmp_path: Path) -> None:
    pair = certificates.server("localhost")
    with backends.serve(backends.echo) as backend:
        config = tmp_path / "tunnel.toml"
        config.write_text(
            f"""
            [process]
            workers = 1
            [log]
            format = "json"
            [services.one]
            mode = "server"
            listen = ["127.0.0.1:0"]
            target = "127.0.0.1:{backend.port}"
            certificate = "{pair.certificate}"
            key = "{pair.key}"
            [services.two]
            mode = "server"
            listen = ["127.0.0.1:0"]
            target = "127.0.0.1:{backends.unused_port()}"
            certificate = "{pair.certificate}"
            key = "{pair.key}"
            """
        )
        with tunnel.run(config) as daemon:
            ports = {each.service: each.port for each in daemon.listens}
            with clients.connect(ports["one"]) as client:
                assert echoes(client)
            with clients.connect(ports["two"]) as client:
                assert client.read_all() == b""
            found = {(record["service"], record["reason"]) for record in (daemon.record(), daemon.record())}
            assert found == {("one", "finished"), ("two", "refused")}
