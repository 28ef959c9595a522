"""What a link decides, on ends without sockets and a clock that the test moves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest

from tests.relay.setup import LIMITS, RESET, SCRATCH, Setup
from tlstunnel._openssl import BULK_MIN, CHUNK
from tlstunnel.outcome import CloseReason
from tlstunnel.relay.link import PROVEN, QUIET_S, START_CHUNK, Limits


@pytest.fixture(autouse=True)
def no_bulk_right_is_lost() -> Iterator[None]:
    before = SCRATCH.bulk_left
    yield
    assert SCRATCH.bulk_left == before


def test_bytes_go_both_ways_and_are_counted_where_they_belong():
    link = Setup().start()
    link.client.put(b"question")
    link.backend.put(b"the answer")
    assert bytes(link.backend.sent) == b"question"
    assert bytes(link.client.sent) == b"the answer"
    assert (link.link.forward.moved, link.link.reverse.moved) == (8, 10)
    assert link.cells == [0, 8, 10]


@pytest.mark.parametrize("first", ["client", "backend"])
def test_eof_on_one_side_half_closes_the_other_and_the_reply_still_flows(first):
    link = Setup().start()
    one, other = (link.client, link.backend) if first == "client" else (link.backend, link.client)
    one.put(b"last words")
    one.put_eof()
    assert bytes(other.sent) == b"last words"
    assert other.fins == 1
    assert link.reason is None
    assert not link.link.is_open
    other.put(b"reply")
    assert bytes(one.sent) == b"reply"
    other.put_eof()
    assert link.reason is CloseReason.FINISHED
    assert link.is_released()
    assert not one.was_reset
    assert not other.was_reset


def test_both_sides_ending_at_once_is_one_ending():
    link = Setup()
    link.client.is_readable = link.backend.is_readable = True
    link.client.put_eof()
    link.backend.put_eof()
    link.start()
    link.reactor.settle()
    assert link.reason is CloseReason.FINISHED
    assert link.is_released()


def test_while_a_sink_is_full_its_source_is_not_read():
    link = Setup(room=10).start()
    link.backend.put(b"x" * 100)
    assert bytes(link.client.sent) == b"x" * 10
    reads = len(link.backend.reads)
    for _ in range(5):
        link.backend.put(b"y" * 100)
    link.reactor.settle()
    assert len(link.backend.reads) == reads
    # The other direction is not held up by it.
    link.client.put(b"z")
    assert bytes(link.backend.sent) == b"z"


def test_when_a_sink_has_room_again_everything_follows_without_another_edge():
    """The edges of what the source had sent meanwhile have all been reported: nobody will report them again."""
    link = Setup(room=10).start()
    data = bytes(range(256)) * 4096
    link.backend.put(data[: START_CHUNK // 2])
    for at in range(START_CHUNK // 2, len(data), 50_000):
        link.backend.put(data[at : at + 50_000])
    link.backend.put_eof()
    link.client.give_room()
    link.reactor.settle()
    assert bytes(link.client.sent) == data
    assert link.client.fins == 1
    assert not link.link.is_open


def test_eof_waits_for_what_its_sink_has_not_taken_yet():
    link = Setup(room=3).start()
    link.client.put(b"abcdef")
    link.client.put_eof()
    link.reactor.settle()
    assert link.backend.fins == 0
    link.backend.give_room(2)
    assert link.backend.fins == 0
    assert link.reason is None
    link.backend.give_room(1)
    link.reactor.settle()
    assert bytes(link.backend.sent) == b"abcdef"
    assert link.backend.fins == 1


def test_work_for_one_edge_is_bounded_and_the_rest_comes_in_later_turns():
    link = Setup().start()
    link.client.put(b"x" * (10 * START_CHUNK))
    assert len(link.backend.sent) == START_CHUNK
    assert link.reactor.queued == [link.link]
    assert link.reactor.serve_queued() == 1
    assert len(link.backend.sent) == 2 * START_CHUNK
    link.reactor.settle()
    assert len(link.backend.sent) == 10 * START_CHUNK


def test_only_a_flow_that_has_proved_its_reader_gets_big_chunks_and_gives_them_back():
    link = Setup().start()
    left = SCRATCH.bulk_left
    for _ in range(PROVEN // (1 << 20)):
        link.backend.put(bytes(1 << 20))
        link.reactor.settle()
        link.client.sent.clear()
    assert max(link.backend.reads) == START_CHUNK
    link.backend.put(bytes(1 << 20))
    link.reactor.settle()
    assert max(link.backend.reads) == CHUNK
    assert max(link.client.reads, default=0) <= START_CHUNK
    assert SCRATCH.bulk_left == left - 1
    link.reactor.advance(QUIET_S + 1)
    assert SCRATCH.bulk_left == left
    assert link.client.slimmed == link.backend.slimmed == 1


def test_when_all_rights_to_big_chunks_are_taken_a_flow_keeps_to_small_ones():
    left, SCRATCH.bulk_left = SCRATCH.bulk_left, 0
    try:
        link = Setup().start()
        for _ in range(PROVEN // (1 << 20) + 2):
            link.backend.put(bytes(1 << 20))
            link.reactor.settle()
            link.client.sent.clear()
        assert max(link.backend.reads) == START_CHUNK
    finally:
        SCRATCH.bulk_left = left


def test_a_quiet_link_gives_back_what_its_handshake_left_once():
    link = Setup().start()
    link.client.put(b"x" * BULK_MIN)
    link.reactor.advance(QUIET_S + 1)
    assert link.client.slimmed == link.backend.slimmed == 1
    assert SCRATCH.has_slimmed
    link.reactor.advance(QUIET_S + 1)
    assert link.client.slimmed == 1
    assert link.link.deadline > link.reactor.now + QUIET_S


# Timeouts.


def test_a_link_on_which_nothing_moves_ends_at_idle_timeout_and_says_so_to_both_sides():
    link = Setup().start()
    link.reactor.advance(LIMITS.idle_s - 1)
    assert link.reason is None
    link.reactor.advance(1)
    assert link.reason is CloseReason.IDLE_TIMEOUT
    assert link.client.fins == link.backend.fins == 1
    assert not link.client.was_reset
    assert not link.backend.was_reset
    link.client.put_eof()
    link.backend.put_eof()
    assert link.is_released()


@pytest.mark.parametrize("side", ["client", "backend"])
def test_traffic_in_either_direction_resets_the_idle_timer(side):
    link = Setup().start()
    for _ in range(10):
        link.reactor.advance(LIMITS.idle_s - 1)
        (link.client if side == "client" else link.backend).put(b"x")
    assert link.reason is None
    link.reactor.advance(LIMITS.idle_s)
    assert link.reason is CloseReason.IDLE_TIMEOUT


def test_a_reader_that_takes_a_little_now_and_then_is_not_idle():
    link = Setup(room=1).start()
    link.backend.put(b"x" * 50)
    for _ in range(20):
        link.reactor.advance(LIMITS.idle_s - 1)
        link.client.give_room(1)
    assert link.reason is None


def test_after_a_half_close_the_half_close_timeout_is_an_idle_timer_too():
    link = Setup().start()
    link.client.put_eof()
    for _ in range(10):
        link.reactor.advance(LIMITS.half_close_s - 1)
        link.backend.put(b"more of a long reply")
    assert link.reason is None
    link.reactor.advance(LIMITS.half_close_s)
    assert link.reason is CloseReason.HALF_CLOSE_TIMEOUT


def test_max_lifetime_ends_a_link_however_busy_it_is():
    link = Setup(ends_in_s=50.0).start()
    for _ in range(49):
        link.reactor.advance(1)
        link.client.put(b"x")
    assert link.reason is None
    link.reactor.advance(1)
    assert link.reason is CloseReason.MAX_LIFETIME


def test_never_is_never():
    link = Setup(limits=Limits(idle_s=math.inf, half_close_s=math.inf, is_strict=False)).start()
    link.reactor.advance(1e9)
    link.client.put_eof()
    link.reactor.advance(1e9)
    assert link.reason is None
    link.link.finish(CloseReason.DRAINED)


# Every order of events comes to one end.

_EVENTS = ["client sends", "client ends", "client resets", "backend sends", "backend ends", "backend resets", "room"]


@pytest.mark.slow
def test_every_order_of_events_ends_once_and_releases_everything():
    for events in itertools.product(_EVENTS, repeat=5):
        link = Setup(room=3).start()
        ended: set[str] = set()
        for event in events:
            side, _, what = event.partition(" ")
            if event == "room":
                link.client.give_room(5)
                link.backend.give_room(5)
                continue
            end = link.client if side == "client" else link.backend
            if side in ended or end.closes:
                continue  # nobody says anything after EOF or a reset
            if what == "sends":
                end.put(b"data")
            else:
                ended.add(side)
                if what == "ends":
                    end.put_eof()
                else:
                    end.put_error(RESET)
        link.client.give_room()
        link.backend.give_room()
        link.reactor.settle()
        has_reset = any("resets" in event for event in events)
        if {"client", "backend"} <= ended and not has_reset:
            assert link.reason is CloseReason.FINISHED, events
            assert bytes(link.backend.sent) == b"data" * (link.link.forward.moved // 4), events
        link.reactor.advance(200.0)
        assert link.reason is not None, events
        link.reactor.advance(2.0)
        assert link.is_released(), events


def test_a_link_that_begins_takes_what_came_with_the_handshake():
    link = Setup()

    def buffered() -> int:
        link.client._plain[:5] = b"early"
        return 5

    link.client.buffered = buffered  # type: ignore[method-assign]
    link.start()
    assert bytes(link.backend.sent) == b"early"
    assert link.cells == [0, 5, 0]


def test_the_first_flight_may_meet_a_broken_backend():
    link = Setup()
    link.client.buffered = lambda: 5  # type: ignore[method-assign]
    link.backend.fails_to_send = RESET
    link.start()
    assert link.reason is CloseReason.BACKEND_RESET
    assert link.is_released()
