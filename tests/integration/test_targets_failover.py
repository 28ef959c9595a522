"""Several targets: in order or in turn, rested when they fail, tried again, all within one connect_timeout."""

from __future__ import annotations

import contextlib
import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import backends, certificates, clients, peers, services
from tests.support.services import Services

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def two() -> Iterator[tuple[backends.Backend, backends.Backend]]:
    with backends.serve(services.say("first")) as first, backends.serve(services.say("second")) as second:
        yield first, second


def who(port: int) -> str:
    """Which backend answers."""
    with clients.connect(port) as client:
        said = client.read_all().decode().strip()
        client.close_notify()
        return said


def common() -> str:
    pair = certificates.server("localhost")
    return f'certificate = "{pair.certificate}"\nkey = "{pair.key}"'


def metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as page:
        lines = [line.decode() for line in page if re.match(rb"tlstunnel_(target|backend_connect_fail)", line)]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def listed(*ports: int) -> str:
    return "target = [" + ", ".join(f'"127.0.0.1:{port}"' for port in ports) + "]"


@contextlib.contextmanager
def running(tmp_path: Path, cases: dict[str, str]) -> Iterator[tuple[Services, int]]:
    admin = peers.free_port()
    with services.run(tmp_path, "", cases, common(), f'[admin]\nlisten = "127.0.0.1:{admin}"') as found:
        yield found, admin


def test_the_first_target_that_answers_serves_and_the_next_only_when_it_fails(tmp_path: Path) -> None:
    with two() as (first, second), running(tmp_path, {"web": listed(first.port, second.port)}) as (tunnel, _):
        assert [who(tunnel.at("web")) for _ in range(4)] == ["first"] * 4


def test_in_turn_every_target_gets_its_share(tmp_path: Path) -> None:
    with two() as (first, second):
        lines = listed(first.port, second.port) + '\nfailover = "round-robin"'
        with running(tmp_path, {"web": lines}) as (tunnel, _):
            assert sorted(who(tunnel.at("web")) for _ in range(6)) == ["first"] * 3 + ["second"] * 3


@pytest.mark.parametrize("failover", ["priority", "round-robin"])
def test_a_target_that_fails_is_rested_shown_and_tried_again(tmp_path: Path, failover: str) -> None:
    dead = backends.unused_port()
    with backends.serve(services.say("second")) as second:
        lines = listed(dead, second.port) + f'\nfailover = "{failover}"'
        with running(tmp_path, {"web": lines}) as (tunnel, admin):
            gauge = f'tlstunnel_target_resting_workers{{service="web",target="127.0.0.1:{dead}"}}'
            failures = 'tlstunnel_backend_connect_failures_total{reason="refused",service="web"}'
            assert metrics(admin)[gauge] == 0
            for _ in range(5):
                assert who(tunnel.at("web")) == "second"
                record = tunnel.record()
                assert (record["target"], record["reason"]) == (f"127.0.0.1:{second.port}", "finished")
            shown = metrics(admin)
            assert shown[gauge] == 1
            assert shown[failures] == 1  # the others did not ask it
            # Its rest ends by itself; whoever comes then finds it.
            with socket.create_server(("127.0.0.1", dead)) as alive:
                alive.settimeout(backends.PATIENCE_S)
                seen = False
                while not seen:
                    with clients.connect(tunnel.at("web")) as client:
                        alive.settimeout(0.1)
                        with contextlib.suppress(TimeoutError):
                            sock, _ = alive.accept()
                            sock.sendall(b"first\n")
                            sock.close()
                            seen = True
                        client.read_all()
            assert metrics(admin)[gauge] == 0


def test_where_all_fail_the_last_failure_ends_the_connection_and_all_are_counted(tmp_path: Path) -> None:
    one, other = backends.unused_port(), backends.unused_port()
    with running(tmp_path, {"web": listed(one, other)}) as (tunnel, admin):
        for count in (1, 2):
            assert who(tunnel.at("web")) == ""
            record = tunnel.record()
            assert (record["reason"], record["stage"], record["fault"]) == ("refused", "dial", "backend")
            assert record["detail"].startswith(f"127.0.0.1:{other}: connection refused; ")
            failures = 'tlstunnel_backend_connect_failures_total{reason="refused",service="web"}'
            assert metrics(admin)[failures] == 2 * count  # resting targets are a last hope, not none


@contextlib.contextmanager
def full_queue() -> Iterator[int]:
    """A listener that accepts nothing: its queue is full, so a connect to it waits."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(listener.getsockname())
            yield listener.getsockname()[1]


def test_a_target_that_does_not_answer_leaves_time_for_the_next(tmp_path: Path) -> None:
    with full_queue() as silent, backends.serve(services.say("second")) as second:
        lines = listed(silent, second.port) + '\nconnect_timeout = "1s"'
        with running(tmp_path, {"web": lines}) as (tunnel, _):
            assert who(tunnel.at("web")) == "second"
            record = tunnel.record()
            assert record["reason"] == "finished"
            assert record["connect_s"] > 0.4


def test_no_target_may_take_longer_than_connect_timeout(tmp_path: Path) -> None:
    with (
        full_queue() as silent,
        running(tmp_path, {"web": listed(silent, silent) + '\nconnect_timeout = "300ms"'}) as (tunnel, _),
    ):
        assert who(tunnel.at("web")) == ""
        record = tunnel.record()
        assert record["reason"] == "connect_timeout"
        assert record["detail"].startswith(f"127.0.0.1:{silent}: not accepted in time; ")


def test_a_name_is_resolved_and_one_that_is_none_gives_way_to_the_next(tmp_path: Path) -> None:
    with backends.serve(services.say("by name")) as backend:
        cases = {
            "name": f'target = "localhost:{backend.port}"',
            "next": f'target = ["nobody.invalid:80", "localhost:{backend.port}"]',
            "none": 'target = "nobody.invalid:80"\nunsafe_target = true',
        }
        cases["next"] += "\nunsafe_target = true"
        with running(tmp_path, cases) as (tunnel, _):
            for name in ("name", "next"):
                assert who(tunnel.at(name)) == "by name"
                assert tunnel.record()["target"] == f"localhost:{backend.port}"
            assert who(tunnel.at("none")) == ""
            assert tunnel.record()["reason"] == "unresolvable"


def test_a_target_by_name_that_does_not_answer_leaves_time_for_the_next(tmp_path: Path) -> None:
    with full_queue() as silent, backends.serve(services.say("second")) as second:
        lines = f'target = ["localhost:{silent}", "127.0.0.1:{second.port}"]\nconnect_timeout = "1s"'
        with running(tmp_path, {"web": lines}) as (tunnel, _):
            assert who(tunnel.at("web")) == "second"
            assert tunnel.record()["reason"] == "finished"


def test_all_addresses_of_a_name_are_tried(tmp_path: Path) -> None:
    """localhost is ::1 first where it is both; only one of them listens."""
    addresses = {info[4][0] for info in socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)}
    for host in sorted(addresses):
        with (
            backends.serve(services.say(host), host=host) as backend,
            running(tmp_path, {"web": f'target = "localhost:{backend.port}"'}) as (tunnel, _),
        ):
            assert who(tunnel.at("web")) == host


def test_unix_sockets_are_targets_like_others(tmp_path: Path) -> None:
    path, missing = tmp_path / "backend", tmp_path / "missing"
    with backends.serve(services.say("unix"), path=path):
        cases = {"unix": f'target = "unix:{path}"', "next": f'target = ["unix:{missing}", "unix:{path}"]'}
        cases["none"] = f'target = "unix:{missing}"'
        with running(tmp_path, cases) as (tunnel, _):
            assert who(tunnel.at("unix")) == who(tunnel.at("next")) == "unix"
            assert [tunnel.record()["reason"] for _ in range(2)] == ["finished"] * 2
            assert who(tunnel.at("none")) == ""
            assert tunnel.record()["reason"] == "no_socket"


def test_connections_to_targets_come_from_the_source_address(tmp_path: Path) -> None:
    def tell(sock: socket.socket) -> None:
        sock.sendall(sock.getpeername()[0].encode())
        backends.half_close(sock)

    with backends.serve(tell) as backend:
        source = 'source_address = "127.0.0.77"'
        cases = {
            "literal": f'target = "127.0.0.1:{backend.port}"\n{source}',
            "name": f'target = "localhost:{backend.port}"\n{source}',
            "foreign": f'target = "127.0.0.1:{backend.port}"\nsource_address = "192.0.2.1"',
            "foreign_name": f'target = "localhost:{backend.port}"\nsource_address = "192.0.2.1"',
        }
        with running(tmp_path, cases) as (tunnel, _):
            for name in ("literal", "name"):
                assert who(tunnel.at(name)) == "127.0.0.77"
                assert tunnel.record()["reason"] == "finished"
            for name in ("foreign", "foreign_name"):
                assert who(tunnel.at(name)) == ""
                record = tunnel.record()
                assert (name, record["reason"], record["fault"]) == (name, "no_source", "operator")
                assert "192.0.2.1" in record["detail"]
