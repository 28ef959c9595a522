"""`source_address`: every connection to any target comes from it, and one that cannot be used is told before and after.

Every address below 127.0.0.0/8 is one of this machine's; of IPv6 there is only ::1 to come from, which a test at least
sees named.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import backends, certificates, clients, services
from tests.support.services import Services

pytestmark = pytest.mark.slow

SOURCE = "127.0.0.77"
FOREIGN = "192.0.2.1"


def tell(sock: socket.socket) -> None:
    """Answer where the connection comes from."""
    sock.sendall(sock.getpeername()[0].encode())
    backends.half_close(sock)


def common() -> str:
    pair = certificates.server("localhost", "other.example")
    return f'certificate = "{pair.certificate}"\nkey = "{pair.key}"'


def seen(running: Services, service: str, **how: str) -> str:
    """What the backend says."""
    with clients.connect(running.at(service), **how) as client:  # type: ignore[arg-type]
        said = client.read_all().decode()
        client.close_notify()
        return said


def test_targets_of_every_kind_see_it(tmp_path: Path) -> None:
    dead = backends.unused_port()
    ca = certificates.ca().certificate
    with backends.serve(tell) as backend, backends.serve(tell, path=tmp_path / "unix"):
        port, source = backend.port, f'source_address = "{SOURCE}"'
        cases = {
            "second": f'target = ["127.0.0.1:{dead}", "127.0.0.1:{port}"]\n{source}',
            "in_turn": f'target = ["127.0.0.1:{port}", "localhost:{port}"]\nfailover = "round-robin"\n{source}',
            "fallback": f'client_auth = "optional"\nclient_ca = "{ca}"\nallow_any = true\n'
            f'target = "127.0.0.1:{dead}"\nfallback_target = "127.0.0.1:{port}"\n{source}',
            "named": f'target = "127.0.0.1:{dead}"\n{source}\n'
            f'[[sni]]\nnames = ["other.example"]\ntarget = "127.0.0.1:{port}"',
            "beside_unix": f'target = ["unix:{tmp_path}/unix", "127.0.0.1:{port}"]\nfailover = "round-robin"\n{source}',
            "left_out": f'target = "127.0.0.1:{port}"',
        }
        with services.run(tmp_path, "", cases, common()) as running:
            assert seen(running, "second") == SOURCE
            assert [seen(running, "in_turn") for _ in range(2)] == [SOURCE] * 2
            assert seen(running, "fallback") == SOURCE
            assert seen(running, "named", name="other.example") == SOURCE
            assert seen(running, "left_out") == "127.0.0.1"


def test_passthrough_and_client_mode_come_from_it_too(tmp_path: Path) -> None:
    with backends.serve(tell, context=tls()) as backend:
        cases = {
            "through": f'mode = "passthrough"\ntarget = "localhost:{backend.port}"\nsource_address = "{SOURCE}"',
            "client": f'mode = "client"\ntarget = "localhost:{backend.port}"\nsource_address = "{SOURCE}"\n'
            f'ca = "{certificates.ca().certificate}"',
        }
        with services.run(tmp_path, "", cases) as running:
            assert seen(running, "through") == SOURCE
            with clients.raw(running.at("client")) as sock:
                assert backends.read_all(sock).decode() == SOURCE


def tls() -> ssl.SSLContext:
    """What a TLS backend for localhost needs."""
    pair = certificates.server("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


def test_of_ipv6_too(tmp_path: Path) -> None:
    with backends.serve(tell, host="::1") as backend:
        cases = {
            "good": f'target = "[::1]:{backend.port}"\nsource_address = "::1"',
            "foreign": f'target = "[::1]:{backend.port}"\nsource_address = "2001:db8::1"',
        }
        with services.run(tmp_path, "", cases, common()) as running:
            assert seen(running, "good") == "::1"
            assert running.record()["reason"] == "finished"
            assert seen(running, "foreign") == ""
            record = running.record()
            assert (record["reason"], record["fault"], record["level"]) == ("no_source", "operator", "error")
            assert "source_address 2001:db8::1: cannot assign requested address" in record["detail"]
        assert backend.count == 1


def test_one_that_is_not_ours_is_told_by_check_and_at_the_start_and_by_every_connection(tmp_path: Path) -> None:
    with backends.serve(tell) as backend:
        case = f'target = "127.0.0.1:{backend.port}"\nsource_address = "{FOREIGN}"'
        with services.run(tmp_path, "", {"web": case}, common()) as running:
            told = running.daemon.message("config", "source_address")["message"]
            assert told == (
                f"web: source_address {FOREIGN}: cannot assign requested address; connections to targets fail until "
                "this machine has that address"
            )
            assert seen(running, "web") == ""
            record = running.record()
            assert (record["reason"], record["fault"]) == ("no_source", "operator")
            assert FOREIGN in record["detail"]
            done = subprocess.run(
                [sys.executable, "-m", "tlstunnel", "check", str(running.config)],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert (done.returncode, f"warning: {told}" in done.stdout) == (0, True)
        assert backend.count == 0


@pytest.mark.parametrize(
    ("source", "target", "problem"),
    [
        ("::1", "127.0.0.1:1", "::1 is IPv6 and cannot reach 127.0.0.1:1, which is IPv4; write an IPv4 address"),
        ("127.0.0.1", "unix:/x", "has no effect on unix sockets, and there is no other target; remove it"),
        ("127.0.0.1:0", "127.0.0.1:1", 'is not an IP address; write an IP address of this machine, without a port'),
        ("0.0.0.0", "127.0.0.1:1", "is no address to connect from; write one of this machine, or leave the key out"),
    ],
)  # fmt: skip
def test_what_can_never_work_is_no_configuration(tmp_path: Path, source: str, target: str, problem: str) -> None:
    config = tmp_path / "tunnel.toml"
    case = f'listen = "127.0.0.1:0"\ntarget = "{target}"\nsource_address = "{source}"\n{common()}\n'
    config.write_text(f"[services.web]\n{case}")
    done = subprocess.run(
        [sys.executable, "-m", "tlstunnel", "check", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"{config}: services.web.source_address: " in done.stderr
    assert problem in done.stderr
