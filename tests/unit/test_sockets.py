"""Listening sockets: what is bound, what is refused and how it is said."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.listeners import Opener, accepts, config, descriptors, opener, port_of, program, refusal
from tlstunnel.daemon.listen import binding


@pytest.fixture
def opened() -> Iterator[Opener]:
    with opener() as open_:
        yield open_


# --- what is bound --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "bound", "reached"),
    [
        ("127.0.0.1:0", "127.0.0.1:{}", ["127.0.0.1"]),
        ("[::1]:0", "[::1]:{}", ["::1"]),
        (":0", ":{}", ["127.0.0.1", "::1"]),
        ("0.0.0.0:0", "0.0.0.0:{}", ["127.0.0.1"]),
        ("[::]:0", "[::]:{}", ["::1"]),
    ],
)
def test_an_address_is_reached_over_every_protocol_it_stands_for(
    text: str, bound: str, reached: list[str], opened: Opener
) -> None:
    listeners = opened(config(text))
    port = port_of(listeners)
    assert [listener.bound for listener in listeners] == [bound.format(port)]
    for host in ("127.0.0.1", "::1"):
        try:
            socket.create_connection((host, port)).close()
        except ConnectionRefusedError:
            assert host not in reached
        else:
            assert host in reached
    assert accepts(listeners.for_slot(0)["web"]) == len(reached)


def test_ipv4_and_ipv6_of_one_port_can_be_listened_on_side_by_side(opened: Opener) -> None:
    port = port_of(opened(config("0.0.0.0:0")))
    opened(config(f"[::]:{port}"))


def test_without_ipv6_all_interfaces_are_all_ipv4_interfaces(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    real = binding._listening

    def no_ipv6(endpoint: binding.Endpoint, *, backlog: int, shares_port: bool) -> socket.socket:
        if endpoint.family == socket.AF_INET6:
            raise OSError(binding.errno.EAFNOSUPPORT, "no IPv6")
        return real(endpoint, backlog=backlog, shares_port=shares_port)

    monkeypatch.setattr(binding, "_listening", no_ipv6)
    listeners = opened(config(":0"), 2)
    assert [listener.bound for listener in listeners] == [f"0.0.0.0:{port_of(listeners)}"]
    assert "this machine has no IPv6; write an IPv4 address" in refusal(config("[::1]:0"))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A name service of our own: name to addresses."""
    table: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def look_up(host: bytes, port: int, **how: int) -> list[object]:
        how["flags"] |= socket.AI_NUMERICHOST
        return [found for address in table.get(host.decode(), [host.decode()]) for found in real(address, port, **how)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return table


def test_a_name_stands_for_all_its_addresses_on_one_port(opened: Opener, names: dict[str, list[str]]) -> None:
    names["both.example"] = ["127.0.0.1", "::1", "127.0.0.1"]
    listeners = opened(config("both.example:0"), 2)
    port = port_of(listeners)
    assert [listener.bound for listener in listeners] == [f"127.0.0.1:{port}", f"[::1]:{port}"]


def test_addresses_of_a_name_that_are_elsewhere_are_left_out_with_a_warning(
    opened: Opener, names: dict[str, list[str]]
) -> None:
    names["here.example"] = ["203.0.113.9", "127.0.0.1"]
    listeners = opened(config("here.example:0"))
    assert [listener.bound for listener in listeners] == [f"127.0.0.1:{port_of(listeners)}"]
    (warning,) = listeners.warnings
    assert warning.startswith("service web: here.example:0: 203.0.113.9:0 is left out: ")
    names["away.example"] = ["203.0.113.9", "203.0.113.10"]
    assert "not an address of this machine" in refusal(config("away.example:0"))


def test_a_port_that_is_free_on_one_address_only_is_passed_over(
    opened: Opener, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    names["both.example"] = ["127.0.0.1", "127.0.0.2"]
    real = binding._listening
    taken: list[socket.socket] = []

    def crowded(endpoint: binding.Endpoint, **how: object) -> socket.socket:
        sock = real(endpoint, **how)  # type: ignore[arg-type]
        if not taken:  # the first free port of the first address is in use on the second
            taken.append(socket.create_server(("127.0.0.2", sock.getsockname()[1])))
        return sock

    monkeypatch.setattr(binding, "_listening", crowded)
    before = descriptors()
    listeners = opened(config("both.example:0"))
    assert port_of(listeners) != taken[0].getsockname()[1]
    assert len({listener.bound.rpartition(":")[2] for listener in listeners}) == 1
    assert descriptors() == before + 3, "two listeners and the one in the way; the failed attempt is closed"
    taken[0].close()


def test_every_slot_of_a_port_gets_its_share_of_the_connections(opened: Opener) -> None:
    listeners = opened(config("127.0.0.1:0"), 4)
    clients = [socket.create_connection(("127.0.0.1", port_of(listeners))) for _ in range(200)]
    shares = [accepts(listeners.for_slot(slot)["web"]) for slot in range(4)]
    for client in clients:
        client.close()
    assert sum(shares) == 200
    assert min(shares) > 20, shares


def test_a_unix_socket_is_one_descriptor_for_all_slots(opened: Opener, tmp_path: Path) -> None:
    listeners = opened(config(f"unix:{tmp_path}/s"), 3)
    first, *others = (listeners.for_slot(slot)["web"] for slot in range(3))
    assert len(first) == 1
    assert all(sockets == first for sockets in others)
    assert not first[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_sockets_do_not_block_and_are_closed_on_exec(opened: Opener, tmp_path: Path) -> None:
    for listener in opened(config("127.0.0.1:0", f"unix:{tmp_path}/s"), 2):
        for sock in listener.sockets:
            assert not sock.getblocking()
            assert not sock.get_inheritable()


def test_the_admin_endpoint_is_one_socket_however_many_workers_there_are(opened: Opener) -> None:
    (listener,) = opened(config("127.0.0.1:0", admin="127.0.0.1:0"), 4).admin
    assert (listener.owner, len(listener.sockets)) == ("admin", 1)


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_second_daemon_of_the_same_user_is_refused_the_port(opened: Opener) -> None:
    listeners = opened(config("127.0.0.1:0"), 2)
    message = refusal(config(f"127.0.0.1:{port_of(listeners)}"), 2)
    assert message.startswith(f"service web: cannot listen on 127.0.0.1:{port_of(listeners)}: in use")


def test_a_port_in_use_names_the_program_that_has_it() -> None:
    program = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        message = refusal(config(f"127.0.0.1:{port}"))
        other.communicate("\n")
    assert message == (
        f"service web: cannot listen on 127.0.0.1:{port}: in use by {Path(sys.executable).name} (pid {other.pid}); "
        "stop it or choose another port"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("203.0.113.9:8443", "not an address of this machine; write one that is, or :PORT for all of them"),
        ("unix:/nonexistent/s", 'the directory "/nonexistent" does not exist; create it, or name it in'),
        ("[fe80::1%nosuch0]:8443", 'there is no interface "nosuch0"; write one that `ip link` lists'),
        ("[fe80::1%lo]:8443", "not an address of this machine"),
        ("systemd:web", "not started by a socket unit; start the .socket unit instead, or write HOST:PORT"),
        ("nowhere.invalid:8443", 'the name "nowhere.invalid" does not resolve'),
    ],
)
def test_an_address_that_cannot_be_had_says_what_would_be_right(text: str, says: str) -> None:
    message = refusal(config(text))
    assert message.startswith(f"service web: cannot listen on {text}: ")
    assert says in message
    assert "\n" not in message


def test_every_address_that_fails_is_reported_and_nothing_stays_open(tmp_path: Path) -> None:
    before = descriptors()
    bad = {"a": "203.0.113.9:1", "b": "unix:/nonexistent/s"}
    message = refusal(config(f"unix:{tmp_path}/s", "127.0.0.1:0", admin="203.0.113.9:2", **bad), 3)
    assert [line.partition(":")[0] for line in message.splitlines()] == ["service a", "service b", "admin"]
    assert descriptors() == before
    assert not list(tmp_path.iterdir())


def test_an_address_given_to_two_services_is_refused_by_name(opened: Opener, tmp_path: Path) -> None:
    port = port_of(free := opened(config("127.0.0.1:0")))
    free.close()
    for text in (f"127.0.0.1:{port}", f"unix:{tmp_path}/s"):
        assert refusal(config(a=text, b=text)) == (
            f"service b: cannot listen on {text}: service a listens there already; give each address to one service"
        )
    overlapping = refusal(config(a=f"0.0.0.0:{port}", b=f":{port}"))
    assert "in use by another listen address of this configuration; choose another port" in overlapping


@pytest.mark.root
def test_a_low_port_says_who_may_have_it() -> None:
    if os.geteuid() != 0:
        pytest.skip("giving up root to be refused needs root")
    done = program("""
        os.setuid(65534)
        print(refusal(config("127.0.0.1:443")))
    """)
    assert done == (
        "service web: cannot listen on 127.0.0.1:443: permission denied; ports below 1024 need CAP_NET_BIND_SERVICE "
        '(AmbientCapabilities= in the unit), root with --user, or a socket unit and "systemd:NAME"; '
        "or choose a port from 1024 on\n"
    )
