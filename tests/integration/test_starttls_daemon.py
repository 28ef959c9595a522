"""Hostile and careless peers before TLS, on both sides of a daemon with `starttls`.

How a connection ends, what each side hears of it, and what the log says.

The peers are scripted: a backend is a function in a thread, a client is the test itself.
"""

from __future__ import annotations

import socket

import pytest

from tests.support import backends, clients, starttls
from tests.support.tunnel import Record

pytestmark = pytest.mark.slow
GREETINGS = {
    "smtp": b"220 ready\r\n",
    "lmtp": b"220 ready\r\n",
    "imap": b"* OK ready\r\n",
    "pop3": b"+OK ready\r\n",
    "sieve": b'OK "ready"\r\n',
    "nntp": b"200 ready\r\n",
}


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
