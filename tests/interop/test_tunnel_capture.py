"""What a wiretap sees: a capture by tshark on both sides of the tunnel."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import certificates, peers, tunnel
from tests.support.backends import echo
from tests.support.interop import require
from tests.support.traffic import backend

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.root]

SECRET = b"the secret text that must not be seen on the wire"


def put_on_wire(port: int) -> None:
    """A packet that the capture will show: a connection to a port where nobody listens."""
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", port)) != 0


@contextlib.contextmanager
def captured(file: Path, *ports: int) -> Iterator[None]:
    """Capture what the loopback interface carries for these ports during the block, all of it."""
    require("tshark")
    if os.geteuid() != 0:
        message = "a capture on the wire needs root"
        if os.environ.get("TLSTUNNEL_REQUIRE_INTEROP") == "1":
            pytest.fail(message)
        pytest.skip(message)
    begin, end = peers.free_port(), peers.free_port()
    wanted = " or ".join(f"tcp port {port}" for port in (*ports, begin, end))
    command = [require("tshark"), "-i", "lo", "-f", wanted, "-w", str(file), "-P", "-l", "-n"]
    with peers.talking(command) as peer:
        is_running = threading.Event()

        def knock() -> None:
            while not is_running.wait(0.05):
                put_on_wire(begin)

        knocking = threading.Thread(target=knock)
        knocking.start()
        try:
            peer.read_until(rf"\b{begin}\b")
        finally:
            is_running.set()
            knocking.join()
        yield
        put_on_wire(end)  # packets are reported in order, so all that was before it is in the file
        peer.read_until(rf"\b{end}\b")


def payloads(file: Path, port: int) -> bytes:
    """All that TCP carried to and from a port."""
    command = [require("tshark"), "-r", str(file), "-Y", f"tcp.port == {port}", "-T", "fields", "-e", "tcp.payload"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return bytes.fromhex("".join(said.replace(":", "").split()))


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_the_secret_is_on_the_plaintext_side_and_never_on_the_tls_side(tmp_path: Path, version: str) -> None:
    file = tmp_path / "capture.pcapng"
    with (
        backend(echo) as service,
        tunnel.server(service.port) as far,
        tunnel.client(far.port, "--max-version", version) as near,
    ):
        with (
            captured(file, near.port, far.port, service.port),
            socket.create_connection(("127.0.0.1", near.port)) as sock,
        ):
            sock.sendall(SECRET)
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(tunnel.PATIENCE_S)
            got = b""
            while data := sock.recv(4096):
                got += data
            assert got == SECRET
            service.got()
            assert near.record()["reason"] == far.record()["reason"] == "finished"
        for port in (near.port, service.port):
            assert payloads(file, port).count(SECRET) == 2  # there, and back
        wire = payloads(file, far.port)
        assert b"localhost" in wire  # the name is sent in the clear: this is the connection we think it is
        assert len(wire) > 2 * len(SECRET) + 500
        assert SECRET[:8] not in wire
        assert SECRET[-8:] not in wire


def test_a_client_certificate_is_hidden_in_tls_1_3(tmp_path: Path) -> None:
    """TLS 1.2 shows it, which proves that it would be found."""
    pair = certificates.client("the name of nobody else")
    demand = ["--client-auth", "required", "--client-ca", str(certificates.ca().certificate), "--allow-any"]
    shown = ["--cert", str(pair.certificate), "--key", str(pair.key)]
    seen = {}
    for version in ("1.2", "1.3"):
        file = tmp_path / f"{version}.pcapng"
        with (
            backend(echo) as service,
            tunnel.server(service.port, *demand) as far,
            tunnel.client(far.port, *shown, "--max-version", version) as near,
        ):
            with captured(file, far.port):
                with socket.create_connection(("127.0.0.1", near.port)) as sock:
                    sock.shutdown(socket.SHUT_WR)
                    assert sock.recv(1) == b""
                far.record()
            seen[version] = b"the name of nobody else" in payloads(file, far.port)
    assert seen == {"1.2": True, "1.3": False}
