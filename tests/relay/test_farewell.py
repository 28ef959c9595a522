"""The last words to a peer: they arrive, and nobody can hold us up for longer than a second."""

from __future__ import annotations

import errno

import pytest

from tests.fakes.end import FakeEnd
from tests.fakes.reactor import FakeReactor
from tlstunnel._openssl import Scratch
from tlstunnel.relay.linger import LINGER_S, Farewell

_SCRATCH = Scratch()


class Setup:
    def __init__(self, **options: float) -> None:
        self.reactor = FakeReactor()
        self.end = FakeEnd(self.reactor, _SCRATCH, **options)
        self.closed = 0

    def begin(self) -> None:
        Farewell(self.reactor, self.end, self._on_closed)

    def _on_closed(self) -> None:
        self.closed += 1

    def is_over(self) -> bool:
        return self.closed == self.end.closes == 1 and not self.reactor.held and not self.reactor.handlers


def test_the_fin_is_said_and_the_end_stays_until_the_peer_has_closed():
    one = Setup()
    one.begin()
    assert one.end.fins == 1
    assert not one.end.closes, "closing now would reset what the peer has not read yet"
    one.end.put(b"still talking")
    one.end.put_eof()
    assert one.is_over()


def test_what_is_pending_goes_out_before_the_fin():
    one = Setup(room=3)
    _SCRATCH.plain[:6] = b"alerts"
    one.end.send(6)
    one.begin()
    assert not one.end.fins
    one.end.give_room()
    assert bytes(one.end.sent) == b"alerts"
    assert one.end.fins == 1


def test_a_peer_that_never_closes_is_left_after_a_second():
    one = Setup()
    one.begin()
    one.reactor.advance(LINGER_S - 0.1)
    one.end.put(b"x")
    assert not one.end.closes
    one.reactor.advance(0.2)
    assert one.is_over()


def test_a_peer_that_never_stops_talking_is_read_in_turns_and_left_after_a_second():
    one = Setup()
    one.begin()
    for _ in range(100):
        one.end._arriving.append(b"x" * 1000)
    one.end.put(b"x")
    assert one.reactor.queued, "all of it at once would hold up everybody else"
    one.reactor.settle()
    one.reactor.advance(LINGER_S)
    assert one.is_over()


@pytest.mark.parametrize("how", ["reading", "sending"])
def test_a_peer_that_resets_has_stopped_listening(how):
    error = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    one = Setup()
    if how == "sending":
        one.end.fails_to_send = error
        one.begin()
    else:
        one.begin()
        one.end.put_error(error)
    assert one.is_over()


def test_an_end_that_was_already_shut_gets_no_second_fin():
    one = Setup()
    one.end.say_fin()
    one.begin()
    assert one.end.fins == 1
    one.end.put_eof()
    assert one.is_over()


def test_late_edges_and_crashes_after_the_end_are_ignored():
    one = Setup()
    one.begin()
    (farewell,) = one.reactor.handlers.values()
    farewell.on_crash(ValueError())
    farewell.on_ready(one.end.fd, 1)
    farewell.on_crash(ValueError())
    assert one.is_over()
