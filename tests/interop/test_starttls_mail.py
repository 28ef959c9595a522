"""Dialogues before TLS with mail servers and clients of others, in both modes."""

from __future__ import annotations

import imaplib
import itertools
import poplib
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Iterator

import pytest

from tests.support import certificates, dovecot, peers, postfix, starttls, tls_servers
from tests.support.interop import require
from tests.support.tunnel import Record

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.root]
MAIL = b"From: a@example.org\r\nSubject: hello\r\n\r\nhello\r\n"


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificates.ca().certificate))


@pytest.fixture(scope="module")
def plain() -> Iterator[dict[str, int]]:
    """Dovecot without TLS."""
    with dovecot.running() as ports:
        yield ports


@pytest.fixture(scope="module")
def secure() -> Iterator[dict[str, int]]:
    """Dovecot with TLS."""
    with dovecot.running(tls_servers.default_pair()) as ports:
        yield ports


@pytest.fixture(scope="module")
def plain_smtp() -> Iterator[int]:
    """Postfix without TLS."""
    with postfix.running() as port:
        yield port


def curl(url: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    command = [
        require("curl"),
        "--silent",
        "--show-error",
        "--ssl-reqd",
        "--cacert",
        str(certificates.ca().certificate),
    ]
    return subprocess.run([*command, *words, url], capture_output=True, check=False, timeout=peers.PATIENCE_S)


USER = ["--user", f"{dovecot.USER}:{dovecot.PASSWORD}"]


def deliver(port: int) -> None:
    """A mail for the user, by LMTP without TLS."""
    with smtplib.LMTP("127.0.0.1", port) as lmtp:
        lmtp.sendmail("a@example.org", [dovecot.USER], MAIL)


# Server mode.


def test_imaplib_gets_tls_from_a_dovecot_that_has_none(plain: dict[str, int]) -> None:
    with starttls.server_mode("imap", plain["imap"]) as port, imaplib.IMAP4("localhost", port) as imap:
        assert {"STARTTLS", "LOGINDISABLED"} <= set(imap.capabilities)
        assert not any(name.startswith("AUTH=") for name in imap.capabilities)
        with pytest.raises(imaplib.IMAP4.error, match="PRIVACYREQUIRED"):
            imap.login(dovecot.USER, dovecot.PASSWORD)
        imap.starttls(trusting())
        assert not {"STARTTLS", "LOGINDISABLED"} & set(imap.capabilities)
        imap.login(dovecot.USER, dovecot.PASSWORD)
        assert imap.select()[0] == "OK"


def test_imaplib_without_tls_gets_through_where_it_may(plain: dict[str, int]) -> None:
    with (
        starttls.server_mode("imap", plain["imap"], required=False) as port,
        imaplib.IMAP4("localhost", port) as imap,
    ):
        imap.login(dovecot.USER, dovecot.PASSWORD)
        assert imap.select()[0] == "OK"


def test_poplib_gets_tls_from_a_dovecot_that_has_none(plain: dict[str, int]) -> None:
    with starttls.server_mode("pop3", plain["pop3"]) as port:
        pop3 = poplib.POP3("localhost", port)
        assert "STLS" in pop3.capa()
        assert "USER" not in pop3.capa()
        with pytest.raises(poplib.error_proto, match="STLS"):
            pop3.user(dovecot.USER)
        pop3.stls(trusting())
        assert "STLS" not in pop3.capa()
        pop3.user(dovecot.USER)
        pop3.pass_(dovecot.PASSWORD)
        pop3.stat()
        pop3.quit()


def test_smtplib_gets_tls_from_a_dovecot_that_has_none(plain: dict[str, int]) -> None:
    with starttls.server_mode("lmtp", plain["lmtp"]) as port, smtplib.LMTP("localhost", port) as lmtp:
        lmtp.ehlo_or_helo_if_needed()
        with pytest.raises(smtplib.SMTPSenderRefused, match="530"):
            lmtp.sendmail("a@example.org", [dovecot.USER], MAIL)
        lmtp.starttls(context=trusting())
        lmtp.ehlo()
        assert not lmtp.has_extn("starttls")
        lmtp.sendmail("a@example.org", [dovecot.USER], MAIL)


def test_smtplib_gets_tls_from_a_postfix_that_has_none(plain_smtp: int) -> None:
    with starttls.server_mode("smtp", plain_smtp) as port, smtplib.SMTP("localhost", port) as smtp:
        smtp.ehlo("client.example.org")
        assert smtp.has_extn("starttls")
        assert smtp.docmd("MAIL", "FROM:<a@example.org>")[0] == 530
        smtp.starttls(context=trusting())
        assert smtp.docmd("NOOP")[0] == 250
        smtp.ehlo("client.example.org")
        assert not smtp.has_extn("starttls")
        smtp.sendmail("a@example.org", ["b@example.org"], MAIL)


def test_swaks_gets_tls_from_a_postfix_that_has_none(plain_smtp: int) -> None:
    with starttls.server_mode("smtp", plain_smtp) as port:
        command = [
            require("swaks"),
            "--server",
            f"localhost:{port}",
            "--tls",
            "--quit-after",
            "EHLO",
            "--helo",
            "x.org",
        ]
        command += ["--tls-verify", "--tls-ca-path", str(certificates.ca().certificate)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=peers.PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TLS started with cipher" in done.stdout


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_curl_gets_tls_from_a_dovecot_that_has_none(plain: dict[str, int], protocol: str) -> None:
    deliver(plain["lmtp"])
    with starttls.server_mode(protocol, plain[protocol]) as port:
        done = curl(f"{protocol}://localhost:{port}/" + ("INBOX;MAILINDEX=1" if protocol == "imap" else "1"), *USER)
    assert b"Subject: hello" in done.stdout, done.stderr


@pytest.mark.parametrize("protocol", ["imap", "pop3", "lmtp", "sieve"])
def test_openssl_gets_tls_from_a_dovecot_that_has_none(plain: dict[str, int], protocol: str) -> None:
    records: list[Record] = []
    with starttls.server_mode(protocol, plain[protocol], records=records) as port:
        command = peers.s_client_command(port, "-starttls", protocol, "-crlf", "-ign_eof")
        farewell = "QUIT\n" if protocol in {"pop3", "lmtp"} else "a LOGOUT\n" if protocol == "imap" else "LOGOUT\n"
        done = subprocess.run(
            command, input=farewell, capture_output=True, text=True, check=False, timeout=peers.PATIENCE_S
        )
    assert "Verify return code: 0 (ok)" in done.stdout, done.stdout + done.stderr
    assert starttls.was_relayed_in_tls(records, protocol)
    if protocol == "sieve":
        assert '"SASL" "PLAIN"' in done.stdout


# Client mode.


def test_imaplib_reaches_a_dovecot_with_tls(secure: dict[str, int]) -> None:
    records: list[Record] = []
    with (
        starttls.client_mode("imap", secure["imap"], records=records) as port,
        imaplib.IMAP4("localhost", port) as imap,
    ):
        assert "STARTTLS" not in imap.capabilities
        imap.login(dovecot.USER, dovecot.PASSWORD)
        assert imap.select()[0] == "OK"
    assert starttls.was_relayed_in_tls(records, "imap")


def test_poplib_reaches_a_dovecot_with_tls(secure: dict[str, int]) -> None:
    with starttls.client_mode("pop3", secure["pop3"]) as port:
        pop3 = poplib.POP3("localhost", port)
        assert "STLS" not in pop3.capa()
        pop3.user(dovecot.USER)
        pop3.pass_(dovecot.PASSWORD)
        pop3.quit()


def test_smtplib_reaches_a_dovecot_with_tls(secure: dict[str, int]) -> None:
    with starttls.client_mode("lmtp", secure["lmtp"]) as port, smtplib.LMTP("localhost", port) as lmtp:
        lmtp.sendmail("a@example.org", [dovecot.USER], MAIL)
        assert not lmtp.has_extn("starttls")


def test_a_sieve_client_without_tls_reaches_a_dovecot_with_tls(secure: dict[str, int]) -> None:
    with (
        starttls.client_mode("sieve", secure["sieve"]) as port,
        socket.create_connection(("127.0.0.1", port), timeout=peers.PATIENCE_S) as sock,
        sock.makefile("rb") as said,
    ):
        greeting = list(itertools.takewhile(lambda line: not line.startswith(b"OK"), said))
    assert b'"SASL" "PLAIN"\r\n' in greeting
    assert b'"STARTTLS"\r\n' not in greeting


def test_smtplib_reaches_a_postfix_with_tls() -> None:
    with (
        postfix.running(tls_servers.default_pair()) as service,
        starttls.client_mode("smtp", service) as port,
        smtplib.SMTP("localhost", port) as smtp,
    ):
        smtp.ehlo("client.example.org")
        assert not smtp.has_extn("starttls")
        smtp.sendmail("a@example.org", ["b@example.org"], MAIL)


@pytest.mark.parametrize("protocol", ["imap", "pop3", "lmtp", "sieve"])
def test_a_dovecot_without_tls_is_no_server_for_client_mode(plain: dict[str, int], protocol: str) -> None:
    records: list[Record] = []
    with starttls.client_mode(protocol, plain[protocol], records=records) as port:
        command = [require("socat"), "-t", "60", "-u", f"TCP:127.0.0.1:{port}", "-"]
        said = subprocess.run(command, capture_output=True, check=True, timeout=peers.PATIENCE_S).stdout
    assert b"the server does not go on to TLS" in said
    assert [record["reason"] for record in records] == ["starttls_refused"]
