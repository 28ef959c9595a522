"""Clients that are broken, hostile, or gone: each ends with the right name in one record and hears the right alert,
and a healthy connection beside it is not disturbed."""

from __future__ import annotations

import contextlib
import random
import ssl
from collections.abc import Iterator

import pytest

from tests.support import backends, certificates, clients, tunnel
from tests.support.wire_peers import client_context
from tlstunnel.tools.tls13.names import AlertDescription


@contextlib.contextmanager
def beside_a_healthy_one(*options: str, **how: object) -> Iterator[tunnel.Tunnel]:
    """A tunnel with a connection that works before, during and after what the test does."""
    with backends.serve(backends.echo) as backend, tunnel.server(backend.port, *options, **how) as daemon:
        pair = certificates.client("billing") if "--client-auth" in options else None
        with clients.connect(daemon.port, context=client_context(pair=pair)) as healthy:
            healthy.send(b"before")
            assert healthy.read(6) == b"before"
            yield daemon
            count = len(daemon.records)
            healthy.send(b"after")
            assert healthy.read(5) == b"after"
            healthy.close_notify(fin=True)
            assert healthy.read_all() == b""
            daemon.until(lambda: len(daemon.records) > count, "the healthy connection's record")
            assert daemon.records[count]["reason"] == "finished"
        daemon.stop()
        assert len(daemon.records) == count + 1, daemon.text


def hello(**settings: object) -> bytes:
    """A ClientHello of OpenSSL's."""
    context = client_context()
    for name, value in settings.items():
        setattr(context, name, value)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


NOT_TLS = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "zeros": bytes(64),
    "random": random.Random(7).randbytes(200),
    "SMTP": b"EHLO example.org\r\n",
}


@pytest.mark.parametrize("what", NOT_TLS)
def test_who_does_not_speak_tls_is_told_apart_and_not_reset(what: str) -> None:
    with beside_a_healthy_one() as daemon:
        with clients.raw(daemon.port) as sock:
            sock.sendall(NOT_TLS[what])
            answer, was_reset = clients.read_to_end(sock)
        record = daemon.record()
        assert not was_reset
        assert (record["reason"], record["stage"], record["fault"]) == ("not_tls", "handshake", "client")
        assert record["detail"]
        if what == "HTTP":
            assert b"400 Bad Request" in answer, "words that the person behind it can read"
        else:
            assert answer == b"", "OpenSSL says nothing to who does not speak TLS: it would be noise to them"


def test_a_client_that_never_speaks_or_stalls_in_its_hello_ends_at_handshake_timeout() -> None:
    with beside_a_healthy_one("--handshake-timeout", "300ms") as daemon:
        for sent in (b"", hello()[:100], hello()[:3]):
            with clients.raw(daemon.port) as sock:
                sock.sendall(sent)
                answer, was_reset = clients.read_to_end(sock)
            assert not was_reset
            assert answer == b""
            record = daemon.record()
            assert (record["reason"], record["stage"], record["fault"]) == ("timeout", "handshake", "client")
            assert record["total_s"] >= 0.3


def test_tls_1_0_only_is_refused_by_version() -> None:
    with beside_a_healthy_one() as daemon:
        with clients.raw(daemon.port) as sock:
            body = b"\x03\x01" + bytes(32) + b"\x00" + b"\x00\x04\xc0\x09\xc0\x13" + b"\x01\x00" + b"\x00\x00"
            body = b"\x01" + len(body).to_bytes(3, "big") + body
            sock.sendall(b"\x16\x03\x01" + len(body).to_bytes(2, "big") + body)
            assert clients.alert_on(sock) == "protocol_version"
        record = daemon.record()
        assert record["reason"] == "no_shared_version"
        assert "1.0" in record["detail"]


def test_a_version_older_than_tls_is_named_as_what_it_is() -> None:
    with beside_a_healthy_one() as daemon:
        with clients.raw(daemon.port) as sock:
            body = b"\x03\x00" + bytes(32) + b"\x00" + b"\x00\x02\x00\x2f" + b"\x01\x00"
            body = b"\x01" + len(body).to_bytes(3, "big") + body
            sock.sendall(b"\x16\x03\x00" + len(body).to_bytes(2, "big") + body)
            clients.alert_on(sock)
        assert daemon.record()["detail"].startswith("client offers SSLv3; ")


@pytest.mark.parametrize(
    ("options", "client", "reason", "alert"),
    [
        (["--max-version", "1.2", "--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"],
         {"ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256", "version": "1.2"}, "no_shared_cipher", "handshake_failure"),
        (["--groups", "P-384"], {"curve": "prime256v1"}, "no_shared_group", "handshake_failure"),
        (["--min-version", "1.3"], {"version": "1.2"}, "no_shared_version", "protocol_version"),
        (["--alpn", "h2", "--alpn-required"], {"alpn": ["http/1.1"]}, "no_shared_alpn", "no_application_protocol"),
    ],
    ids=["cipher", "group", "version", "alpn"],
)  # fmt: skip
def test_nothing_in_common_names_what_it_is(options: list[str], client: dict, reason: str, alert: str) -> None:
    context = client_context(client.get("version", "1.3"))
    if "ciphers" in client:
        context.set_ciphers(client["ciphers"])
    if "curve" in client:
        context.set_ecdh_curve(client["curve"])
    if "alpn" in client:
        context.set_alpn_protocols(client["alpn"])
    with backends.serve(backends.echo) as backend, tunnel.server(backend.port, *options) as daemon:
        with clients.raw(daemon.port) as sock:
            with pytest.raises(ssl.SSLError) as error:
                clients.Client(sock, context).handshake()
            assert alert.replace("_", "") in str(error.value).lower().replace("_", "").replace(" ", "")
        record = daemon.record()
        assert (record["reason"], record["stage"], record["fault"]) == (reason, "handshake", "client")


REQUIRED = ["--client-auth", "required", "--client-ca", str(certificates.ca().certificate), "--allow-cn", "billing"]

CLIENT_CERTIFICATES = {
    "missing": (lambda: None, "no_client_certificate", "certificate_required"),
    "unknown CA": (lambda: certificates.client("billing", authority="another CA"), "unknown_ca", "unknown_ca"),
    "self-signed": (lambda: certificates.client("billing", self_signed=True), "unknown_ca", "unknown_ca"),
    "expired": (
        lambda: certificates.expired("billing", purpose="client"), "expired_certificate", "certificate_expired",
    ),
    "not yet valid": (
        lambda: certificates.not_yet_valid("billing", purpose="client"), "not_yet_valid_certificate",
        "bad_certificate",
    ),
    "for servers": (lambda: certificates.server("billing"), "wrong_purpose", "unsupported_certificate"),
    "not allowed": (lambda: certificates.client("somebody"), "denied", ""),
}  # fmt: skip


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_client_certificates_that_do_not_do_are_refused_by_name_and_by_alert(version: str) -> None:
    with beside_a_healthy_one(*REQUIRED) as daemon:
        for what, (make, reason, alert) in CLIENT_CERTIFICATES.items():
            with clients.raw(daemon.port) as sock:
                client = clients.Client(sock, client_context(version, make()))
                with pytest.raises(ssl.SSLError) as error:  # noqa: PT012 - TLS 1.3 says so only after the handshake
                    client.handshake()
                    client.send(b"let me in")
                    client.read(1)
                    raise ssl.SSLError(0, "nothing was said")
            record = daemon.record()
            assert (record["reason"], record["stage"], record["fault"]) == (reason, "handshake", "client"), what
            # certificate_required is TLS 1.3's (RFC 8446 section 6.2).
            expected = "handshake_failure" if version == "1.2" and what == "missing" else alert
            said = str(error.value).lower().replace("_", "").replace(" ", "")
            assert "alert" in said, (what, said)
            assert expected.replace("_", "") in said, (what, said)


def test_truncation_at_every_byte_of_a_handshake_is_named_eof_and_disturbs_nobody() -> None:
    """Both flights of a client, cut after every byte."""
    with beside_a_healthy_one() as daemon:
        first = hello()
        count = 0
        for size in range(len(first)):
            with clients.raw(daemon.port) as sock:
                sock.sendall(first[:size])
                sock.shutdown(1)
                answer, was_reset = clients.read_to_end(sock)
                assert not was_reset, size
                assert answer == b"", size
            count += 1
            if count % 100 == 0:  # a log that nobody reads in time loses lines
                daemon.until(lambda count=count: len(daemon.records) == count, f"{count} records")  # type: ignore[misc]
        daemon.until(lambda: len(daemon.records) == count, f"{count} records")
        assert {record["reason"] for record in daemon.records} == {"eof"}
        # The second flight: change_cipher_spec and Finished.
        size = 0
        while True:
            with clients.raw(daemon.port) as sock:
                client = clients.Client(sock, client_context())
                flight = second_flight(client)
                sock.sendall(flight[:size])
                sock.shutdown(1)
                _, was_reset = clients.read_to_end(sock)
                assert not was_reset, size
            count += 1
            if count % 100 == 0:
                daemon.until(lambda count=count: len(daemon.records) == count, f"{count} records")  # type: ignore[misc]
            size += 1
            if size == len(flight):
                break
        daemon.until(lambda: len(daemon.records) == count, f"{count} records")
        assert {record["reason"] for record in daemon.records} == {"eof"}


def second_flight(client: clients.Client) -> bytes:
    """What a client would send after the server's first flight."""
    sent: list[bytes] = []
    flush = client._flush
    flush_count = 0

    def capture() -> None:
        nonlocal flush_count
        flush_count += 1
        if flush_count == 1:
            flush()
        else:
            sent.append(client._outgoing.read())

    client._flush = capture  # type: ignore[method-assign]
    client.handshake()
    return b"".join(sent)


@pytest.mark.parametrize("sends", ["nothing", "part", "hello", "all"])
def test_a_reset_at_any_point_is_named(sends: str) -> None:
    with beside_a_healthy_one() as daemon:
        sock = clients.raw(daemon.port)
        if sends == "part":
            sock.sendall(hello()[:50])
        elif sends == "hello":
            sock.sendall(hello())
            sock.recv(1)
        elif sends == "all":
            client = clients.Client(sock, client_context()).handshake()
            client.send(b"x")
            client.read(1)
        backends.reset(sock)
        record = daemon.record()
        if sends == "all":
            assert (record["reason"], record["stage"], record["fault"]) == ("client_reset", "link", "nobody")
            assert (record["bytes_forward"], record["bytes_reverse"]) == (1, 1)
        else:
            assert (record["reason"], record["stage"], record["fault"]) == ("reset", "handshake", "client")


def test_a_flight_longer_than_a_record_is_a_handshake_like_any_other() -> None:
    """Post-quantum certificates make flights that take several reads, and session tickets longer than a record."""
    names = tuple(f"spiffe://example.org/{'x' * 200}/{number}" for number in range(150))
    pair = certificates.client("billing", uris=names)
    assert len(pair.leaf_der) > 30_000
    with backends.serve(backends.echo) as backend, tunnel.server(backend.port, *REQUIRED) as daemon:
        with clients.raw(daemon.port) as sock:
            client = clients.Client(sock, client_context(pair=pair)).handshake()
            client.send(b"ping")
            assert client.read(4) == b"ping"
            client.close_notify(fin=True)
            client.read_all()
        assert daemon.record()["reason"] == "finished"


def test_an_oversized_record_and_a_garbled_one_are_answered_with_their_alerts() -> None:
    with beside_a_healthy_one() as daemon:
        for record, alert in (
            (b"\x17\x03\x03\x48\x00" + bytes(0x4800), "record_overflow"),
            (b"\x17\x03\x03\x00\x40" + bytes(64), "bad_record_mac"),
        ):
            with clients.raw(daemon.port) as sock:
                client = clients.Client(sock, client_context()).handshake()
                sock.sendall(record)
                with pytest.raises(ssl.SSLError) as error:
                    client.read_all()
            said = str(error.value).lower().replace("_", "").replace(" ", "")
            assert alert.replace("_", "") in said, said
            assert daemon.record()["reason"] == "client_tls_error"
        with clients.raw(daemon.port) as sock:
            sock.sendall(b"\x16\x03\x01\x48\x01" + bytes(0x4801))
            assert clients.alert_on(sock) == AlertDescription.RECORD_OVERFLOW.name.lower()
        assert daemon.record()["stage"] == "handshake"
