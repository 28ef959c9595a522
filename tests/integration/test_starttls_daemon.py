"""Hostile and careless peers before TLS, on both sides of a daemon with `starttls`.

How a connection ends, what each side hears of it, and what the log says.

The peers are scripted: a backend is a function in a thread, a client is the test itself.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from tests.support import backends, clients, starttls, tunnel
from tests.support.tunnel import Record
from tests.support.wire_peers import client_context, server_context
from tlstunnel import proxy_protocol

pytestmark = pytest.mark.slow
GREETINGS = {
    "smtp": b"220 ready\r\n",
    "lmtp": b"220 ready\r\n",
    "imap": b"* OK ready\r\n",
    "pop3": b"+OK ready\r\n",
    "sieve": b'OK "ready"\r\n',
    "nntp": b"200 ready\r\n",
}
XMPP_HEADER = (
    b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='localhost' "
    b"version='1.0'>"
)


def ended_as(records: list[Record]) -> tuple[str, str]:
    """Why the one connection ended, and by whose fault."""
    (record,) = records
    return record["reason"], record["fault"]


def greets(protocol: str) -> backends.Handler:
    """A backend that greets and says nothing more."""

    def behave(sock: socket.socket) -> None:
        sock.sendall(GREETINGS[protocol])
        backends.read_all(sock)

    return behave


@pytest.mark.parametrize("protocol", sorted(GREETINGS))
def test_a_client_that_floods_with_nonsense_is_told_so_and_ended(protocol: str) -> None:
    records: list[Record] = []
    nonsense = b"a\n" * (1 << 14) if protocol == "imap" else b"\n" * (1 << 14)
    with (
        backends.serve(greets(protocol)) as backend,
        starttls.server_mode(protocol, backend.port, records=records) as port,
        clients.raw(port) as sock,
    ):
        sock.sendall(nonsense)
        said, _ = clients.read_to_end(sock)
    assert said.rstrip(b'"\r\n').endswith(b"too much was said before TLS")
    assert ended_as(records) == ("starttls_too_long", "client")


# A backend that leaves.


def line_of(sock: socket.socket) -> bytes:
    """The next line."""
    line = b""
    while not line.endswith(b"\n") and (byte := sock.recv(1)):
        line += byte
    return line


def resets_at_a_command(sock: socket.socket) -> None:
    """A backend that greets, hears one command, and resets the connection."""
    sock.sendall(GREETINGS["smtp"])
    line_of(sock)
    backends.reset(sock)


def test_a_backend_that_resets_is_to_blame_for_it_and_the_client_is_told() -> None:
    records: list[Record] = []
    with (
        backends.serve(resets_at_a_command) as backend,
        starttls.server_mode("smtp", backend.port, records=records) as port,
        clients.raw(port) as sock,
    ):
        assert line_of(sock) == GREETINGS["smtp"]
        sock.sendall(b"EHLO me\r\n")
        said, _ = clients.read_to_end(sock)
    assert said == b"421 4.7.0 the service behind this one has closed the connection\r\n"
    assert ended_as(records) == ("starttls_backend", "backend")
    assert records[0]["detail"] == "it reset the connection before TLS"


def test_a_server_that_resets_when_it_is_asked_for_tls_is_to_blame_for_it() -> None:
    records: list[Record] = []
    with (
        backends.serve(resets_at_a_command) as backend,
        starttls.client_mode("smtp", backend.port, records=records) as port,
        clients.raw(port) as sock,
    ):
        said, _ = clients.read_to_end(sock)
    assert said == b"421 4.7.0 the service behind this one has closed the connection\r\n"
    assert ended_as(records) == ("starttls_backend", "backend")


# MySQL, whose login is followed within TLS.


def packet(number: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number]) + body


def packet_from(read: Callable[[int], bytes]) -> tuple[int, bytes]:
    """The next one: its number and what is in it."""
    head = read(4)
    return head[3], read(int.from_bytes(head[:3], "little"))


MYSQL_GREETING = packet(
    0, b"\x0a8.0\0" + bytes(4) + b"saltsalt\0\xff\xf7\x21\x02\0\xff\xff\x15" + bytes(10) + b"saltsaltsalt\0native\0"
)
SSL_REQUEST = (0xAA05).to_bytes(4, "little") + (1 << 24).to_bytes(4, "little") + bytes([45]) + bytes(23)


def logs_in_at_mysql(port: int) -> bytes:
    """All that a client of MySQL hears in answer to its login, within TLS."""
    with clients.raw(port) as sock:
        packet_from(lambda size: sock.recv(size, socket.MSG_WAITALL))
        sock.sendall(packet(1, SSL_REQUEST))
        client = clients.Client(sock, client_context()).handshake()
        client.send(packet(2, SSL_REQUEST + b"root\0\0"))
        said = client.read_all()
        assert client.has_close_notify
    return said


def test_a_client_hears_within_tls_that_the_backend_has_left_at_login() -> None:
    def leaves(sock: socket.socket) -> None:
        sock.sendall(MYSQL_GREETING)
        packet_from(lambda size: sock.recv(size, socket.MSG_WAITALL))

    records: list[Record] = []
    with (
        backends.serve(leaves) as backend,
        starttls.server_mode("mysql", backend.port, records=records) as port,
    ):
        said = logs_in_at_mysql(port)
    assert said == packet(3, b"\xffQ\x04#HY000the service behind this one has closed the connection")
    assert ended_as(records) == ("starttls_backend", "backend")
    assert records[0]["detail"] == "it closed the connection at login"


# Whom the time is lost by.

SILENT = "it said nothing for handshake_timeout; does it wait for TLS, or speak another protocol than starttls says?"
POSTGRES_START = (22).to_bytes(4) + b"\0\3\0\0user\0tester\0\0\0"


@pytest.mark.parametrize(("mode", "protocol"), [("server", "smtp"), ("server", "mysql"), ("client", "imap")])
def test_a_backend_that_never_greets_is_to_blame_for_the_time(mode: str, protocol: str) -> None:
    records: list[Record] = []
    make = starttls.server_mode if mode == "server" else starttls.client_mode
    with (
        backends.serve(backends.read_all) as backend,
        make(protocol, backend.port, timeout="200ms", records=records) as port,
        clients.raw(port) as sock,
    ):
        said, _ = clients.read_to_end(sock)
    assert b"the service behind this one does not answer" in said
    assert ended_as(records) == ("starttls_backend", "backend")
    assert records[0]["detail"] == SILENT


@pytest.mark.parametrize(
    ("protocol", "begin"), [("postgres", POSTGRES_START), ("ldap", b""), ("xmpp", XMPP_HEADER), ("smtp", b"")]
)
def test_a_server_that_does_not_answer_is_to_blame_for_the_time(protocol: str, begin: bytes) -> None:
    def behave(sock: socket.socket) -> None:
        sock.sendall(GREETINGS.get(protocol, b""))
        backends.read_all(sock)

    records: list[Record] = []
    with (
        backends.serve(behave) as backend,
        starttls.client_mode(protocol, backend.port, timeout="2s", records=records) as port,
        clients.raw(port) as sock,
    ):
        sock.sendall(begin)
        said, _ = clients.read_to_end(sock)
    assert b"the service behind this one does not answer" in said
    assert ended_as(records) == ("starttls_backend", "backend")


@pytest.mark.parametrize(("protocol", "begin"), [("postgres", b""), ("xmpp", b"")])
def test_a_client_of_client_mode_that_says_nothing_is_to_blame_for_the_time(protocol: str, begin: bytes) -> None:
    def behave(sock: socket.socket) -> None:
        if sock.recv(8, socket.MSG_WAITALL):
            sock.sendall(b"S")
        backends.read_all(sock)

    records: list[Record] = []
    with (
        backends.serve(behave) as backend,
        starttls.client_mode(protocol, backend.port, timeout="200ms", records=records) as port,
        clients.raw(port) as sock,
    ):
        sock.sendall(begin)
        assert clients.read_to_end(sock)[0] == b""
    assert ended_as(records) == ("timeout", "client")


def test_a_client_that_never_begins_tls_is_to_blame_for_the_time() -> None:
    def answers(sock: socket.socket) -> None:
        sock.sendall(GREETINGS["smtp"])
        line_of(sock)
        sock.sendall(b"250 mail\r\n")
        backends.read_all(sock)

    records: list[Record] = []
    with (
        backends.serve(answers) as backend,
        starttls.server_mode("smtp", backend.port, timeout="2s", records=records) as port,
        clients.raw(port) as sock,
    ):
        sock.sendall(b"STARTTLS\r\n" if line_of(sock) else b"")
        said, _ = clients.read_to_end(sock)
    assert said == b"220 2.0.0 Ready to start TLS\r\n"
    assert ended_as(records) == ("timeout", "client")


def test_a_backend_that_is_silent_at_login_is_to_blame_for_the_time() -> None:
    def falls_silent(sock: socket.socket) -> None:
        sock.sendall(MYSQL_GREETING)
        backends.read_all(sock)

    records: list[Record] = []
    with (
        backends.serve(falls_silent) as backend,
        starttls.server_mode("mysql", backend.port, timeout="3s", records=records) as port,
    ):
        said = logs_in_at_mysql(port)
    assert said == packet(3, b"\xffQ\x04#HY000the service behind this one does not answer")
    assert ended_as(records) == ("starttls_backend", "backend")


# A client that leaves by the words of its protocol.


@pytest.mark.parametrize(
    ("protocol", "leave", "answer"),
    [
        ("smtp", b"QUIT\r\n", b"221 bye\r\n"),
        ("lmtp", b"QUIT\r\n", b"221 bye\r\n"),
        ("imap", b"a LOGOUT\r\n", b"* BYE\r\na OK\r\n"),
        ("pop3", b"QUIT\r\n", b"+OK bye\r\n"),
        ("sieve", b"LOGOUT\r\n", b"OK\r\n"),
        ("nntp", b"QUIT\r\n", b"205 bye\r\n"),
    ],
)
def test_the_goodbye_of_a_client_without_tls_is_answered_once(protocol: str, leave: bytes, answer: bytes) -> None:
    def behave(sock: socket.socket) -> None:
        sock.sendall(GREETINGS[protocol])
        assert line_of(sock) == leave
        sock.sendall(answer)

    records: list[Record] = []
    with (
        backends.serve(behave) as backend,
        starttls.server_mode(protocol, backend.port, records=records) as port,
        clients.raw(port) as sock,
    ):
        while GREETINGS[protocol] != line_of(sock):
            pass
        sock.sendall(leave)
        said, _ = clients.read_to_end(sock)
    assert said == answer
    assert ended_as(records) == ("starttls_missing", "client")
    assert records[0]["detail"] == "the client leaves before TLS"


def test_a_cancel_request_of_postgres_is_passed_on_and_hears_nothing() -> None:
    request = (16).to_bytes(4) + (80877102).to_bytes(4) + (7).to_bytes(4) + b"key!"
    heard: list[bytes] = []

    def postgres(sock: socket.socket) -> None:
        sock.recv(8, socket.MSG_WAITALL)
        sock.sendall(b"S")
        with server_context().wrap_socket(sock, server_side=True) as session:
            heard.append(session.recv(100))
            session.unwrap()

    records: list[Record] = []
    with (
        backends.serve(postgres) as backend,
        starttls.client_mode("postgres", backend.port, records=records) as port,
        clients.raw(port) as sock,
    ):
        sock.sendall(request)
        assert clients.read_to_end(sock)[0] == b""
    assert heard == [request]
    assert (records[0]["stage"], records[0]["reason"]) == ("link", "finished")


# The PROXY protocol, whose header goes to the target before anything is known of TLS.


def test_a_target_is_not_told_of_tls_that_has_not_begun() -> None:
    told: list[proxy_protocol.Header] = []

    def behave(sock: socket.socket) -> None:
        head = sock.recv(16, socket.MSG_WAITALL)
        header = proxy_protocol.parse(head + sock.recv(int.from_bytes(head[14:]), socket.MSG_WAITALL))
        assert header is not None
        told.append(header)
        assert line_of(sock) == b""

    with (
        backends.serve(behave) as backend,
        starttls.server_mode("smtp", backend.port, required=False, more='proxy_protocol = "v2"') as port,
        clients.raw(port) as sock,
    ):
        address = sock.getsockname()
        sock.shutdown(socket.SHUT_WR)
        clients.read_to_end(sock)
    assert isinstance(told[0].source, proxy_protocol.Endpoint)
    assert (told[0].source.host, told[0].source.port) == address
    assert told[0].tlvs.unique_id
    assert told[0].tlvs.ssl is None


# A client that half-closes behind its last word, as `printf ... | nc -N` does.


def answers_at_leisure(sock: socket.socket) -> None:
    """A mail server that greets when the client has said all, and answers each command."""
    sock.sendall(GREETINGS["smtp"])
    for answer in (b"250 mail\r\n", b"221 bye\r\n"):
        assert line_of(sock)
        sock.sendall(answer)


@pytest.mark.parametrize("is_required", [True, False])
def test_a_client_that_has_said_all_still_hears_the_answers(is_required: bool) -> None:
    has_said_all = threading.Event()

    def behave(sock: socket.socket) -> None:
        assert has_said_all.wait(backends.PATIENCE_S)
        answers_at_leisure(sock)

    with (
        backends.serve(behave) as backend,
        starttls.server_mode("smtp", backend.port, required=is_required) as port,
        clients.raw(port) as sock,
    ):
        sock.sendall(b"EHLO me\r\nQUIT\r\n")
        sock.shutdown(socket.SHUT_WR)
        has_said_all.set()
        said, _ = clients.read_to_end(sock)
    assert said == GREETINGS["smtp"] + b"250-mail\r\n250 STARTTLS\r\n221 bye\r\n"


def test_what_a_client_said_before_it_half_closed_reaches_a_backend_in_plaintext_where_it_may() -> None:
    has_said_all = threading.Event()
    heard: list[bytes] = []

    def behave(sock: socket.socket) -> None:
        assert has_said_all.wait(backends.PATIENCE_S)
        sock.sendall(GREETINGS["smtp"])
        heard.append(backends.read_all(sock))
        sock.sendall(b"250 taken\r\n")

    with (
        backends.serve(behave) as backend,
        starttls.server_mode("smtp", backend.port, required=False) as port,
        clients.raw(port) as sock,
    ):
        sock.sendall(b"HELO me\r\nMAIL FROM:<a@b>\r\n")
        sock.shutdown(socket.SHUT_WR)
        has_said_all.set()
        said, _ = clients.read_to_end(sock)
    assert heard == [b"HELO me\r\nMAIL FROM:<a@b>\r\n"]
    assert said == GREETINGS["smtp"] + b"250 taken\r\n"


def test_a_client_that_half_closes_before_the_server_is_asked_is_served_within_tls() -> None:
    has_said_all = threading.Event()
    heard: list[bytes] = []

    def behave(sock: socket.socket) -> None:
        assert has_said_all.wait(backends.PATIENCE_S)
        sock.sendall(GREETINGS["pop3"])
        assert line_of(sock) == b"STLS\r\n"
        sock.sendall(b"+OK go\r\n")
        with server_context().wrap_socket(sock, server_side=True) as session:
            heard.append(backends.read_all(session))
            session.sendall(b"+OK bye\r\n")
            session.unwrap()

    with (
        backends.serve(behave) as backend,
        starttls.client_mode("pop3", backend.port) as port,
        clients.raw(port) as sock,
    ):
        sock.sendall(b"QUIT\r\n")
        sock.shutdown(socket.SHUT_WR)
        has_said_all.set()
        said, _ = clients.read_to_end(sock)
    assert heard == [b"QUIT\r\n"]
    assert said == GREETINGS["pop3"] + b"+OK bye\r\n"


# A backend that does not stop.


@pytest.mark.parametrize("mode", ["server", "client"])
@pytest.mark.parametrize("said", [b"x" * (1 << 17), b"220-more\r\n" * (1 << 14)], ids=["one line", "many lines"])
def test_a_backend_that_says_too_much_is_to_blame_for_it(mode: str, said: bytes) -> None:
    def babbles(sock: socket.socket) -> None:
        sock.sendall(said)
        backends.read_all(sock)

    records: list[Record] = []
    make = starttls.server_mode if mode == "server" else starttls.client_mode
    with (
        backends.serve(babbles) as backend,
        make("smtp", backend.port, records=records) as port,
        clients.raw(port) as sock,
    ):
        heard, _ = clients.read_to_end(sock)
    assert heard == b"421 4.7.0 too much was said before TLS\r\n"
    assert ended_as(records) == ("starttls_too_long", "backend")


# A client of client mode that leaves while the server, within TLS, waits for it.


def stays(_: socket.socket) -> None:
    """It says nothing more."""


@pytest.mark.parametrize(
    ("leave", "reason"), [(socket.socket.close, "eof"), (backends.reset, "reset"), (stays, "timeout")]
)
def test_a_client_that_leaves_in_the_login_is_to_blame_for_it(
    leave: Callable[[socket.socket], None], reason: str
) -> None:
    has_ended = threading.Event()
    greeting = MYSQL_GREETING.replace(b"\xff\xf7", b"\xff\xff")

    def asks_for_more(sock: socket.socket) -> None:
        sock.sendall(greeting)
        sock.recv(len(packet(1, SSL_REQUEST)), socket.MSG_WAITALL)
        with server_context().wrap_socket(sock, server_side=True) as session:
            packet_from(session.recv)
            session.sendall(packet(3, b"\xfeanother_plugin\0"))
            assert has_ended.wait(backends.PATIENCE_S)

    with (
        backends.serve(asks_for_more) as backend,
        tunnel.client(backend.port, "--starttls", "mysql", "--handshake-timeout", "3s") as daemon,
    ):
        sock = clients.raw(daemon.port)
        packet_from(lambda size: sock.recv(size, socket.MSG_WAITALL))
        login = (0xA205).to_bytes(4, "little") + SSL_REQUEST[4:] + b"root\0\0"
        sock.sendall(packet(1, login))
        packet_from(lambda size: sock.recv(size, socket.MSG_WAITALL))
        leave(sock)
        record = daemon.record()
        has_ended.set()
        sock.close()
    assert (record["reason"], record["fault"]) == (reason, "client")


# Plaintext behind the go-ahead, in a segment of its own.


@pytest.mark.parametrize("injected", [b"MAIL FROM:<a@b>\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 20])
def test_plaintext_of_a_client_that_has_the_go_ahead_is_named_and_reaches_nobody(injected: bytes) -> None:
    heard: list[bytes] = []

    def behave(sock: socket.socket) -> None:
        sock.sendall(GREETINGS["imap"])
        heard.append(backends.read_all(sock))

    records: list[Record] = []
    with (
        backends.serve(behave) as backend,
        starttls.server_mode("imap", backend.port, records=records) as port,
        clients.raw(port) as sock,
    ):
        assert line_of(sock) == GREETINGS["imap"]
        sock.sendall(b"a STARTTLS\r\n")
        assert line_of(sock).startswith(b"a OK")
        sock.sendall(injected)
        sock.shutdown(socket.SHUT_WR)
        said, _ = clients.read_to_end(sock)
    assert heard == [b""]
    assert said == b""
    assert ended_as(records) == ("starttls_injected", "client")


def test_plaintext_of_a_server_that_gave_the_go_ahead_is_named_and_reaches_nobody() -> None:
    def behave(sock: socket.socket) -> None:
        sock.sendall(GREETINGS["pop3"])
        line_of(sock)
        sock.sendall(b"+OK go\r\n")
        assert sock.recv(1) == b"\x16"
        sock.sendall(b"+OK somebody else\r\n")
        backends.read_all(sock)

    records: list[Record] = []
    with (
        backends.serve(behave) as backend,
        starttls.client_mode("pop3", backend.port, records=records) as port,
        clients.raw(port) as sock,
    ):
        said, _ = clients.read_to_end(sock)
    assert said == b""
    assert ended_as(records) == ("starttls_injected", "backend")


def test_nonsense_where_a_client_of_postgres_may_begin_with_tls_is_no_injection() -> None:
    records: list[Record] = []
    with (
        backends.serve(backends.read_all) as backend,
        starttls.server_mode("postgres", backend.port, records=records) as port,
        clients.raw(port) as sock,
    ):
        sock.sendall(b"\x16" * 100)
        assert clients.read_to_end(sock)[0] == b""
    assert ended_as(records) == ("not_tls", "client")
