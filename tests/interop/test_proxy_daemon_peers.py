"""The daemon between HAProxy and nginx: who the client is survives the way, in both versions of the PROXY protocol."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import backends, certificates, clients, peers, services
from tests.support.interop import require
from tests.support.wire_peers import client_context
from tlstunnel.proxy_protocol import Endpoint as At
from tlstunnel.proxy_protocol import Header, encode_v1, encode_v2, parse

pytestmark = [pytest.mark.interop, pytest.mark.slow]

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
_DEFAULTS = "defaults\n mode http\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n"


def common() -> str:
    pair = certificates.server("localhost")
    return f'certificate = "{pair.certificate}"\nkey = "{pair.key}"'


@contextlib.contextmanager
def haproxy_that_tells(listen: str) -> Iterator[int]:
    """HAProxy that reads a PROXY header and answers who it says the client is. `{port}` may stand in `listen`."""
    program = require("haproxy")
    with peers.folder() as path:

        def command(port: int) -> list[str]:
            (path / "haproxy.cfg").write_text(
                f"{_DEFAULTS}frontend tell\n bind 127.0.0.1:{port}\n bind {listen.format(port=port)} accept-proxy\n"
                ' http-request return status 200 content-type text/plain lf-string "from=%[src]:%[src_port] '
                'to=%[dst]:%[dst_port] authority=%[fc_pp_authority] id=%[fc_pp_unique_id]."\n'
            )
            return [program, "-db", "-f", str(path / "haproxy.cfg")]

        with peers.serving(command) as peer:
            yield peer.port


@contextlib.contextmanager
def nginx_that_tells() -> Iterator[int]:
    """nginx that reads a PROXY header and answers who it says the client is."""
    program = require("nginx")
    with peers.folder() as path:
        path.chmod(0o755)

        def command(port: int) -> list[str]:
            kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            temporary = " ".join(f"{kind}_temp_path {path}/{kind};" for kind in kinds)
            (path / "nginx.conf").write_text(
                f"daemon off; user root; pid {path}/pid; error_log {path}/error.log info; worker_processes 1;\n"
                f"events {{ worker_connections 64; }}\nhttp {{ access_log off; {temporary}\n"
                f"server {{ listen 127.0.0.1:{port} proxy_protocol;\n"
                'return 200 "from=$proxy_protocol_addr:$proxy_protocol_port '
                'to=$proxy_protocol_server_addr:$proxy_protocol_server_port."; } }\n'
            )
            return [program, "-p", str(path), "-e", "stderr", "-c", str(path / "nginx.conf")]

        with peers.serving(command) as peer:
            yield peer.port


def told(sock: socket.socket, context: ssl.SSLContext | None = None) -> tuple[str, str, str]:
    """Ask through the tunnel: who the other end says we are, who we are, and whom we connected to."""
    host, port = sock.getsockname()[:2] if sock.family != socket.AF_UNIX else ("", "")
    to, to_port = sock.getpeername()[:2] if sock.family != socket.AF_UNIX else ("", "")
    with (context or client_context()).wrap_socket(sock, server_hostname="localhost") as tls:
        tls.sendall(REQUEST)
        answer = b""
        with contextlib.suppress(ssl.SSLEOFError, ConnectionResetError):
            while piece := tls.recv(4096):
                answer += piece
    return answer.decode(), f"{host}:{port}", f"{to}:{to_port}"


def reach(port: int, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((host, port), 60)


@pytest.mark.parametrize(
    "lines", ['proxy_protocol = "v1"', 'proxy_protocol = "v2"', 'proxy_protocol = "v2"\nproxy_tlvs = false']
)
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_haproxy_behind_hears_who_the_client_is(tmp_path: Path, lines: str, host: str) -> None:
    target = f"{host.replace('127.0.0.1', '127.0.0.2')}:{{port}}"
    with haproxy_that_tells(target.replace("[", "").replace("]", "") if host == "[::1]" else target) as port:
        case = f'listen = "{host}:0"\ntarget = "{target.format(port=port)}"\n{lines}'
        with services.run(tmp_path, "", {"web": case}, common()) as running:
            answer, source, destination = told(reach(running.at("web"), host.strip("[]")))
            assert f"from={source} to={destination} " in answer
            record = running.record()
            if lines == 'proxy_protocol = "v2"':
                identifier = record["id"].encode().hex().upper()
                assert "authority=localhost " in answer
                assert f"id={identifier}." in answer or f"id={record['id']}." in answer


@pytest.mark.parametrize("lines", ['proxy_protocol = "v1"', 'proxy_protocol = "v2"\nproxy_tlvs = false'])
def test_nginx_behind_hears_who_the_client_is(tmp_path: Path, lines: str) -> None:
    with (
        nginx_that_tells() as port,
        services.run(tmp_path, port, {"web": lines}, common()) as running,
    ):
        answer, source, destination = told(reach(running.at("web")))
        assert f"from={source} to={destination}." in answer


@pytest.mark.parametrize("lines", ['proxy_protocol = "v1"', 'proxy_protocol = "v2"'])
def test_over_unix_sockets_on_both_sides_a_header_still_stands_before_the_data(tmp_path: Path, lines: str) -> None:
    """There is no address to tell; what is said is that, and the connection works."""
    front, back = tmp_path / "front", tmp_path / "back"
    with haproxy_that_tells(f"unix@{back}"):
        case = f'listen = "unix:{front}"\ntarget = "unix:{back}"\n{lines}'
        with services.run(tmp_path, "", {"web": case}, common()) as running:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(60)
            sock.connect(str(front))
            answer, _, _ = told(sock)
            assert "HTTP/1.1 200" in answer
            assert running.record()["client"] == "unix"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,authority"])
def test_haproxy_in_front_tells_who_the_client_is(tmp_path: Path, option: str, host: str) -> None:
    shown = f"[{host}]" if ":" in host else host
    with backends.serve(services.greet) as backend:
        case = f'listen = "{shown}:0"\naccept_proxy_protocol = true'
        with (
            services.run(tmp_path, backend.port, {"web": case}, common()) as running,
            peers.haproxy("", f"{shown}:{running.at('web')} {option}") as front,
        ):
            # Its readiness was asked by connecting, which the tunnel has seen as a client that left.
            with reach(front.port) as sock:
                here = sock.getsockname()
                with client_context().wrap_socket(sock, server_hostname="localhost") as tls:
                    assert tls.recv(100).startswith(services.GREETING.encode())
            record = running.record()
            while record["version"] is None:
                record = running.record()
            assert record["real_client"] == f"{here[0]}:{here[1]}"
            assert record["client"].startswith(shown)


def test_what_came_with_the_header_goes_on_to_the_target(tmp_path: Path) -> None:
    """HAProxy in front, HAProxy behind, the tunnel between: the last hears of the first's client."""
    with haproxy_that_tells("127.0.0.2:{port}") as behind:
        case = f'target = "127.0.0.2:{behind}"\naccept_proxy_protocol = true\nproxy_protocol = "v2"'
        with (
            services.run(tmp_path, "", {"web": case}, common()) as running,
            peers.haproxy("", f"127.0.0.1:{running.at('web')} send-proxy-v2") as front,
        ):
            answer, source, destination = told(reach(front.port))
            assert f"from={source} to={destination} " in answer


def test_clients_with_certificates_are_described_in_version_2(tmp_path: Path) -> None:
    kept: list[Header] = []

    def keep(sock: Any) -> None:
        data = b""
        while (header := parse(data)) is None:
            data += sock.recv(4096)
        kept.append(header)
        sock.sendall(f"{services.GREETING}\n".encode())
        backends.half_close(sock)
        backends.read_all(sock)

    pair = certificates.client("billing")
    with backends.serve(keep) as backend:
        case = (
            'proxy_protocol = "v2"\nclient_auth = "optional"\nallow_any = true\nalpn = ["x"]\n'
            f'client_ca = "{certificates.ca().certificate}"'
        )
        with services.run(tmp_path, backend.port, {"web": case}, common()) as running:
            session = str(tmp_path / "session")
            for options, with_pair in (
                (("-alpn", "x", "-sess_out", session), True),
                (("-sess_in", session), True),
                (("-tls1_2",), False),
            ):
                ask = services.ask(
                    running.at("web"), certificates.ca().certificate, *options, pair=pair if with_pair else None
                )
                assert services.GREETING in ask.text
                running.record()
    first, resumed, anonymous = (header.tlvs.ssl for header in kept)
    assert first is not None and resumed is not None and anonymous is not None  # noqa: PT018
    assert (first.cn, first.verify, first.has_certificate, first.has_session_certificate) == ("billing", 0, True, True)
    assert (first.version, first.cipher) == ("TLSv1.3", "TLS_AES_128_GCM_SHA256")
    assert kept[0].tlvs.alpn == b"x"
    assert (resumed.cn, resumed.has_certificate, resumed.has_session_certificate) == ("billing", False, True)
    assert (anonymous.cn, anonymous.verify, anonymous.has_certificate) == (None, 1, False)
    assert anonymous.version == "TLSv1.2"
    assert len({header.tlvs.unique_id for header in kept}) == 3


BROKEN = [
    (b"GET / HTTP/1.1\r\n\r\n", "proxy_header_missing"),
    (b"\x16\x03\x01\x02\x00\x01\x00", "proxy_header_missing"),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", "proxy_header_malformed"),
    (b"PROXY TCP4 192.0.2.300 192.0.2.2 1 2\r\n", "proxy_header_malformed"),
    (b"PROXY " + b"x" * 200, "proxy_header_malformed"),
    (b"\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x0c" + bytes(12), "proxy_header_malformed"),
    (b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x04" + bytes(4), "proxy_header_malformed"),
    (b"PROXY TCP4 192.0.2.1", "eof"),
]


@pytest.mark.parametrize("mode", ["server", "client", "passthrough"])
def test_what_is_no_header_ends_the_connection_with_its_reason(tmp_path: Path, mode: str) -> None:
    with backends.serve(services.greet) as backend:
        lines = f'mode = "{mode}"\naccept_proxy_protocol = true\nhandshake_timeout = "500ms"'
        shared = common() if mode == "server" else ""
        lines += f'\nca = "{certificates.ca().certificate}"' if mode == "client" else ""
        with services.run(tmp_path, f"localhost:{backend.port}", {"web": lines}, shared) as running:
            for data, reason in BROKEN:
                with clients.raw(running.at("web")) as sock:
                    sock.sendall(data)
                    sock.shutdown(socket.SHUT_WR)
                    assert clients.read_to_end(sock)[0] == b""
                record = running.record()
                assert (data, record["reason"]) == (data, reason)
            with clients.raw(running.at("web")) as sock:  # silent
                assert clients.read_to_end(sock)[0] == b""
            assert running.record()["reason"] == "timeout"
        assert backend.count == 0


def test_a_header_from_a_network_that_is_not_trusted_is_not_read(tmp_path: Path) -> None:
    pair = certificates.server("localhost")
    with backends.serve(services.greet) as backend:
        case = 'accept_proxy_protocol = true\nproxy_trusted = ["127.0.0.2/32"]'
        shared = f'certificate = "{pair.certificate}"\nkey = "{pair.key}"'
        with services.run(tmp_path, backend.port, {"web": case}, shared) as running:
            header = encode_v1(At("192.0.2.7", 7), At("192.0.2.8", 8))
            for source in ("127.0.0.1", "127.0.0.2"):
                sock = socket.create_connection(("127.0.0.1", running.at("web")), 60, source_address=(source, 0))
                with sock:
                    sock.sendall(header)
                    if source == "127.0.0.1":
                        assert clients.read_to_end(sock)[0] == b""
                        record = running.record()
                        assert record["reason"] == "proxy_header_untrusted"
                        assert record["detail"].startswith("127.0.0.1 is not in proxy_trusted; ")
                        assert record["real_client"] is None
                    else:
                        with client_context().wrap_socket(sock, server_hostname="localhost") as tls:
                            assert tls.recv(100).startswith(services.GREETING.encode())
                        assert running.record()["real_client"] == "192.0.2.7:7"


def test_limits_and_networks_are_those_of_the_client_that_the_header_names(tmp_path: Path) -> None:
    with backends.serve(services.greet) as backend:
        case = 'accept_proxy_protocol = true\ndeny_from = ["192.0.2.0/24"]'
        with services.run(tmp_path, backend.port, {"web": case}, common()) as running:
            for host, reason in (("192.0.2.7", "network_denied"), ("198.51.100.7", None)):
                with clients.raw(running.at("web")) as sock:
                    sock.sendall(encode_v2(At(host, 7), At("203.0.113.1", 8)))
                    if reason:
                        assert clients.read_to_end(sock)[0] == b""
                    else:
                        with client_context().wrap_socket(sock, server_hostname="localhost") as tls:
                            assert tls.recv(100)
                record = running.record()
                assert record["real_client"] == f"{host}:7"
                assert reason is None or record["reason"] == reason


def test_a_header_that_drips_in_is_waited_for_and_never_kept_beyond_its_size(tmp_path: Path) -> None:
    """It stays in the kernel's buffer until it is whole; the longest is 64 KiB of TLVs."""
    with backends.serve(services.greet) as backend:
        case = "accept_proxy_protocol = true"
        with services.run(tmp_path, backend.port, {"web": case}, common()) as running:
            header = encode_v1(At("192.0.2.7", 7), At("192.0.2.8", 8))
            with clients.raw(running.at("web")) as sock:
                for byte in header:
                    sock.sendall(bytes([byte]))
                with client_context().wrap_socket(sock, server_hostname="localhost") as tls:
                    assert tls.recv(100)
            assert running.record()["real_client"] == "192.0.2.7:7"
            before = running.daemon.memory()
            with contextlib.ExitStack() as stack:
                for _ in range(100):
                    sock = stack.enter_context(clients.raw(running.at("web")))
                    sock.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        sock.send(b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff" + bytes(1 << 20))
                # One that is served is proof that the worker has looked at those before it.
                with clients.raw(running.at("web")) as sock:
                    sock.sendall(header)
                    with client_context().wrap_socket(sock, server_hostname="localhost") as tls:
                        assert tls.recv(100)
                assert running.daemon.memory() - before < 8 << 20
