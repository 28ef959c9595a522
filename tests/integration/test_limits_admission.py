"""Limits of the daemon: who is refused, that it is cheap and counted, and that others do not notice."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import backends, certificates, clients, peers, services
from tests.support.services import Services
from tests.support.wire_peers import client_context

pytestmark = pytest.mark.slow

FLOOD = 9_000


@contextlib.contextmanager
def running(tmp_path: Path, cases: dict[str, str], process: str = "") -> Iterator[tuple[Services, int]]:
    pair = certificates.server("localhost")
    common = f'certificate = "{pair.certificate}"\nkey = "{pair.key}"'
    admin = peers.free_port()
    rest = f'[admin]\nlisten = "127.0.0.1:{admin}"\n'
    with backends.serve(backends.echo) as backend:
        config = tmp_path / "tunnel.toml"
        services.write(config, backend.port, cases, common, rest)
        config.write_text(config.read_text().replace("workers = 1", f"workers = 1\n{process}"))
        with services.tunnel.run(config) as daemon:
            yield Services(daemon, config), admin


def rejected(admin: int, reason: str, service: str = "web") -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=60) as page:
        text = page.read().decode()
    found = re.search(
        rf'^tlstunnel_connections_rejected_total{{reason="{reason}",service="{service}"}} (\S+)$', text, re.MULTILINE
    )
    assert found is not None
    return float(found[1])


def dial(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 60, source_address=(source, 0))


def is_refused(port: int, source: str = "127.0.0.1") -> bool:
    """Whether the tunnel closes without a word, before any TLS work."""
    with dial(port, source) as sock:
        try:
            tls = client_context().wrap_socket(sock, server_hostname="localhost")
        except (ConnectionError, OSError):
            return True
        tls.close()
        return False


def test_networks_are_refused_before_any_tls_work_and_counted(tmp_path: Path) -> None:
    case = 'allow_from = ["127.0.0.0/30"]\ndeny_from = "127.0.0.2"'
    with running(tmp_path, {"web": case}) as (tunnel, admin):
        port = tunnel.at("web")
        said = {last: is_refused(port, f"127.0.0.{last}") for last in (1, 2, 3, 4)}
        assert said == {1: False, 2: True, 3: False, 4: True}
        assert rejected(admin, "network_denied") == 2
        message = tunnel.daemon.message("rejected")
        assert (message["service"], message["reason"]) == ("web", "network_denied")


def test_an_address_at_its_limit_is_refused_and_others_are_not(tmp_path: Path) -> None:
    with running(tmp_path, {"web": "max_connections_per_ip = 2"}) as (tunnel, admin):
        port = tunnel.at("web")
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(clients.connect(port)) for _ in range(2)]
            assert is_refused(port)
            assert not is_refused(port, "127.0.0.2")
            assert rejected(admin, "max_connections_per_ip") == 1
            tunnel.record()
            for client in held:
                client.send(b"still here")
                assert client.read(10) == b"still here"
            held[0].close_notify(fin=True)
            held[0].read_all()
            tunnel.record()
            assert not is_refused(port)


def test_half_open_connections_count_for_their_address(tmp_path: Path) -> None:
    with running(tmp_path, {"web": "max_connections_per_ip = 3"}) as (tunnel, admin):
        port = tunnel.at("web")
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(dial(port))
            assert is_refused(port)
            assert not is_refused(port, "127.0.0.9")
            assert rejected(admin, "max_connections_per_ip") == 1


@pytest.mark.parametrize(
    ("key", "reason"), [("connection_rate_per_ip", "connection_rate_per_ip"), ("handshake_rate", "handshake_rate")]
)
def test_rates_are_kept(tmp_path: Path, key: str, reason: str) -> None:
    case = f'{key} = "1/m burst 3"'
    with running(tmp_path, {"web": case}) as (tunnel, admin):
        port = tunnel.at("web")
        assert [is_refused(port) for _ in range(5)] == [False] * 3 + [True] * 2
        assert rejected(admin, reason) == 2
        # Addresses have a rate each; handshakes have one together.
        assert is_refused(port, "127.0.0.2") is (key == "handshake_rate")


def test_refusals_in_numbers_are_one_line_per_interval_in_the_log(tmp_path: Path) -> None:
    with running(tmp_path, {"web": 'deny_from = "127.0.0.0/8"'}) as (tunnel, admin):
        port = tunnel.at("web")
        for _ in range(100):
            dial(port).close()
        assert is_refused(port)  # the worker has seen all before it
        assert rejected(admin, "network_denied") >= 100
        tunnel.daemon.message("rejected")
        messages = tunnel.daemon.messages
        told = [message for message in messages if message["event"] == "rejected"]
        summaries = [message for message in messages if message["event"] == "suppressed"]
        # Another one only once the interval of the one before is over, which a summary ends.
        assert len(told) <= len(summaries) + 1


@pytest.mark.parametrize("where", ["service", "process"])
def test_beyond_max_connections_clients_wait_in_the_queue_until_there_is_room(tmp_path: Path, where: str) -> None:
    limit = "max_connections = 2"
    cases = {"web": limit if where == "service" else "", "other": ""}
    with running(tmp_path, cases, limit if where == "process" else "") as (tunnel, _):
        port = tunnel.at("web")
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(clients.connect(port)) for _ in range(2)]
            waiting = stack.enter_context(dial(port))
            tunnel.daemon.message("accept", "max_connections")
            if where == "service":
                stack.enter_context(clients.connect(tunnel.at("other")))
            held[0].close()
            with client_context().wrap_socket(waiting, server_hostname="localhost") as tls:
                tls.sendall(b"my turn")
                assert tls.recv(7) == b"my turn"


def test_nine_thousand_half_open_handshakes_leave_links_moving_and_others_welcome(tmp_path: Path) -> None:
    """From 40 addresses, each connection with the beginning of a ClientHello and nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * FLOOD + 500  # no more are accepted than there are descriptors for, with one for a backend each
    if hard < needed:
        pytest.skip(f"needs {needed} descriptors, and the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    beginning = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(20)
    try:
        with (
            running(tmp_path, {"web": 'handshake_timeout = "5m"\ndrain_timeout = "0s"'}) as (tunnel, _),
            clients.connect(tunnel.at("web")) as link,
            contextlib.ExitStack() as stack,
        ):
            port = tunnel.at("web")
            link.send(b"before")
            assert link.read(6) == b"before"
            before = tunnel.daemon.memory()
            for number in range(FLOOD):
                sock = stack.enter_context(socket.socket())
                sock.bind((f"127.0.1.{number % 40}", 0))
                sock.connect(("127.0.0.1", port))
                sock.send(beginning)
                if number % 1000 == 999:
                    link.send(b"during")
                    assert link.read(6) == b"during"
                    with clients.connect(port) as another:
                        another.send(b"hello")
                        assert another.read(5) == b"hello"
            each = (tunnel.daemon.memory() - before) / FLOOD
            print(f"a half-open handshake holds {each / 1024:.1f} KiB")
            assert each < 32 * 1024  # measured: 19 KiB
            link.send(b"after")
            assert link.read(5) == b"after"
            daemon = tunnel.daemon
            daemon.terminate()
            daemon.until(lambda: [m for m in daemon.messages if m["message"].startswith("stopped")], "its end")
            assert daemon.wait() == 1  # links were cut, as drain_timeout says
            daemon.stop = lambda *_: None  # type: ignore[method-assign]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
