"""One connection can end one connection: whatever is raised at whichever call serves it, the worker lives, the others
go on, and nothing is kept of it.

Every call that is made while a connection is served is found by watching one, in each mode and in each way of ending;
then each raises once. `tests.support.injection` says what a call is.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import backends, certificates, clients, injection
from tests.support.clients import Client
from tests.support.injection import Running, Site
from tests.support.wire_peers import client_context, server_context
from tlstunnel.connection import setup
from tlstunnel.connection.connection import Connection
from tlstunnel.relay.link import Link

pytestmark = [
    pytest.mark.slow,
    # A socket that is lost together with the call that was to take it is closed by the interpreter, which says so.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SAID = b"what was said"
SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
"""Of PostgreSQL's protocol (section 55.2.11 of its manual)."""


class Panic(BaseException):
    """As an extension module raises when its own code panics: no Exception."""


KINDS: list[Callable[[], BaseException]] = [
    lambda: ValueError("ours"),
    lambda: UnicodeError("ours"),
    lambda: MemoryError("ours"),
    lambda: RecursionError("ours"),
    lambda: AssertionError("ours"),
    lambda: OverflowError("ours"),
    lambda: OSError(5, "ours"),
    lambda: ConnectionResetError(104, "ours"),
    lambda: EOFError("ours"),
    lambda: StopIteration("ours"),
    lambda: ExceptionGroup("ours", [ValueError("inner")]),
    lambda: SystemExit(3),
    lambda: Panic("ours"),
]


@dataclass(frozen=True)
class Case:
    """One way in which a connection goes."""

    service: str
    act: Callable[[int], None]


def tls(port: int, *, pair: certificates.Pair | None = None, header: bytes = b"") -> None:
    """A client that says something, hears it, and ends; or as much of that as it is allowed."""
    with contextlib.suppress(OSError, ssl.SSLError), clients.raw(port) as sock:
        sock.sendall(header)
        client = Client(sock, client_context(pair=pair)).handshake()
        client.send(SAID)
        client.read(len(SAID))
        client.close_notify(fin=True)
        client.read_all()


def asked_for(port: int) -> None:
    """A client that asks for TLS first, as PostgreSQL's do."""
    with contextlib.suppress(OSError, ssl.SSLError), clients.raw(port) as sock:
        sock.sendall(SSL_REQUEST)
        if sock.recv(1) == b"S":
            client = Client(sock, client_context()).handshake()
            client.send(SAID)
            client.read(len(SAID))
            client.close_notify(fin=True)
            client.read_all()


def plain(port: int) -> None:
    with contextlib.suppress(OSError), clients.raw(port) as sock:
        sock.sendall(SAID)
        sock.recv(len(SAID), socket.MSG_WAITALL)
        sock.shutdown(socket.SHUT_WR)
        clients.read_to_end(sock)


def cut(port: int) -> None:
    """A client that resets a connection on which both sides speak."""
    with contextlib.suppress(OSError, ssl.SSLError), clients.raw(port) as sock:
        client = Client(sock, client_context()).handshake()
        client.send(SAID)
        client.read(len(SAID))
        client.reset()


def babbles(port: int) -> None:
    """A client that does not speak TLS."""
    with contextlib.suppress(OSError), clients.raw(port) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        clients.read_to_end(sock)


EVERY = os.environ.get("TLSTUNNEL_EVERY_KIND") == "1"
"""Raise every kind at every site of every case: for an hour of its own."""
DONE: set[Site] = set()
"""Sites that another case has passed."""
GOOD = certificates.client("billing")
BAD = certificates.client("stranger")
CASES = {
    "tls": Case("web", tls),
    "name": Case("name", tls),
    "cut": Case("web", cut),
    "not_tls": Case("web", babbles),
    "refused": Case("dead", tls),
    "refused_name": Case("dead_name", tls),
    "certificate": Case("full", lambda port: tls(port, pair=GOOD, header=b"PROXY TCP4 192.0.2.7 192.0.2.8 7 8\r\n")),
    "denied": Case("full", lambda port: tls(port, pair=BAD, header=b"PROXY TCP4 192.0.2.7 192.0.2.8 7 8\r\n")),
    "client_mode": Case("out", plain),
    "tls_again": Case("again", tls),
    "passthrough": Case("through", tls),
    "starttls": Case("asked", asked_for),
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    pair = certificates.server("localhost")
    ca = certificates.ca().certificate
    with (
        backends.serve(backends.echo) as echo,
        backends.serve(backends.echo, context=server_context()) as secure,
    ):
        dead = backends.unused_port()
        server = (
            f'mode = "server"\nlisten = "127.0.0.1:0"\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n'
            'max_connections_per_ip = 100\nhalf_close_timeout = "1s"\n'
        )
        here = f'target = "127.0.0.1:{echo.port}"\n'
        services = {
            "web": f'{server}{here}alpn = ["x"]\n',
            "name": f'{server}target = "localhost:{echo.port}"\n',
            "dead": f'{server}target = "127.0.0.1:{dead}"\n',
            "dead_name": f'{server}target = "localhost:{dead}"\n',
            "full": f'{server}{here}client_auth = "required"\nclient_ca = "{ca}"\nallow = [{{ cn = "billing" }}]\n'
            'accept_proxy_protocol = true\nproxy_protocol = "v2"\n'
            f'[[services.full.sni]]\nnames = ["localhost"]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n',
            "asked": f'{server}{here}starttls = "postgres"\n',
            "out": f'mode = "client"\nlisten = "127.0.0.1:0"\ntarget = "localhost:{secure.port}"\nca = "{ca}"\n'
            'half_close_timeout = "1s"\n',
            "again": f'{server}target = "localhost:{secure.port}"\ntarget_tls = {{ ca = "{ca}" }}\n',
            "through": f'mode = "passthrough"\nlisten = "127.0.0.1:0"\ntarget = "localhost:{secure.port}"\n'
            'half_close_timeout = "1s"\n',
        }
        path = tmp_path_factory.mktemp("injection") / "tunnel.toml"
        path.write_text("".join(f"[services.{name}]\n{lines}" for name, lines in services.items()))
        yield path


def until_as_before(worker: Running, before: injection.State, what: str) -> None:
    """Wait until the worker holds what it held."""
    pause = threading.Event()
    for _ in itertools.repeat(None, int(injection.PATIENCE_S / 0.01)):
        if worker.is_over.is_set() or (now := worker.state()).is_as(before):
            break
        pause.wait(0.01)
    assert not worker.is_over.is_set(), f"{what}: the worker has ended"
    assert now.is_as(before), f"{what}: {now} instead of {before}"


def check(worker: Running, other: Client, what: str) -> None:
    """An open link still works, and a new connection does."""
    other.send(SAID)
    assert other.read(len(SAID)) == SAID, what
    with clients.connect(worker.port("web")) as client:
        client.send(SAID)
        assert client.read(len(SAID)) == SAID, what
        client.close_notify(fin=True)
        assert client.read_all() == b"", what


@contextlib.contextmanager
def beside_another(config: Path) -> Iterator[tuple[Running, Client, injection.State]]:
    """A worker with one open link, and what it holds then."""
    with injection.running(config) as worker, clients.connect(worker.port("web")) as other:
        other.send(SAID)
        assert other.read(len(SAID)) == SAID
        pause = threading.Event()
        while not worker.run._worker.open_connections:
            pause.wait(0.01)
        (connection,) = worker.run._worker.open_connections
        while connection.link is None:
            pause.wait(0.01)
        worker.injector.spares = (connection.link, connection.link.forward, connection.link.reverse)
        yield worker, other, worker.state()


def fails_in_set_up(worker: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on an error of ours ends each connection of one service before there is a link."""

    def header_for(connection: Connection) -> bytes:
        if connection.runtime.service.name == "name":
            raise ZeroDivisionError
        return b""

    monkeypatch.setattr(setup, "header_for", header_for)


def fails_in_the_link(worker: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on an error of ours ends each link of one service."""
    cell = next(each.forward_cell for each in worker.run._runtimes if each.service.name == "name")
    settle = Link.settle

    def failing(link: Link) -> None:
        if link.forward.cell == cell and not link._is_finished:
            raise ZeroDivisionError
        settle(link)

    monkeypatch.setattr(Link, "settle", failing)


def sites_of(config: Path, case: Case, *prepare: Callable[[Running], None]) -> list[Site]:
    with beside_another(config) as (worker, _, before):
        for each in prepare:
            each(worker)
        port = worker.port(case.service)

        def act() -> None:
            case.act(port)
            until_as_before(worker, before, "recording")

        case.act(port)  # what is done once only has been done by then
        until_as_before(worker, before, "warming up")
        return worker.record(act)


@pytest.mark.parametrize("name", CASES)
def test_whatever_is_raised_wherever_ends_at_most_that_connection(config: Path, name: str) -> None:
    case = CASES[name]
    sites = sites_of(config, case)
    assert len(sites) > 50
    raise_at(config, case, sites if EVERY else [site for site in sites if site not in DONE])
    DONE.update(sites)


@pytest.mark.parametrize("fails", [fails_in_set_up, fails_in_the_link])
def test_an_error_in_what_ends_a_connection_after_an_error_keeps_nothing_of_it_either(
    config: Path, fails: Callable[[Running, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES["name"]
    usual = set(sites_of(config, case))
    sites = sites_of(config, case, lambda worker: fails(worker, monkeypatch))
    ending = [site for site in sites if site not in usual]
    assert any("contain" in site[1] for site in ending)
    raise_at(config, case, ending, lambda worker: fails(worker, monkeypatch))


def raise_at(config: Path, case: Case, sites: list[Site], *prepare: Callable[[Running], None]) -> None:
    """Raise at each site of a case, one after the other, beside a link that has to stay."""
    with beside_another(config) as (worker, other, before):
        for each in prepare:
            each(worker)
        port = worker.port(case.service)
        for number, site in enumerate(sites):
            for kind in KINDS if EVERY else [KINDS[number % len(KINDS)]]:
                what = f"{kind()!r} at {site}"
                worker.inject(site, kind, lambda: case.act(port))
                until_as_before(worker, before, what)
                check(worker, other, what)
