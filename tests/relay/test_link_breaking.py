"""How a link breaks: resets, errors of either side, TLS failures and truncation, each with its reason."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from tests.relay.setup import LIMITS, RESET, SCRATCH, Setup
from tlstunnel._openssl import TLSError
from tlstunnel.outcome import CloseReason
from tlstunnel.relay.link import Limits

STRICT = Limits(idle_s=100.0, half_close_s=10.0, is_strict=True)


TIMED_OUT = TimeoutError(errno.ETIMEDOUT, "Connection timed out")


NO_ROUTE = OSError(errno.EHOSTUNREACH, "No route to host")


@pytest.fixture(autouse=True)
def no_bulk_right_is_lost() -> Iterator[None]:
    before = SCRATCH.bulk_left
    yield
    assert SCRATCH.bulk_left == before


# Breaking.


@pytest.mark.parametrize("side", ["client", "backend"])
@pytest.mark.parametrize(
    ("error", "label", "detail"),
    [(RESET, "reset", ""), (TIMED_OUT, "timeout", ""), (NO_ROUTE, "reset", "no route to host")],
    ids=["reset", "timeout", "no-route"],
)
def test_a_broken_side_names_the_reason_and_the_other_learns_that_the_stream_was_cut(side, error, label, detail):
    link = Setup().start()
    broken, other = (link.client, link.backend) if side == "client" else (link.backend, link.client)
    broken.put(b"half a mess")
    broken.put_error(error)
    assert link.reason is not None
    assert link.reason.label == f"{side}_{label}"
    assert link.ended[0][1] == detail
    assert other.was_reset
    assert other.fins == 0
    assert link.is_released()


@pytest.mark.parametrize("side", ["client", "backend"])
def test_a_side_that_cannot_be_sent_to_is_the_one_that_broke(side):
    link = Setup().start()
    broken, other = (link.client, link.backend) if side == "client" else (link.backend, link.client)
    broken.fails_to_send = BrokenPipeError(errno.EPIPE, "Broken pipe")
    other.put(b"data for it")
    link.reactor.settle()
    assert link.reason is not None
    assert link.reason.label == f"{side}_reset"


@pytest.mark.parametrize("side", ["client", "backend"])
def test_a_reset_from_a_peer_that_had_ended_and_been_told_everything_is_no_error(side):
    link = Setup().start()
    quick, slow = (link.client, link.backend) if side == "client" else (link.backend, link.client)
    quick.put_eof()
    slow.put(b"bye")
    slow.put_eof()
    assert link.reason is CloseReason.FINISHED
    assert not slow.was_reset


@pytest.mark.parametrize("side", ["client", "backend"])
def test_a_peer_that_resets_instead_of_hearing_our_fin_has_still_finished(side):
    link = Setup().start()
    quick, slow = (link.client, link.backend) if side == "client" else (link.backend, link.client)
    quick.put_eof()
    quick.fails_to_send = RESET
    slow.put_eof()
    link.reactor.settle()
    assert link.reason is CloseReason.FINISHED
    assert link.is_released()


def test_an_error_of_ours_ends_the_link_and_its_kind_is_reported():
    link = Setup().start()
    link.link.on_crash(ZeroDivisionError("ours"))
    assert link.ended == [(CloseReason.INTERNAL_ERROR, "ZeroDivisionError", None)]
    assert link.is_released()


def test_finish_is_idempotent_and_late_edges_are_ignored():
    link = Setup().start()
    link.reactor.again(link.link)
    link.link.finish(CloseReason.DRAINED)
    link.link.finish(CloseReason.FINISHED)
    link.link.on_ready(link.client.fd, 1)
    link.reactor.settle()
    assert link.reason is CloseReason.DRAINED
    assert link.is_released()


# What is still under way.


def test_a_reset_waits_until_the_readers_machine_has_acknowledged_everything():
    link = Setup().start()
    link.backend.unacknowledged = 4
    link.client.put(b"data")
    link.client.put_error(RESET)
    link.reactor.advance(1.0)
    assert link.reason is None
    link.backend.unacknowledged = 0
    link.reactor.advance(0.25)
    assert link.reason is CloseReason.CLIENT_RESET
    assert link.backend.was_reset
    assert link.is_released()


def test_progress_of_a_slow_reader_resets_the_timer_and_without_it_the_reason_stays_what_was_wrong_first():
    link = Setup().start()
    link.backend.unacknowledged = 1000
    link.client.put(b"data")
    link.client.put_error(RESET)
    for _ in range(10):
        link.reactor.advance(LIMITS.half_close_s - 1)
        link.backend.unacknowledged -= 1
    assert link.reason is None
    link.reactor.advance(1)
    link.reactor.advance(LIMITS.half_close_s)
    assert link.reason is CloseReason.CLIENT_RESET
    assert link.backend.was_reset
    assert link.is_released()


@pytest.mark.parametrize("how", ["drained", "max_lifetime"])
def test_a_limit_that_ends_the_wait_is_not_the_reason(how):
    link = Setup(ends_in_s=5.0).start()
    link.backend.unacknowledged = 1000
    link.client.put_error(RESET)
    if how == "drained":
        link.link.finish(CloseReason.DRAINED)
    else:
        link.reactor.advance(5.0)
    assert link.reason is CloseReason.CLIENT_RESET
    assert link.is_released()


def test_a_reader_that_dies_while_it_is_waited_for_is_waited_for_no_longer():
    link = Setup().start()
    link.backend.unacknowledged = 1000
    link.client.put_error(RESET)
    link.backend.put_error(RESET)
    link.reactor.settle()
    assert link.reason is CloseReason.CLIENT_RESET
    assert link.is_released()


def test_what_comes_for_nobody_is_thrown_away_so_that_who_sends_it_goes_on_to_read():
    link = Setup(room=2).start()
    link.client.put(b"words")
    link.client.put_eof()
    link.client.fails_to_send = BrokenPipeError(errno.EPIPE, "Broken pipe")  # by a reset behind its FIN
    for _ in range(5):
        link.backend.put(b"x" * 100_000)
    link.reactor.settle()
    assert not link.backend._arriving
    assert link.link.reverse.moved == 0
    assert link.reason is None
    link.backend.give_room()
    link.reactor.settle()
    assert bytes(link.backend.sent) == b"words"
    assert link.backend.fins == 1
    assert not link.backend.was_reset
    assert link.reason is CloseReason.CLIENT_RESET


def test_bytes_count_when_the_sink_takes_them():
    link = Setup(room=3).start()
    link.client.put(b"abcdef")
    assert (link.link.forward.moved, link.cells) == (3, [0, 3, 0])
    link.backend.give_room(2)
    assert (link.link.forward.moved, link.cells) == (5, [0, 5, 0])
    link.backend.fails_to_send = RESET
    link.backend.give_room()
    link.reactor.settle()
    assert (link.link.forward.moved, link.cells) == (5, [0, 5, 0])


def test_a_client_that_breaks_after_it_was_told_the_end_has_finished():
    link = Setup().start()
    link.client.put(b"question")
    link.backend.put(b"reply")
    link.backend.put_eof()
    link.client.put_error(RESET)
    link.reactor.settle()
    assert link.ended == [(CloseReason.FINISHED, "", None)]
    assert link.backend.was_reset


def test_a_side_that_shut_itself_by_a_reset_before_it_heard_the_end_is_no_error_where_it_had_said_goodbye():
    """ENOTCONN of our own shutdown(2): its goodbye lies unread in our socket."""
    link = Setup().start()
    link.client.put(b"question")
    link.client.fails_to_send = OSError(errno.ENOTCONN, "Transport endpoint is not connected")
    link.backend.put_eof()
    link.client.put_eof()
    link.reactor.settle()
    assert link.ended == [(CloseReason.FINISHED, "", None)]
    assert not link.backend.was_reset


# TLS failures and truncation, as an end reports them.


def _tls(*reasons: str) -> TLSError:
    return TLSError(reasons)


@pytest.mark.parametrize("side", ["client", "backend"])
@pytest.mark.parametrize(
    ("error", "label"),
    [
        (_tls("tlsv1 alert unknown ca"), "alert"),
        (_tls("tlsv1 alert internal error"), "alert"),
        (_tls("decryption failed or bad record mac"), "tls_error"),
    ],
    ids=["alert", "alert-internal-error", "bad-record"],
)
def test_a_tls_failure_names_its_side_and_comes_after_the_data_before_it(side, error, label):
    link = Setup(room=4).start()
    broken, other = (link.client, link.backend) if side == "client" else (link.backend, link.client)
    broken.breaks = error
    broken.put(b"genuine")
    broken.put_eof()
    link.reactor.settle()
    assert link.reason is None, "the genuine data is not out yet"
    other.give_room()
    link.reactor.settle()
    assert bytes(other.sent) == b"genuine"
    assert link.reason is not None
    assert link.reason.label == f"{side}_{label}"
    assert other.was_reset


def test_an_error_of_our_library_is_not_the_peers():
    link = Setup().start()
    link.client.breaks = _tls("malloc failure")
    link.client.put_eof()
    assert link.ended == [(CloseReason.INTERNAL_ERROR, "malloc failure", None)]


@pytest.mark.parametrize("limits", [LIMITS, STRICT], ids=["lenient", "strict"])
def test_a_stream_that_ends_inside_a_record_is_cut(limits):
    link = Setup(limits=limits).start()
    link.client.put(b"data")
    link.client.is_torn = True
    link.client.put_eof(truncated=True)
    assert link.reason is (CloseReason.TRUNCATED_STRICT if limits is STRICT else CloseReason.TRUNCATED)
    assert bytes(link.backend.sent) == b"data"
    assert link.backend.was_reset
    assert link.backend.fins == 0


def test_eof_without_close_notify_is_an_eof_and_is_counted_as_truncated():
    link = Setup().start()
    link.client.put(b"data")
    link.client.put_eof(truncated=True)
    assert link.backend.fins == 1
    link.backend.put_eof()
    assert link.reason is CloseReason.TRUNCATED
    assert link.is_released()


def test_under_strict_close_eof_without_close_notify_cuts_the_link():
    link = Setup(limits=STRICT).start()
    link.client.put(b"data")
    link.client.put_eof(truncated=True)
    assert link.ended == [(CloseReason.TRUNCATED_STRICT, "client", None)]
    assert link.backend.was_reset
    assert link.backend.fins == 0
