"""The PROXY protocol with HAProxy and nginx: what they send we read, and what we send they read as it was meant."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import certificates
from tests.support.interop import require
from tlstunnel.proxy_protocol import Endpoint, Header, SSLInfo, TLVs, UnixEndpoint, encode_v1, encode_v2, parse

pytestmark = [pytest.mark.interop, pytest.mark.slow]

PATIENCE_S = 20  # how long a counterpart may take before the test fails instead of hanging
LOOPBACKS = ["127.0.0.1", "::1"]
PAYLOAD = b"the connection's own bytes"

Start = Callable[..., None]


def listener(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.create_server((host, 0), family=family)
    bound.settimeout(PATIENCE_S)
    return bound


def shown(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Run a program with sockets that already listen, so that nothing has to wait for it; end it afterwards."""
    with contextlib.ExitStack() as stack:

        def run(command: list[str], *sockets: socket.socket, **environment: str) -> None:
            log = stack.enter_context((tmp_path / "log").open("wb"))
            program = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=os.environ | environment,
                pass_fds=[one.fileno() for one in sockets],
            )
            stack.callback(program.wait, PATIENCE_S)
            stack.callback(program.terminate)

        yield run


@pytest.fixture
def haproxy(start: Start, tmp_path: Path) -> Callable[..., None]:
    """Start HAProxy; `{name}` in the configuration becomes the descriptor of a socket given by that name."""
    program = require("haproxy")

    def run(configuration: str, **sockets: socket.socket) -> None:
        path = tmp_path / "haproxy.cfg"
        descriptors = {name: f"fd@{one.fileno()}" for name, one in sockets.items()}
        defaults = "defaults\n  timeout connect 10s\n  timeout client 10s\n  timeout server 10s\n"
        path.write_text(defaults + configuration.format(**descriptors) + "\n")
        start([program, "-db", "-f", str(path)], *sockets.values())

    return run


@pytest.fixture
def nginx(start: Start, tmp_path: Path) -> Callable[..., None]:
    """Start nginx with one server block; it takes over the socket because it finds its own address on it."""
    program = require("nginx")

    def run(block: str, bound: socket.socket) -> None:
        module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
        path = tmp_path / "nginx.conf"
        path.write_text(
            (f"load_module {module};\n" if module.exists() else "")
            + f"daemon off; pid {tmp_path}/nginx.pid; error_log stderr info;\n"
            + "events { worker_connections 16; }\n"
            + f"stream {{ server {{ {block} }} }}\n"
        )
        start([program, "-p", str(tmp_path), "-e", "stderr", "-c", str(path)], bound, NGINX=f"{bound.fileno()};")

    return run


def received(bound: socket.socket) -> tuple[Header, bytes]:
    """Accept one connection, read its header a little at a time, and everything after it."""
    connection, _ = bound.accept()
    with connection:
        connection.settimeout(PATIENCE_S)
        buffer = b""
        while (header := parse(buffer)) is None:
            chunk = connection.recv(7)
            assert chunk, buffer
            buffer += chunk
        with contextlib.suppress(ConnectionResetError):  # a health check ends that way
            while chunk := connection.recv(4096):
                buffer += chunk
        return header, buffer[header.size :]


def relay(front: socket.socket, back: socket.socket) -> tuple[Header, bytes, Endpoint, Endpoint]:
    """Connect to the proxy, send a few bytes; what arrives behind it, and the connection's real addresses."""
    with socket.create_connection(front.getsockname()[:2], PATIENCE_S) as client:
        source, destination = client.getsockname()[:2], client.getpeername()[:2]
        client.sendall(PAYLOAD)
        client.shutdown(socket.SHUT_WR)
        header, rest = received(back)
        return header, rest, Endpoint(*source), Endpoint(*destination)


@pytest.mark.parametrize("host", LOOPBACKS)
@pytest.mark.parametrize(("option", "version"), [("send-proxy", 1), ("send-proxy-v2", 2)])
def test_haproxy_sends_what_we_read(haproxy: Start, host: str, option: str, version: int) -> None:
    with listener(host) as front, listener("127.0.0.1") as back:
        haproxy(
            "listen relay\n  mode tcp\n  bind {front}\n"
            f"  server ours {shown(back)} {option} " + ("proxy-v2-options crc32c" if version == 2 else ""),
            front=front,
        )
        header, rest, source, destination = relay(front, back)
    assert (header.version, header.is_local) == (version, False)
    assert (header.source, header.destination) == (source, destination)
    assert rest == PAYLOAD


@pytest.mark.parametrize(("option", "version"), [("send-proxy", 1), ("send-proxy-v2", 2)])
def test_haproxy_says_nothing_of_unix_clients(haproxy: Start, tmp_path: Path, option: str, version: int) -> None:
    path = str(tmp_path / "front")
    with socket.socket(socket.AF_UNIX) as front, listener("127.0.0.1") as back:
        front.bind(path)
        front.listen()
        haproxy(f"listen relay\n  mode tcp\n  bind {{front}}\n  server ours {shown(back)} {option}\n", front=front)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(PAYLOAD)
            client.shutdown(socket.SHUT_WR)
            header, rest = received(back)
    assert header.version == version
    assert header.is_local is (version == 2)
    assert (header.source, header.destination) == (None, None)
    assert rest == PAYLOAD


def test_haproxy_checks_our_health_with_a_local_header(haproxy: Start) -> None:
    with listener("127.0.0.1") as front, listener("127.0.0.1") as back:
        haproxy(
            f"listen relay\n  mode tcp\n  bind {{front}}\n  server ours {shown(back)} check send-proxy-v2\n",
            front=front,
        )
        header, rest = received(back)
    assert header.is_local
    assert (header.source, rest) == (None, b"")


@pytest.mark.parametrize("host", LOOPBACKS)
@pytest.mark.parametrize("has_certificate", [False, True])
def test_haproxy_sends_what_the_client_said_in_tls(haproxy: Start, host: str, has_certificate: bool) -> None:
    pair, ca = certificates.server("localhost"), certificates.ca().certificate
    context = ssl.create_default_context(cafile=str(ca))
    context.set_alpn_protocols(["h2"])
    if has_certificate:
        shown_pair = certificates.client("billing")
        context.load_cert_chain(shown_pair.certificate, shown_pair.key)
    with listener(host) as front, listener("127.0.0.1") as back:
        haproxy(
            "listen relay\n  mode tcp\n  unique-id-format connection-%pid\n"
            f"  bind {{front}} ssl crt {pair.combined} ca-file {ca} verify optional alpn h2,http/1.1\n"
            f"  server ours {shown(back)} send-proxy-v2-ssl-cn "
            "proxy-v2-options ssl,cert-cn,ssl-cipher,cert-sig,cert-key,authority,unique-id,crc32c\n",
            front=front,
        )
        with socket.create_connection(front.getsockname()[:2], PATIENCE_S) as bare:
            client = context.wrap_socket(bare, server_hostname="localhost")
            source, destination = client.getsockname()[:2], client.getpeername()[:2]
            client.sendall(PAYLOAD)
            cipher, version = client.cipher(), client.version()
            connection, _ = back.accept()
            with connection:
                connection.settimeout(PATIENCE_S)
                buffer = b""
                while (header := parse(buffer)) is None or len(buffer) < header.size + len(PAYLOAD):
                    buffer += connection.recv(11)
            client.close()
    assert (header.source, header.destination) == (source, destination)
    assert buffer[header.size :] == PAYLOAD
    assert header.tlvs.alpn == b"h2"
    assert header.tlvs.authority == "localhost"
    assert header.tlvs.unique_id is not None
    assert header.tlvs.unique_id.startswith(b"connection-")
    found = header.tlvs.ssl
    assert found is not None
    assert cipher is not None
    assert (found.uses_tls, found.version, found.cipher) == (True, version, cipher[0])
    assert found.has_certificate is found.has_session_certificate is has_certificate
    assert found.cn == ("billing" if has_certificate else None)
    assert found.verify == 0
    assert found.signature_algorithm
    assert found.key_algorithm


@pytest.mark.parametrize("host", LOOPBACKS)
def test_nginx_sends_what_we_read(nginx: Start, host: str) -> None:
    with listener(host) as front, listener("127.0.0.1") as back:
        nginx(f"listen {shown(front)}; proxy_pass {shown(back)}; proxy_protocol on;", front)
        header, rest, source, destination = relay(front, back)
    assert (header.version, header.source, header.destination) == (1, source, destination)
    assert rest == PAYLOAD


CLIENT, SERVER = Endpoint("192.0.2.7", 51514), Endpoint("198.51.100.1", 443)
CLIENT6, SERVER6 = Endpoint("2001:db8::7", 51514), Endpoint("2001:db8::1", 443)
TOLD = TLVs(alpn=b"h2", authority="api.example.org", unique_id=b"id-4711", others=((0xE0, b"x"),))
HEADERS = [
    pytest.param(encode_v1(CLIENT, SERVER), CLIENT, SERVER, TLVs(), id="v1"),
    pytest.param(encode_v1(CLIENT6, SERVER6), CLIENT6, SERVER6, TLVs(), id="v1-ipv6"),
    pytest.param(encode_v2(CLIENT, SERVER), CLIENT, SERVER, TLVs(), id="v2"),
    pytest.param(encode_v2(CLIENT6, SERVER6), CLIENT6, SERVER6, TLVs(), id="v2-ipv6"),
    pytest.param(encode_v2(CLIENT, SERVER, TOLD), CLIENT, SERVER, TOLD, id="v2-tlvs"),
    pytest.param(encode_v2(CLIENT6, SERVER6, TOLD, crc32c=True), CLIENT6, SERVER6, TOLD, id="v2-ipv6-crc32c"),
]

HAPROXY_ECHO = (
    "frontend echo\n  mode http\n  bind {front} accept-proxy\n"
    '  http-request return content-type text/plain lf-string "'
    '%[src] %[src_port] %[dst] %[dst_port] <%[fc_pp_authority]> <%[fc_pp_unique_id]>"\n'
)


def answer(front: socket.socket, sent: bytes) -> bytes:
    """Everything the program answers to these bytes, until it closes."""
    with socket.create_connection(front.getsockname()[:2], PATIENCE_S) as client:
        client.sendall(sent)
        found = b""
        with contextlib.suppress(ConnectionError):
            while chunk := client.recv(4096):
                found += chunk
        return found


REQUEST = b"GET / HTTP/1.0\r\n\r\n"


@pytest.mark.parametrize(("sent", "source", "destination", "tlvs"), HEADERS)
def test_haproxy_reads_what_we_send(
    haproxy: Start, sent: bytes, source: Endpoint, destination: Endpoint, tlvs: TLVs
) -> None:
    with listener("127.0.0.1") as front:
        haproxy(HAPROXY_ECHO, front=front)
        _, _, body = answer(front, sent + REQUEST).partition(b"\r\n\r\n")
    assert body.decode() == (
        f"{source.host} {source.port} {destination.host} {destination.port} "
        f"<{tlvs.authority or ''}> <{(tlvs.unique_id or b'').decode()}>"
    )


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(encode_v1(None, None), id="v1-unknown"),
        pytest.param(encode_v2(None, None), id="v2-local"),
    ],
)
def test_haproxy_keeps_the_real_addresses_when_we_say_nothing(haproxy: Start, sent: bytes) -> None:
    with listener("127.0.0.1") as front:
        haproxy(HAPROXY_ECHO, front=front)
        found = answer(front, sent + REQUEST)
    assert found.startswith(b"HTTP/1.1 200 "), found
    assert b"\r\n\r\n127.0.0.1 " in found


def test_wireshark_reads_what_neither_of_them_takes(tmp_path: Path) -> None:
    """Unix addresses (HAProxy 2.6 refuses them, nginx 1.22 refuses their size), and every part of the SSL TLV."""
    told = SSLInfo(
        has_certificate=True,
        verify=0x12345678,
        version="TLSv1.3",
        cn="billing",
        cipher="TLS_AES_256_GCM_SHA384",
        signature_algorithm="SHA256",
        key_algorithm="RSA2048",
    )
    header = encode_v2(UnixEndpoint(b"/run/client"), UnixEndpoint(b"/run/server"), TLVs(ssl=told), crc32c=True)
    rows = (f"{at:06x} {header[at : at + 16].hex(' ')}\n" for at in range(0, len(header), 16))
    (tmp_path / "dump").write_text("".join(rows))
    capture = str(tmp_path / "capture")
    subprocess.run(
        [require("text2pcap"), "-q", "-T", "40000,40001", str(tmp_path / "dump"), capture],
        check=True,
        capture_output=True,
    )
    wanted = "src.unix dst.unix tlv.ssl.client tlv.ssl.verify tlv.ssl.version tlv.ssl.cn tlv.ssl.cipher tlv.ssl.sig_alg"
    fields = [part for name in wanted.split() for part in ("-e", f"proxy.v2.{name}")]
    read = subprocess.run(
        [
            require("tshark"),
            "-r",
            capture,
            "-o",
            "tcp.try_heuristic_first:TRUE",
            "-T",
            "fields",
            "-E",
            "separator=|",
            *fields,
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    source, destination, *rest = read.stdout.strip("\n").split("|")
    assert bytes.fromhex(source).rstrip(b"\0") == b"/run/client"
    assert bytes.fromhex(destination).rstrip(b"\0") == b"/run/server"
    assert rest == ["0x03", "0x12345678", "TLSv1.3", "billing", "TLS_AES_256_GCM_SHA384", "SHA256"]


def test_haproxy_refuses_a_checksum_that_is_wrong(haproxy: Start) -> None:
    """So it does look at the one we send in the test above."""
    right = encode_v2(CLIENT, SERVER, TOLD, crc32c=True)
    with listener("127.0.0.1") as front:
        haproxy(HAPROXY_ECHO, front=front)
        assert answer(front, right + REQUEST).startswith(b"HTTP/1.1 200 ")
        assert answer(front, right[:-1] + bytes([right[-1] ^ 1]) + REQUEST) == b""


@pytest.mark.parametrize(("sent", "source", "destination", "tlvs"), HEADERS)
def test_nginx_reads_what_we_send(
    nginx: Start, sent: bytes, source: Endpoint, destination: Endpoint, tlvs: TLVs
) -> None:
    variables = "addr", "port", "server_addr", "server_port"
    with listener("127.0.0.1") as front:
        values = " ".join(f"$proxy_protocol_{name}" for name in variables)
        nginx(f'listen {shown(front)} proxy_protocol; return "{values}";', front)
        found = answer(front, sent)
    assert found.decode() == f"{source.host} {source.port} {destination.host} {destination.port}"
