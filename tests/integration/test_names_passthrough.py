"""Passthrough: TLS goes by name to servers of others, byte for byte, however its first message was cut."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import backends, certificates, clients, hellos, openssl_ca, peers, services
from tests.support.interop import require
from tests.support.services import ask

pytestmark = [pytest.mark.slow]

REMEDY = 'list it in an sni entry, or set sni_mismatch = "default"'


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> openssl_ca.Authority:
    return openssl_ca.make(tmp_path_factory.mktemp("ca"))


def entries(ports: dict[str, int]) -> str:
    tables = [f'[[sni]]\nnames = ["{name}"]\ntarget = "127.0.0.1:{port}"' for name, port in ports.items()]
    return "\n".join(tables)


@pytest.mark.interop
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_two_servers_are_told_apart_by_name_and_keep_their_own_certificates(
    authority: openssl_ca.Authority, tmp_path: Path, version: str
) -> None:
    with contextlib.ExitStack() as stack:
        ports = {}
        for name in ("a.example", "*.b.example"):
            pair = authority.issue(name, f"subjectAltName=DNS:{name}")
            ports[name] = stack.enter_context(peers.s_server("-www", pair=pair)).port  # type: ignore[arg-type]
        other = authority.issue("other.example", "subjectAltName=DNS:other.example")
        default = stack.enter_context(peers.s_server("-www", pair=other)).port  # type: ignore[arg-type]
        cases = {
            "route": f'mode = "passthrough"\ntarget = "127.0.0.1:{default}"\n{entries(ports)}',
            "strict": f'mode = "passthrough"\nsni_mismatch = "reject"\n{entries(ports)}',
        }
        cases["strict"] = cases["strict"].replace("[[sni]]", "[[services.strict.sni]]")
        config = tmp_path / "tunnel.toml"
        services.write(config, default, {"route": cases["route"]}, "")
        strict = cases["strict"].replace("sni_mismatch", 'listen = "127.0.0.1:0"\nsni_mismatch', 1)
        config.write_text(config.read_text() + "[services.strict]\n" + strict + "\n")
        running = stack.enter_context(services.tunnel.run(config))
        found = services.Services(running, config)
        for asked, subject in (
            ("a.example", "a.example"),
            ("x.b.example", "*.b.example"),
            ("z.example", "other.example"),
        ):
            said = ask(found.at("route"), authority.certificate, version, name=asked, waits=False)
            assert f"subject=CN={subject}" in said.text
            record = found.record()
            assert (record["server_name"], record["version"]) == (asked, None)
        assert (
            "subject=CN=other.example"
            in ask(found.at("route"), authority.certificate, version, name=None, waits=False).text
        )
        found.record()
        for asked in ("z.example", None):
            assert ask(found.at("strict"), authority.certificate, version, name=asked).alert == 112
            record = found.record()
            assert (record["reason"], record["target"]) == ("unrecognized_name", None)
            wanted = f'it asks for "{asked}"' if asked else "it asks for no name"
            assert record["detail"] == f"{wanted}; {REMEDY}"


@pytest.mark.interop
def test_curl_fetches_a_page_through_it_from_nginx(tmp_path: Path) -> None:
    """Two real web servers with TLS of their own behind one port."""
    with contextlib.ExitStack() as stack:
        ports = {}
        for name in ("one.example", "two.example"):
            root = tmp_path / name
            root.mkdir()
            (root / "page").write_text(f"{name} says hello\n")
            ports[name] = stack.enter_context(nginx_tls(root, certificates.server(name)))
        lines = f'mode = "passthrough"\nsni_mismatch = "reject"\n{entries(ports)}'
        config = tmp_path / "tunnel.toml"
        config.write_text(
            '[log]\nformat = "json"\n[services.web]\nlisten = "127.0.0.1:0"\n'
            + lines.replace("[[sni]]", "[[services.web.sni]]")
        )
        daemon = stack.enter_context(services.tunnel.run(config))
        for name in ports:
            done = subprocess.run(
                [
                    require("curl"), "--silent", "--noproxy", "*", "--cacert", str(certificates.ca().certificate),
                    "--resolve", f"{name}:{daemon.port}:127.0.0.1", f"https://{name}:{daemon.port}/page",
                ],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.stdout == f"{name} says hello\n"
            assert daemon.record()["server_name"] == name


@contextlib.contextmanager
def nginx_tls(root: Path, pair: certificates.Pair) -> Iterator[int]:
    program = require("nginx")
    with peers.folder() as path:
        path.chmod(0o755)

        def command(port: int) -> list[str]:
            kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            temporary = " ".join(f"{kind}_temp_path {path}/{kind};" for kind in kinds)
            (path / "nginx.conf").write_text(
                f"daemon off; user root; pid {path}/pid; error_log stderr; worker_processes 1;\n"
                "events { worker_connections 64; }\n"
                f"http {{ access_log off; {temporary}\n"
                f"ssl_certificate {pair.certificate}; ssl_certificate_key {pair.key};\n"
                f"server {{ listen 127.0.0.1:{port} ssl; root {root}; }} }}\n"
            )
            return [program, "-p", str(path), "-e", "stderr", "-c", str(path / "nginx.conf")]

        with peers.serving(command) as peer:
            yield peer.port


def keep(kept: list[bytes]) -> backends.Handler:
    def handler(sock: socket.socket) -> None:
        kept.append(backends.read_all(sock))
        sock.sendall(b"done")
        backends.half_close(sock)

    return handler


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("by", ["records", "segments"])
def test_a_client_hello_in_pieces_is_routed_and_arrives_as_it_was_sent(tmp_path: Path, size: int, by: str) -> None:
    """Middlebox-dodging clients cut it into records, slow networks into segments."""
    if by == "records" and size == 1:
        size = 8  # more than 128 records are refused
    hello = hellos.hello(hellos.server_name(b"a.example"), hellos.versions(0x304), hellos.extension(0x1234, bytes(600)))
    sent = hellos.fragmented(hello, size) if by == "records" else hello
    kept: list[bytes] = []
    with backends.serve(keep(kept)) as backend:
        lines = f'mode = "passthrough"\nsni_mismatch = "reject"\n{entries({"a.example": backend.port})}'
        config = tmp_path / "tunnel.toml"
        config.write_text(
            '[log]\nformat = "json"\n[services.web]\nlisten = "127.0.0.1:0"\n'
            + lines.replace("[[sni]]", "[[services.web.sni]]")
        )
        with services.tunnel.run(config) as daemon, clients.raw(daemon.port) as sock:
            pieces = [sent[at : at + size] for at in range(0, len(sent), size)] if by == "segments" else [sent]
            for piece in pieces:
                sock.sendall(piece)
            sock.sendall(b"and what follows")
            sock.shutdown(socket.SHUT_WR)
            assert backends.read_all(sock) == b"done"
            record = daemon.record()
            assert (record["server_name"], record["reason"]) == ("a.example", "finished")
    assert kept == [sent + b"and what follows"]


def test_what_is_no_client_hello_ends_with_its_reason_and_reaches_nobody(tmp_path: Path) -> None:
    with backends.serve(backends.echo) as backend:
        config = tmp_path / "tunnel.toml"
        config.write_text(
            '[log]\nformat = "json"\n[services.web]\nmode = "passthrough"\nlisten = "127.0.0.1:0"\n'
            f'target = "127.0.0.1:{backend.port}"\nhandshake_timeout = "300ms"\n'
        )
        hello = hellos.hello(hellos.server_name(b"a.example"))
        server_hello = hellos.record(hellos.message(b"\x03\x03", kind=2))
        crumbs = hellos.fragmented(hellos.hello(hellos.extension(1, bytes(600))), 2)
        cases = [
            (b"GET / HTTP/1.1\r\n\r\n", "not_tls", "client speaks plain HTTP"),
            (b"SSH-2.0-x\r\n", "not_tls", "client speaks SSH"),
            (hello[:-3], "eof", None),
            (b"", "eof", None),
            (server_hello, "protocol_error", "the first message is not a ClientHello"),
            (crumbs, "protocol_error", "more than 128 records"),
        ]  # fmt: skip
        with services.tunnel.run(config) as daemon:
            for data, reason, detail in cases:
                with clients.raw(daemon.port) as sock:
                    sock.sendall(data)
                    sock.shutdown(socket.SHUT_WR)
                    clients.read_to_end(sock)
                record = daemon.record()
                assert (data[:20], record["reason"]) == (data[:20], reason)
                assert detail is None or re.search(detail, record["detail"])
            with clients.raw(daemon.port) as sock:
                sock.sendall(hello[:-3])
                assert daemon.record()["reason"] == "timeout"
        assert backend.count == 0
