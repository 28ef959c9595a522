"""The listener's side of accepting, where only the kernel's answer differs."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tlstunnel.config.model import Mode
from tlstunnel.connection.accept import Acceptor
from tlstunnel.relay.reactor import Reactor


@pytest.fixture
def runtime() -> Any:
    return SimpleNamespace(
        worker=SimpleNamespace(reactor=Reactor(), waiting={}, ledger=None),
        admission=SimpleNamespace(has_rules=False),
        service=SimpleNamespace(accept_proxy_protocol=False, keepalive=None, mode=Mode.SERVER, target_tls=None),
        routes=SimpleNamespace(is_needed=False),
        is_counted=False,
        room=lambda most: most,
    )


def test_a_listener_that_was_shut_down_is_closed_and_not_asked_again(runtime: Any) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    other_holder = listener.dup()  # as the supervisor, which shuts it down for everybody
    said: list[str] = []
    Acceptor(cast(Any, runtime), listener, lambda service, reason: said.append(reason))
    reactor = runtime.worker.reactor
    assert reactor.turn() == 0
    other_holder.shutdown(socket.SHUT_RDWR)
    assert reactor.turn() == 1
    assert listener.fileno() == -1
    assert reactor.turn() == 0, "it is asked again and again"
    assert said == []
    other_holder.close()
    reactor.close()
