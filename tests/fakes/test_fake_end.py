"""The fake end does what the real one does: the same script on both."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.fakes.end import FakeEnd
from tests.fakes.reactor import FakeReactor
from tests.relay.rig import adopt, connected
from tests.support.backends import reset
from tlstunnel._openssl import Scratch
from tlstunnel.relay.ends import PlainEnd
from tlstunnel.relay.reactor import EPOLLIN, HUNG_UP

SCRATCH = Scratch()


class Fake:
    """Drives a fake end. Whoever handles its edges notes them, as a link does."""

    def __init__(self) -> None:
        self.reactor = FakeReactor()
        self.end: PlainEnd = FakeEnd(self.reactor, SCRATCH, room=100_000)
        self.reactor.watch(self.end.fd, self)  # type: ignore[arg-type]

    def on_ready(self, fd: int, events: int) -> None:
        self.end.note(events)

    def put(self, data: bytes) -> None:
        self.end.put(data)  # type: ignore[attr-defined]

    def put_eof(self) -> None:
        self.end.put_eof()  # type: ignore[attr-defined]

    def put_reset(self) -> None:
        self.end.put_error(ConnectionResetError())  # type: ignore[attr-defined]

    def take(self) -> bytes:
        data = bytes(self.end.sent)  # type: ignore[attr-defined]
        self.end.sent.clear()  # type: ignore[attr-defined]
        self.end.give_room()  # type: ignore[attr-defined]
        return data

    def has_fin(self) -> bool:
        return bool(self.end.fins)  # type: ignore[attr-defined]

    def wants_room(self) -> bool:
        return self.end.fd in self.reactor.wants_room

    def close(self) -> None:
        self.end.close()


class Real:
    """Drives a real one over TCP."""

    def __init__(self) -> None:
        ours, self.peer = connected(20_000)
        self.peer.settimeout(60)
        self._wants_room: list[int] = []
        self.end = PlainEnd(adopt(ours), SCRATCH, self._wants_room.append)
        self._has_fin = False

    def _edge(self, events: int) -> None:
        select.select([self.end.fd], [], [], 60)
        self.end.note(events)

    def put(self, data: bytes) -> None:
        self.peer.sendall(data)
        self._edge(EPOLLIN)

    def put_eof(self) -> None:
        self.peer.shutdown(socket.SHUT_WR)
        poll = select.poll()
        poll.register(self.end.fd, select.POLLRDHUP)
        poll.poll(60_000)
        self.end.note(EPOLLIN | HUNG_UP)

    def put_reset(self) -> None:
        reset(self.peer)
        self._edge(EPOLLIN | HUNG_UP)

    def take(self) -> bytes:
        data = bytearray()
        self.peer.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while piece := self.peer.recv(1 << 16):
                data += piece
            self._has_fin = True
        self.end.note(select.EPOLLOUT)
        return bytes(data)

    def has_fin(self) -> bool:
        return self._has_fin or self.take() == b""

    def wants_room(self) -> bool:
        return bool(self._wants_room)

    def close(self) -> None:
        self.end.close()
        self.peer.close()


Driven = Fake | Real


@pytest.fixture(params=[Fake, Real])
def driven(request: pytest.FixtureRequest) -> Iterator[Driven]:
    make: Callable[[], Driven] = request.param
    made = make()
    yield made
    made.close()


def plain(size: int) -> bytes:
    return bytes(SCRATCH.plain[:size])


def test_a_short_read_ends_readability_and_a_full_one_does_not(driven: Driven) -> None:
    driven.put(b"abcdef")
    end = driven.end
    assert end.is_readable
    assert end.receive(4) == 4
    assert plain(4) == b"abcd"
    assert end.is_readable
    assert end.receive(4) == 2
    assert plain(2) == b"ef"
    assert not end.is_readable
    assert end.receive(4) == 0
    assert not end.at_eof


def test_after_a_hang_up_a_short_read_leaves_the_eof_to_be_read(driven: Driven) -> None:
    end = driven.end
    driven.put(b"last")
    driven.put_eof()
    assert end.receive(100) == 4
    assert end.is_readable
    assert not end.at_eof
    assert end.receive(100) == 0
    assert end.at_eof
    assert not end.is_readable


def test_a_reset_is_raised_by_reading(driven: Driven) -> None:
    driven.put_reset()
    with pytest.raises(ConnectionResetError):
        driven.end.receive(100)


def test_what_is_not_taken_is_kept_and_goes_out_in_order(driven: Driven) -> None:
    end, data = driven.end, bytes(range(256)) * 2000
    SCRATCH.plain[: len(data)] = data
    end.send(len(data))
    assert end.has_pending
    assert not end.is_writable
    assert driven.wants_room()
    SCRATCH.plain[: len(data)] = bytes(len(data))  # somebody else's by now
    got = driven.take()
    while end.has_pending:
        end.flush()
        got += driven.take()
    assert got == data
    assert not end.has_pending


def test_the_fin_is_said_once(driven: Driven) -> None:
    assert not driven.end.is_shut
    driven.end.shut()
    assert driven.end.is_shut
    assert driven.has_fin()


def test_discarding_says_whether_more_may_come(driven: Driven) -> None:
    driven.put(b"x")
    assert driven.end.discard()
    assert driven.end.discard()
    assert not driven.end.is_readable
    driven.put_eof()
    assert not driven.end.discard()
