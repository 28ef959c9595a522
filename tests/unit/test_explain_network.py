"""How explain reaches a server: the name's look-up and every address of it are within the connect timeout."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tlstunnel.address import TCPAddress
from tlstunnel.cli import explain_network
from tlstunnel.tools.tls13.client_config import ClientConfig

NAMED = TCPAddress("server.example", 443)


@pytest.fixture
def stuck_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A resolver whose name servers do not answer before the test is over."""
    over = threading.Event()

    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        over.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield
    over.set()


def fail(connect_s: float | None = 60.0) -> str | None:
    return explain_network.talk(NAMED, ClientConfig(server_name="server.example"), connect_s, 60.0)[2]


@pytest.mark.usefixtures("stuck_resolver")
def test_name_servers_that_do_not_answer_are_waited_for_as_long_as_a_connection() -> None:
    assert fail(connect_s=0.05) == "no answer from the name servers within 0.05s; try an address"


def test_a_name_without_an_address_is_said_to_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert fail() == "the name has no address; check its spelling"


def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            dead = closed.getsockname()
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", where) for where in (dead, server.getsockname())]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        answering = threading.Thread(target=hang_up, args=(server,))
        answering.start()
        said = fail()
        answering.join()
    assert said is not None
    assert "closed the connection" in said or "reset" in said, said


def test_the_reason_of_the_last_address_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = closed.getsockname()
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", dead)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert fail() == "connection refused; check host and port"


def hang_up(server: socket.socket) -> None:
    server.accept()[0].close()
