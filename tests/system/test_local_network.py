"""What the kernel's choice of ports, and interfaces that come and go, do to targets: each in a network of its own."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import backends, certificates, clients, network, services
from tests.support.services import Services
from tests.support.wire_peers import client_context

pytestmark = [pytest.mark.slow, pytest.mark.root]

TRIES = 16
"""Of two ports the kernel takes the one that matters nearly every other time."""


@contextlib.contextmanager
def connected(folder: Path) -> Iterator[clients.Client]:
    """A client by way of the unix socket in this folder: it takes no port."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(clients.PATIENCE_S)
        sock.connect(str(folder / "listen"))
        yield clients.Client(sock, client_context()).handshake()


def answer(folder: Path) -> bytes:
    """What a service's target says."""
    with connected(folder) as client:
        said = client.read_all()
        client.close_notify()
        return said


@contextlib.contextmanager
def run(folder: Path, cases: dict[str, str]) -> Iterator[Services]:
    """The daemon, each of whose services listens on a unix socket in a folder of its own."""
    pair = certificates.server("localhost")
    common = f'certificate = "{pair.certificate}"\nkey = "{pair.key}"\nunsafe_target = true'
    for name in cases:
        (folder / name).mkdir()
    listening = {name: f'{lines}\nlisten = "unix:{folder}/{name}/listen"' for name, lines in cases.items()}
    with services.run(folder, "", listening, common) as running:
        yield running


def test_a_target_where_nobody_listens_never_turns_out_to_be_the_connection_itself(tmp_path: Path) -> None:
    cases = {
        "v4": 'target = "127.0.0.1:60004"',
        "v6": 'target = "[::1]:60004"',
        "name": 'target = "localhost:60004"',
        "told": 'target = "127.0.0.1:60004"\nproxy_protocol = "v1"',
    }
    with network.of_our_own(ports="60004 60005"), run(tmp_path, cases) as running:
        for service in cases:
            for _ in range(TRIES):
                assert answer(tmp_path / service) == b""
                assert running.record()["reason"] == "refused"
        # Nothing of ours is in the way of whoever should listen there.
        with backends.serve(services.say("here"), port=60004):
            assert answer(tmp_path / "v4") == b"here\n"


def test_connect_and_probe_are_not_taken_in_either() -> None:
    from tlstunnel.address import TCPAddress
    from tlstunnel.tools.probe.route import Route
    from tlstunnel.tools.probe.trouble import Unreachable

    with network.of_our_own(ports="60004 60005"):
        for _ in range(TRIES):
            with pytest.raises(Unreachable, match="refused"), Route(TCPAddress("127.0.0.1", 60004)).open():
                pass


@contextlib.contextmanager
def all_ports_taken(port: int) -> Iterator[None]:
    """Every local port towards a port of ours is in use."""
    taken = []
    try:
        while True:
            sock = socket.socket()
            taken.append(sock)
            sock.connect(("127.0.0.1", port))
    except OSError as exc:
        if exc.errno != errno.EADDRNOTAVAIL:
            raise
        yield
    finally:
        for sock in taken:
            backends.reset(sock)  # or it would keep its port for a while


def test_no_free_local_port_is_told_as_that_with_what_would_help(tmp_path: Path) -> None:
    cases = {"chosen": "", "named": 'source_address = "127.0.0.1"'}
    with (
        network.of_our_own(ports="60000 60009"),
        backends.serve(services.say("here"), port=1100),
        run(tmp_path, {name: f'{lines}\ntarget = "127.0.0.1:1100"' for name, lines in cases.items()}) as running,
    ):
        for service in cases:
            with all_ports_taken(1100):
                assert answer(tmp_path / service) == b""
            record = running.record()
            assert (record["reason"], record["fault"]) == ("no_port", "operator")
            assert record["detail"] == (
                "127.0.0.1:1100: cannot assign requested address; use more targets or source addresses, widen "
                "net.ipv4.ip_local_port_range, or use a unix socket"
            )


def test_a_target_on_an_interface_that_goes_away_fails_alone_until_it_is_back(tmp_path: Path) -> None:
    cases = {
        "here": 'target = "127.0.0.1:1100"',
        "there": 'target = "[fe80::7%tt0]:1100"',
        "from": 'target = "[fe80::7%tt0]:1100"\nsource_address = "fe80::7%tt0"',
    }
    with (
        network.of_our_own(),
        backends.serve(services.say("here"), port=1100),
        run(tmp_path, cases) as running,
    ):
        for _ in range(2):
            assert answer(tmp_path / "here") == b"here\n"
            assert running.record()["reason"] == "finished"
            assert answer(tmp_path / "there") == b""
            record = running.record()
            assert (record["reason"], record["fault"]) == ("unreachable", "backend")
            assert record["detail"].startswith('[fe80::7%tt0]:1100: there is no interface "tt0"; ')
            assert answer(tmp_path / "from") == b""
            record = running.record()
            assert (record["reason"], record["fault"]) == ("no_source", "operator")
            assert record["detail"].startswith('source_address fe80::7%tt0: there is no interface "tt0"; ')
            network.ip("link", "add", "tt0", "type", "veth", "peer", "name", "tt1")
            network.ip("link", "set", "tt0", "up")
            network.ip("link", "set", "tt1", "up")
            network.ip("-6", "address", "add", "fe80::7/64", "dev", "tt0", "nodad")
            with backends.serve(services.say("there"), host="::", port=1100):
                for service in ("there", "from"):
                    assert answer(tmp_path / service) == b"there\n"
                    assert running.record()["reason"] == "finished"
            network.ip("link", "delete", "tt0")
