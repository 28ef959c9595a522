"""A client that leaves while its target is dialled: a reset ends the dial at once, a half-close does not."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.support import backends, clients, tunnel


class Full:
    """A target whose queue is full until `accept` is called."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self._listener.settimeout(backends.PATIENCE_S)
        self.port = int(self._listener.getsockname()[1])
        self._filler = socket.create_connection(("127.0.0.1", self.port))

    def accept(self) -> socket.socket:
        """Make room, and accept who has been waiting."""
        self._listener.accept()[0].close()
        return self._listener.accept()[0]

    def close(self) -> None:
        self._filler.close()
        self._listener.close()


@pytest.fixture
def full() -> Iterator[Full]:
    with contextlib.closing(Full()) as found:
        yield found


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_reset_ends_the_dial_at_once_and_is_nobodys_fault(full: Full, host: str) -> None:
    with tunnel.server(f"{host}:{full.port}", "--connect-timeout", "never") as daemon:
        with clients.connect(daemon.port) as client:
            client.reset()
        record = daemon.record()
        assert (record["reason"], record["stage"], record["fault"]) == ("client_gone", "dial", "nobody")
        assert (record["level"], record["detail"]) == ("info", None)
        assert record["target"] == f"{host}:{full.port}"


@pytest.mark.slow
def test_a_client_that_has_said_all_it_has_to_say_is_waited_for(full: Full) -> None:
    with (
        tunnel.server(full.port, "--connect-timeout", "never") as daemon,
        clients.connect(daemon.port) as client,
    ):
        client.send(b"a question")
        client.close_notify(fin=True)
        with full.accept() as target:
            target.settimeout(backends.PATIENCE_S)
            assert backends.read_all(target) == b"a question"
            target.sendall(b"its answer")
        assert client.read_all() == b"its answer"
        assert daemon.record()["reason"] == "finished"


def test_for_a_client_that_is_gone_no_other_target_is_tried(full: Full) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        tunnel.server(
            full.port, "--target", f"127.0.0.1:{other.getsockname()[1]}", "--connect-timeout", "never"
        ) as daemon,
    ):
        with clients.connect(daemon.port) as client:
            client.reset()
        record = daemon.record()
        assert (record["reason"], record["target"]) == ("client_gone", f"127.0.0.1:{full.port}")
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()
