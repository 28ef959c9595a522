"""The event loop of a worker, on real descriptors."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tlstunnel.relay.reactor import EPOLLIN, MAX_EVENTS, Reactor


class Noting:
    """Keeps what it is told; may be told to do something then."""

    def __init__(self, does: object = None) -> None:
        self.calls: list[tuple[int, int]] = []
        self.crashes: list[Exception] = []
        self.deadline = 0.0
        self.late: list[float] = []
        self._does = does

    def on_ready(self, fd: int, events: int) -> None:
        self.calls.append((fd, events))
        if callable(self._does):
            self._does()

    def on_crash(self, error: Exception) -> None:
        self.crashes.append(error)

    def on_deadline(self, now: float) -> None:
        self.late.append(now)


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    made = Reactor()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_an_edge_is_reported_once_and_to_nobody_after_forget(reactor, pair):
    noting = Noting()
    reactor.watch(pair[0].fileno(), noting)
    pair[1].send(b"x")
    assert reactor.turn() == 1
    assert reactor.turn() == 0
    assert noting.calls == [(pair[0].fileno(), EPOLLIN)]
    reactor.forget(pair[0].fileno())
    pair[1].send(b"y")
    reactor.turn()
    assert len(noting.calls) == 1


def test_room_is_reported_only_to_whoever_asked_and_at_once_if_there_is_some(reactor, pair):
    noting = Noting()
    reactor.watch(pair[0].fileno(), noting)
    assert reactor.turn() == 0
    reactor.watch_room(pair[0].fileno())
    assert reactor.turn() == 1


def test_whoever_takes_over_a_descriptor_gets_its_edges(reactor, pair):
    before, after = Noting(), Noting()
    reactor.watch(pair[0].fileno(), before)
    reactor.hand_over(pair[0].fileno(), after)
    pair[1].send(b"x")
    reactor.turn()
    assert not before.calls
    assert after.calls


def test_a_paused_descriptor_stays_open_and_can_be_watched_again(reactor, pair):
    noting = Noting()
    reactor.watch(pair[0].fileno(), noting)
    reactor.pause(pair[0].fileno())
    pair[1].send(b"x")
    assert reactor.turn() == 0
    reactor.watch(pair[0].fileno(), noting)
    assert reactor.turn() == 1


def test_whoever_asks_for_another_turn_many_times_is_served_once_and_does_not_push_others_back(reactor):
    """A fast sender brings an edge in every turn; were each of its view queued, others would wait behind them."""
    greedy, modest = Noting(), Noting()
    for _ in range(1000):
        reactor.again(greedy)
    reactor.again(modest)
    assert reactor.is_busy
    reactor.turn()
    reactor.turn()
    assert len(greedy.calls) == len(modest.calls) == 1
    assert greedy.calls == [(-1, 0)]
    assert not reactor.is_busy


def test_those_who_ask_again_and_again_take_turns(reactor):
    order: list[str] = []
    ones: list[Noting] = []

    def make(name: str) -> Noting:
        def does() -> None:
            order.append(name)
            reactor.again(noting)

        noting = Noting(does)
        return noting

    ones = [make(name) for name in "abc"]
    for one in ones:
        reactor.again(one)
    for _ in range(9):
        reactor.turn()
    assert "".join(order) == "abcabcabc"


def test_an_error_in_one_handler_ends_that_one_and_the_turn_goes_on(reactor):
    def fail() -> None:
        raise ZeroDivisionError

    failing, working = Noting(fail), Noting()
    pairs = [socket.socketpair() for _ in range(2)]
    for (one, other), noting in zip(pairs, (failing, working), strict=True):
        reactor.watch(one.fileno(), noting)
        other.send(b"x")
    reactor.turn()
    reactor.again(failing)
    reactor.turn()
    assert [type(error) for error in failing.crashes] == [ZeroDivisionError, ZeroDivisionError]
    assert len(working.calls) == 1
    for one, other in pairs:
        one.close()
        other.close()


def test_only_those_whose_deadline_has_passed_are_told_and_only_while_they_are_held(reactor):
    late, early, released = Noting(), Noting(), Noting()
    late.deadline = released.deadline = reactor.now - 1
    early.deadline = reactor.now + 1000
    for noting in (late, early, released):
        reactor.hold(noting)
    reactor.release(released)
    reactor.sweep()
    assert len(late.late) == 1
    assert not early.late
    assert not released.late


def test_the_first_who_is_held_wakes_whoever_sweeps_once(reactor):
    woken: list[int] = []
    reactor.on_first_held = lambda: woken.append(1)
    reactor.hold(Noting())
    reactor.hold(Noting())
    assert woken == [1]


def test_the_reactor_itself_is_readable_when_a_turn_would_find_something(reactor, pair):
    import select

    reactor.watch(pair[0].fileno(), Noting())
    assert not select.select([reactor.fileno()], [], [], 0)[0]
    pair[1].send(b"x")
    assert select.select([reactor.fileno()], [], [], 0)[0]


def test_one_turn_takes_a_bounded_number_of_events(reactor):
    descriptors = [os.eventfd(1) for _ in range(MAX_EVENTS + 10)]
    noting = Noting()
    for fd in descriptors:
        reactor.watch(fd, noting)
    assert reactor.turn() == MAX_EVENTS
    assert reactor.turn() == 10
    for fd in descriptors:
        os.close(fd)


def test_an_error_of_ours_at_a_deadline_ends_whoever_it_was_and_nobody_else():
    reactor = Reactor()
    told: list[str] = []

    class Held:
        deadline = 0.0

        def __init__(self, name: str, fails: bool) -> None:
            self.name, self.fails = name, fails

        def on_ready(self, fd: int, events: int) -> None: ...

        def on_deadline(self, now: float) -> None:
            if self.fails:
                raise ZeroDivisionError
            told.append(self.name)

        def on_crash(self, error: Exception) -> None:
            told.append(f"{self.name} crashed: {type(error).__name__}")

    for held in (Held("one", True), Held("two", False)):
        reactor.hold(held)
    reactor.sweep()
    reactor.close()
    assert sorted(told) == ["one crashed: ZeroDivisionError", "two"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The reactor's, moved by hand."""
    fake = SimpleNamespace(now=1000.0)
    fake.monotonic = lambda: fake.now
    monkeypatch.setattr("tlstunnel.relay.reactor.time", fake)
    return fake


def test_nobody_is_late_whose_bytes_have_been_waiting(clock, pair):
    """As after SIGCONT: the deadline has passed, and what would have moved it has arrived before."""
    reactor = Reactor()
    noting = Noting(lambda: setattr(noting, "deadline", reactor.now + 60))
    noting.deadline = 1060.0
    reactor.watch(pair[0].fileno(), noting)
    reactor.hold(noting)
    pair[1].send(b"x")
    clock.now = 5000.0
    reactor.sweep()
    assert len(noting.calls) == 1
    assert noting.late == []
    clock.now = 5061.0
    reactor.sweep()
    assert noting.late == [5061.0]
    reactor.close()


def test_nobody_is_late_who_has_asked_to_come_again(clock):
    reactor = Reactor()
    noting = [Noting(lambda n=number: setattr(noting[n], "deadline", 9000.0)) for number in range(3)]
    for each in noting:
        each.deadline = 1001.0
        reactor.hold(each)
        reactor.again(each)
    clock.now = 5000.0
    reactor.sweep()
    assert [each.late for each in noting] == [[], [], []]
    reactor.close()


def test_who_is_always_busy_is_late_all_the_same(clock):
    """A lifetime ends a flow that never pauses; a flood of others does not keep anybody's time from coming."""
    reactor = Reactor()
    busy = Noting(lambda: reactor.again(busy))
    busy.deadline = 1001.0
    reactor.hold(busy)
    reactor.again(busy)
    clock.now = 1002.0
    reactor.sweep()
    assert busy.late == [1002.0]
    assert 1 <= len(busy.calls) <= 2
    reactor.close()
