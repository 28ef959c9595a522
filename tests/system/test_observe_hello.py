"""What a client offered stands in its record: always when its handshake failed, and at debug in every record."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator

import pytest

from tests.support import backends, certificates, clients, hellos, tunnel
from tests.support.load import visit
from tests.support.tunnel import Record, Tunnel
from tests.support.wire_peers import client_context
from tlstunnel.tls import clienthello, ja4

pytestmark = pytest.mark.slow

JA4 = re.compile(r"t1[0-3][di]\d{4}\w\w_[0-9a-f]{12}_[0-9a-f]{12}")
OLD = hellos.hello(hellos.versions(0x0302))
"""Offers TLS 1.1 and nothing else."""


@pytest.fixture(scope="module")
def echo() -> Iterator[backends.Backend]:
    with backends.serve(backends.echo) as backend:
        yield backend


@pytest.fixture(scope="module")
def strict(echo: backends.Backend) -> Iterator[Tunnel]:
    """Demands a client certificate, so whoever has none fails after his first message."""
    options = ("--client-auth", "required", "--client-ca", str(certificates.ca().certificate), "--allow-cn", "friend")
    with tunnel.server(echo.port, *options, "--handshake-timeout", "2s") as daemon:
        yield daemon


@pytest.fixture
def plain(echo: backends.Backend) -> Iterator[Tunnel]:
    with tunnel.server(echo.port) as daemon:
        yield daemon


def only(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = client_context()
    context.minimum_version = context.maximum_version = version
    return context


def offered(record: Record) -> tuple[str | None, str | None]:
    return record["client_versions"], record["ja4"]


def expected(hello: bytes) -> tuple[str, str]:
    read = clienthello.parse(hello)
    assert read is not None
    return ",".join(read.version_names), ja4.fingerprint(read)


@pytest.mark.parametrize(("version", "name"), [(ssl.TLSVersion.TLSv1_2, "1.2"), (ssl.TLSVersion.TLSv1_3, "1.3")])
def test_a_handshake_that_fails_late_says_what_the_client_offered(
    strict: Tunnel, version: ssl.TLSVersion, name: str
) -> None:
    with pytest.raises(ssl.SSLError), clients.connect(strict.port, context=only(version)) as client:
        client.read(1)  # in TLS 1.3 the refusal comes after the client's handshake
    record = strict.record()
    assert (record["reason"], record["stage"], record["client_versions"]) == (
        "no_client_certificate",
        "handshake",
        name,
    )
    assert JA4.fullmatch(record["ja4"])
    assert record["ja4"][1:3] == name.replace(".", "")


def test_who_leaves_or_falls_silent_after_his_hello_is_described_too(strict: Tunnel) -> None:
    hello = hellos.recorded("openssl-3.0")
    for reason in ("eof", "timeout"):
        with clients.raw(strict.port) as sock:
            sock.sendall(hello)
            assert sock.recv(1), "it is answered, so it was read"
            if reason == "eof":
                sock.shutdown(1)
            clients.read_to_end(sock)
        record = strict.record()
        assert record["reason"] == reason
        assert offered(record) == expected(hello)


@pytest.mark.parametrize("cut", [1, 4, 6, 20], ids=str)
def test_a_hello_in_two_segments_is_read_as_one(plain: Tunnel, cut: int) -> None:
    with clients.raw(plain.port) as sock:
        sock.sendall(OLD[:cut])
        visit(plain.port, b"the only worker has seen what came before this", client_context())
        plain.record()
        sock.sendall(OLD[cut:])
        assert clients.alert_on(sock) == "protocol_version"
    record = plain.record()
    assert (record["reason"], *offered(record)) == ("no_shared_version", *expected(OLD))


def test_a_hello_in_many_records_is_read_as_one(plain: Tunnel) -> None:
    with clients.raw(plain.port) as sock:
        sock.sendall(hellos.fragmented(OLD, 16))
        clients.read_to_end(sock)
    assert offered(plain.record()) == expected(OLD)


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x02\x01\x00", b"\x16\x03\x01\x00\x05\x02aaaa"]
)
def test_what_is_no_hello_has_nothing_to_describe(plain: Tunnel, said: bytes) -> None:
    with clients.raw(plain.port) as sock:
        sock.sendall(said)
        sock.shutdown(1)
        clients.read_to_end(sock)
    record = plain.record()
    assert record["stage"] == "handshake"
    assert offered(record) == (None, None)


def test_a_finished_connection_is_described_at_debug_and_not_at_info(plain: Tunnel, echo: backends.Backend) -> None:
    visit(plain.port, b"hello", client_context())
    record = plain.record()
    assert (record["reason"], *offered(record)) == ("finished", None, None)
    with tunnel.server(echo.port, "--log-level", "debug") as daemon:
        visit(daemon.port, b"hello", client_context())
        record = daemon.record()
    assert (record["reason"], record["client_versions"]) == ("finished", "1.3")
    assert JA4.fullmatch(record["ja4"])


def test_the_line_for_people_says_it_too(echo: backends.Backend) -> None:
    with tunnel.server(echo.port, "--log-format", "text") as daemon:
        with clients.raw(daemon.port) as sock:
            sock.sendall(OLD)
            clients.read_to_end(sock)
        line = daemon.until(
            lambda: next((each for each in daemon.lines if "no_shared_version" in each), None), "a line"
        )
    versions, fingerprint = expected(OLD)
    assert f" client_versions={versions} ja4={fingerprint} " in line
