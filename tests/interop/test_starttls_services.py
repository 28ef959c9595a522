"""Dialogues before TLS with services of others and their own clients: PostgreSQL, MariaDB, OpenLDAP, Prosody."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator

import pytest

from tests.support import certificates, directories, peers, starttls, tls_servers
from tests.support.interop import require
from tests.support.tunnel import Record

pytestmark = [pytest.mark.interop, pytest.mark.slow]
PASSWORD = "sesame"


def psql(port: int, *words: str, **parameters: object) -> subprocess.CompletedProcess[str]:
    """One query, with a password."""
    given = " ".join(f"{name}={value}" for name, value in parameters.items())
    where = f"host=localhost hostaddr=127.0.0.1 port={port} user=tester dbname=postgres password={PASSWORD} {given}"
    command = [require("psql"), "-X", where, "-Atc", *(words or ("select 6 * 7",))]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=peers.PATIENCE_S)


def demand_scram(port: int) -> None:
    """From now on the password is proved by SCRAM."""
    for statement in (
        f"alter user tester password '{PASSWORD}'",
        "do $$begin execute format('copy (select ''host all all all scram-sha-256'') to %L', "
        "current_setting('hba_file')); end$$",
        "select pg_reload_conf()",
    ):
        done = psql(port, statement, sslmode="disable")
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def plain() -> Iterator[int]:
    """PostgreSQL without TLS."""
    with peers.postgres() as service:
        demand_scram(service.port)
        yield service.port


@pytest.fixture(scope="module")
def secure() -> Iterator[int]:
    """PostgreSQL with TLS."""
    with tls_servers.postgres() as port:
        demand_scram(port)
        yield port


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-ca", "verify-full"])
def test_psql_gets_tls_from_a_postgres_that_has_none(plain: int, mode: str) -> None:
    records: list[Record] = []
    with starttls.server_mode("postgres", plain, records=records) as port:
        done = psql(port, sslmode=mode, sslrootcert=str(certificates.ca().certificate))
    assert (done.stdout, done.stderr) == ("42\n", "")
    assert starttls.was_relayed_in_tls(records, "postgres")


def test_tls_from_the_first_byte_reaches_a_postgres_that_has_none(plain: int) -> None:
    """As PostgreSQL 17 has it; an older psql knows no such word, so Python says it as well."""
    context = ssl.create_default_context(cafile=str(certificates.ca().certificate))
    context.set_alpn_protocols(["postgresql"])
    startup = b"\0\3\0\0user\0tester\0\0"
    with starttls.server_mode("postgres", plain, alpn="postgresql") as port:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=peers.PATIENCE_S) as sock,
            context.wrap_socket(sock, server_hostname="localhost") as session,
        ):
            assert session.selected_alpn_protocol() == "postgresql"
            session.sendall((len(startup) + 4).to_bytes(4) + startup)
            assert session.recv(1) == b"R"
        version = subprocess.run([require("psql"), "--version"], capture_output=True, text=True, check=True).stdout
        if int(re.findall(r"\d+", version)[0]) >= 17:
            done = psql(port, sslmode="verify-full", sslnegotiation="direct", sslrootcert=certificates.ca().certificate)
            assert (done.stdout, done.stderr) == ("42\n", "")


def test_psql_prints_why_it_needs_tls(plain: int) -> None:
    with starttls.server_mode("postgres", plain) as port:
        done = psql(port, sslmode="disable")
    assert done.returncode != 0
    assert "FATAL:  this server takes encrypted connections only" in done.stderr
    assert "sslmode=require" in done.stderr


def test_psql_that_would_rather_not_have_tls_gets_it(plain: int) -> None:
    with starttls.server_mode("postgres", plain) as port:
        assert psql(port, sslmode="allow").stdout == "42\n"


def test_psql_without_tls_gets_through_where_it_may(plain: int) -> None:
    records: list[Record] = []
    with starttls.server_mode("postgres", plain, required=False, records=records) as port:
        assert psql(port, sslmode="disable").stdout == "42\n"
    assert (records[0]["stage"], records[0]["version"]) == ("link", None)


def test_psql_that_demands_channel_binding_is_told_by_itself_that_there_is_none(plain: int) -> None:
    with starttls.server_mode("postgres", plain) as port:
        done = psql(port, sslmode="require", channel_binding="require")
    assert "channel binding" in done.stderr


def test_a_query_that_psql_cancels_ends(plain: int) -> None:
    with starttls.server_mode("postgres", plain) as port:
        where = f"host=127.0.0.1 port={port} user=tester dbname=postgres password={PASSWORD} sslmode=require"
        command = [require("psql"), "-X", where, "-Atc", "select 'begun'", "-c", "select pg_sleep(600)"]
        with peers.talking(["stdbuf", "-oL", *command]) as client:
            client.read_until("begun")
            for _ in range(1000):
                sleeping = psql(
                    plain, "select count(*) from pg_stat_activity where query like '%sleep(600)'", sslmode="disable"
                )
                if sleeping.stdout == "1\n":
                    break
            client.process.send_signal(2)
            assert "canceling statement due to user request" in client.finish()


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_psql_without_tls_reaches_a_postgres_that_has_it(secure: int, mode: str) -> None:
    records: list[Record] = []
    query = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
    with starttls.client_mode("postgres", secure, records=records) as port:
        done = psql(port, query, sslmode=mode)
    assert (done.stdout, done.stderr) == ("t\n", "")


def test_psql_that_demands_tls_of_client_mode_leaves_what_to_do_in_the_log(secure: int) -> None:
    records: list[Record] = []
    with starttls.client_mode("postgres", secure, records=records) as port:
        done = psql(port, sslmode="require")
    assert "server does not support SSL" in done.stderr
    assert records[0]["reason"] == "eof"
    assert "give it sslmode=prefer or disable" in str(records[0]["detail"])


def test_a_postgres_without_tls_is_no_server_for_client_mode(plain: int) -> None:
    records: list[Record] = []
    with starttls.client_mode("postgres", plain, records=records) as port:
        done = psql(port, sslmode="disable")
    assert "FATAL:  the server does not go on to TLS" in done.stderr
    assert [record["reason"] for record in records] == ["starttls_refused"]


# OpenLDAP.


def ldapsearch(port: int, *words: str) -> subprocess.CompletedProcess[str]:
    """The root of the tree, by the administrator."""
    command = [require("ldapsearch"), "-x", "-H", f"ldap://127.0.0.1:{port}", "-D", directories.ADMIN]
    command += ["-w", directories.PASSWORD, "-b", "", "-s", "base", "namingContexts", *words]
    env = os.environ | {"LDAPTLS_CACERT": str(certificates.ca().certificate)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=peers.PATIENCE_S)


@pytest.fixture(scope="module")
def plain_tree() -> Iterator[int]:
    with directories.slapd() as port:
        yield port


def test_ldapsearch_gets_tls_from_a_slapd_that_has_none(plain_tree: int) -> None:
    with starttls.server_mode("ldap", plain_tree) as port:
        done = ldapsearch(port, "-ZZ")
    assert "namingContexts: dc=example,dc=org" in done.stdout, done.stderr


def test_ldapsearch_is_told_that_it_needs_tls(plain_tree: int) -> None:
    with starttls.server_mode("ldap", plain_tree) as port:
        done = ldapsearch(port)
    assert "Confidentiality required (13)" in done.stderr
    assert "StartTLS is required first" in done.stderr


def test_ldapsearch_without_tls_gets_through_where_it_may(plain_tree: int) -> None:
    with starttls.server_mode("ldap", plain_tree, required=False) as port:
        assert "namingContexts: dc=example,dc=org" in ldapsearch(port).stdout


def test_ldapsearch_without_tls_reaches_a_slapd_that_has_it() -> None:
    with directories.slapd(tls_servers.default_pair()) as service, starttls.client_mode("ldap", service) as port:
        done = ldapsearch(port)
    assert "namingContexts: dc=example,dc=org" in done.stdout, done.stderr


def test_a_slapd_without_tls_is_no_server_for_client_mode(plain_tree: int) -> None:
    records: list[Record] = []
    with starttls.client_mode("ldap", plain_tree, records=records) as port:
        assert ldapsearch(port).returncode != 0
    assert [record["reason"] for record in records] == ["starttls_refused"]


# MariaDB.


def mariadb(port: int, user: str, *words: str) -> subprocess.CompletedProcess[str]:
    """One query."""
    command = [require("mariadb"), "--no-defaults", "--host=localhost", "--protocol=tcp", f"--port={port}"]
    command += [f"--user={user}", f"--password={directories.PASSWORD}", *words, "-NBe", "select repeat('x', 100000)"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=peers.PATIENCE_S)


VERIFIED = "--ssl-verify-server-cert"
ANSWER = "x" * 100_000 + "\n"


@pytest.fixture(scope="module")
def plain_tables() -> Iterator[int]:
    with directories.mariadb() as port:
        yield port


@pytest.mark.parametrize("user", ["tester", "modern"])
def test_mariadb_gets_tls_from_a_server_that_has_none(plain_tables: int, user: str) -> None:
    records: list[Record] = []
    with starttls.server_mode("mysql", plain_tables, records=records) as port:
        done = mariadb(port, user, VERIFIED, f"--ssl-ca={certificates.ca().certificate}")
    assert (done.stdout, done.stderr) == (ANSWER, "")
    assert starttls.was_relayed_in_tls(records, "mysql")


def test_mariadb_is_told_that_it_needs_tls(plain_tables: int) -> None:
    with starttls.server_mode("mysql", plain_tables) as port:
        done = mariadb(port, "tester", "--skip-ssl")
    assert "ERROR 3159 (HY000): TLS is required here" in done.stderr


def test_mariadb_without_tls_gets_through_where_it_may(plain_tables: int) -> None:
    with starttls.server_mode("mysql", plain_tables, required=False) as port:
        assert mariadb(port, "modern", "--skip-ssl").stdout == ANSWER


def test_a_wrong_password_is_told_as_the_server_does(plain_tables: int) -> None:
    with starttls.server_mode("mysql", plain_tables) as port:
        done = mariadb(port, "tester", VERIFIED, f"--ssl-ca={certificates.ca().certificate}", "--password=wrong")
    assert "ERROR 1045 (28000): Access denied" in done.stderr


@pytest.mark.parametrize("user", ["tester", "modern"])
def test_mariadb_without_tls_reaches_a_server_that_has_it(user: str) -> None:
    with directories.mariadb(tls_servers.default_pair()) as service, starttls.client_mode("mysql", service) as port:
        done = mariadb(port, user, "--skip-ssl")
    assert (done.stdout, done.stderr) == (ANSWER, "")


def test_a_mariadb_without_tls_is_no_server_for_client_mode(plain_tables: int) -> None:
    with starttls.client_mode("mysql", plain_tables) as port:
        assert "the server does not go on to TLS" in mariadb(port, "tester", "--skip-ssl").stderr


# Prosody.

OPEN = (
    b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' "
    b"to='localhost' version='1.0'>"
)


def features(sock: socket.socket) -> bytes:
    """What is offered to a client that opens a stream."""
    sock.settimeout(peers.PATIENCE_S)
    sock.sendall(OPEN)
    said = b""
    while b"</stream:features>" not in said and (data := sock.recv(1 << 14)):
        said += data
    return said


def test_openssl_gets_tls_from_a_prosody_that_has_none() -> None:
    with directories.prosody() as service, starttls.server_mode("xmpp", service) as port:
        command = peers.s_client_command(port, "-starttls", "xmpp", "-xmpphost", "localhost", "-quiet", "-ign_eof")
        with peers.talking(command) as client:
            client.write(OPEN.decode() + "</stream:stream>\n")
            said = client.read_until("</stream:stream>")
    assert "<mechanism>SCRAM-SHA-256</mechanism>" in said
    assert "urn:ietf:params:xml:ns:xmpp-tls" not in said


def test_a_client_without_tls_reaches_a_prosody_that_has_it() -> None:
    with (
        directories.prosody(tls_servers.default_pair()) as service,
        starttls.client_mode("xmpp", service) as port,
        socket.create_connection(("127.0.0.1", port)) as sock,
    ):
        said = features(sock)
    assert b"<mechanism>SCRAM-SHA-256</mechanism>" in said
    assert b"urn:ietf:params:xml:ns:xmpp-tls" not in said


def test_a_prosody_without_tls_is_no_server_for_client_mode() -> None:
    records: list[Record] = []
    with (
        directories.prosody() as service,
        starttls.client_mode("xmpp", service, records=records) as port,
        socket.create_connection(("127.0.0.1", port)) as sock,
    ):
        assert b"<stream:error>" in features(sock)
    assert [record["reason"] for record in records] == ["starttls_refused"]


# A news server, scripted: INN does not install where a machine has no domain.


def news(connection: socket.socket) -> None:
    connection.sendall(b"200 news.example.org ready\r\n")
    answers = {b"CAPABILITIES": b"101 list\r\nVERSION 2\r\nREADER\r\n.\r\n", b"QUIT": b"205 bye\r\n"}
    with connection.makefile("rb") as said:
        for line in said:
            connection.sendall(answers.get(line.strip().upper(), b"500 what\r\n"))
            if line.strip().upper() == b"QUIT":
                return


def test_openssl_gets_tls_from_a_news_server_that_has_none() -> None:
    with tls_servers.scripted(news) as service, starttls.server_mode("nntp", service) as port:
        command = peers.s_client_command(port, "-starttls", "nntp", "-crlf", "-quiet", "-ign_eof")
        with peers.talking(command) as client:
            client.write("CAPABILITIES\n")
            said = client.read_until(r"^\.")
            client.write("QUIT\n")
            client.read_until("^205 bye")
    assert "READER" in said
    assert "STARTTLS" not in said
