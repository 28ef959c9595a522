"""However a side ends, what it said reaches the other side first, and then the other side is told the truth."""

from __future__ import annotations

import errno
import fcntl
import math
import socket
import termios

import pytest

from tests.relay.rig import KINDS, TLS_KINDS, Kind, Rig, rig
from tests.support.wire_peers import HandPeer, TLSPeer, digest, make_bytes
from tlstunnel.outcome import CloseReason
from tlstunnel.relay.ends import TLSEnd
from tlstunnel.relay.link import Limits

HAND_KINDS = [kind for kind in TLS_KINDS if kind.version == "1.3"]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)
every_tls_kind = pytest.mark.parametrize("kind", TLS_KINDS, ids=str)
every_hand_kind = pytest.mark.parametrize("kind", HAND_KINDS, ids=str)
SIZE = 400_000
DATA = make_bytes(SIZE, 21)
USER_CANCELED, CLOSE_NOTIFY, FATAL = b"\1\x5a", b"\1\0", b"\2\x28"


def hand(link: Rig) -> HandPeer:
    assert isinstance(link.near_peer, HandPeer)
    return link.near_peer


def tls(link: Rig) -> TLSPeer:
    assert isinstance(link.near_peer, TLSPeer)
    return link.near_peer


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that a socket has sent and the other side's kernel has not taken."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), "little")


def near_reset(kind: Kind) -> CloseReason:
    return CloseReason.CLIENT_RESET if kind.is_server else CloseReason.BACKEND_RESET


def stall(link: Rig) -> None:
    """Until nothing moves: what is under way fills every buffer."""
    last = -1
    while last != (last := link.from_near + link.to_near):
        link.turns(40)


def slow_reader(link: Rig) -> None:
    """The far peer reads no more for now, and what the near one says fills every buffer."""
    link.far_peer.reads = False
    link.near_peer.send(DATA)
    stall(link)


def hear_all(link: Rig, data: bytes = DATA) -> None:
    """The far peer reads on, and gets everything."""
    link.far_peer.reads = True
    link.until(lambda: link.far_peer.is_over)
    assert (link.far_peer.received, link.far_peer.digest) == (len(data), digest(data))
    assert link.from_near == len(data)


def fill(link: Rig) -> bytes:
    """The near peer says as much as the far one, which reads no more, leaves room for, and a little that we have not
    read yet; all of it is with our kernel or beyond."""
    link.far_peer.reads = False
    said = bytearray()
    for number in range(1000):
        is_last = link.far.has_pending
        piece = make_bytes(3000, number)
        link.near_peer.send(piece)
        said += piece
        link.until(lambda: link.near_peer.is_idle and not unacknowledged(link.near_peer.sock))
        link.turns(5)
        if is_last:
            return bytes(said)
    raise AssertionError("it takes everything")


# Ends of a session.


@every_hand_kind
@pytest.mark.parametrize("before", [(), (USER_CANCELED,), (b"\2\x5a",), (USER_CANCELED,) * 3], ids=str)
@pytest.mark.parametrize("last", [CLOSE_NOTIFY, b"\2\0"], ids=["warning", "fatal"])
def test_alerts_that_end_nothing_are_no_errors_and_close_notify_is_an_end(
    kind: Kind, before: tuple[bytes, ...], last: bytes
) -> None:
    """RFC 8446 section 6.1: user_canceled is followed by close_notify, and levels mean nothing."""
    with rig(kind, by_hand=True) as link:
        for alert in before:
            hand(link).say(21, alert)
        hand(link).send(b"said after it")
        hand(link).say(21, last)
        link.until(lambda: link.far_peer.has_eof)
        assert bytes(link.far_peer.data) == b"said after it"
        link.far_peer.send(b"reply")
        link.far_peer.finish()
        link.until(lambda: link.reason)
        assert link.reason is CloseReason.FINISHED
        link.until(lambda: hand(link).is_over)
        assert bytes(hand(link).data) == b"reply"


@every_hand_kind
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_peer_that_cancels_and_is_gone_has_all_it_said_delivered_to_a_slow_reader(kind: Kind, how: str) -> None:
    with rig(kind, buffers=20_000, by_hand=True) as link:
        link.far_peer.reads = False
        hand(link).send(DATA)
        hand(link).say(21, USER_CANCELED)
        hand(link).say(21, CLOSE_NOTIFY)
        stall(link)
        assert not link.far_peer.received
        link.far_peer.reads = True
        link.until(lambda: hand(link).is_idle and not unacknowledged(hand(link).sock))
        link.far_peer.reads = False
        getattr(hand(link), how)()
        link.turns()
        hear_all(link)
        assert link.far_peer.has_eof
        link.far_peer.finish()
        link.until(lambda: link.reason)
        assert link.reason is CloseReason.FINISHED
        assert sum(link.cells) == SIZE


@every_hand_kind
@pytest.mark.parametrize("what", ["garbage", "alert"])
def test_what_came_before_an_error_in_a_session_reaches_a_slow_reader_before_it_is_cut(kind: Kind, what: str) -> None:
    with rig(kind, buffers=20_000, by_hand=True) as link:
        slow_reader(link)
        if what == "alert":
            hand(link).say(21, FATAL)
        else:
            hand(link).wire += b"\x17\x03\x03\x00\x40" + bytes(64)
            hand(link)._write_queue = _after(hand(link))  # type: ignore[method-assign]
        link.far_peer.reads = True
        link.until(lambda: hand(link).is_idle)
        hear_all(link)
        assert link.far_peer.was_reset
        link.until(lambda: link.reason)
        words = ("client" if kind.is_server else "backend", "alert" if what == "alert" else "tls_error")
        assert link.reason is CloseReason[f"{words[0]}_{words[1]}".upper()]


def _after(peer: HandPeer):  # type: ignore[no-untyped-def]
    """The peer's records first, then what stands in `wire` already."""
    last, write = bytes(peer.wire[-69:]), peer._write_queue
    del peer.wire[-69:]

    def write_queue() -> bool:
        nonlocal last
        peer.wire += peer.connection.data_to_send() + last
        last = b""
        return write()

    return write_queue


@every_tls_kind
def test_an_alert_does_not_wait_for_a_slow_reader(kind: Kind) -> None:
    with rig(kind, buffers=20_000) as link:
        link.far_peer.reads = False
        tls(link).send(make_bytes(60_000, 22))
        link.until(lambda: tls(link).is_idle and link.far.has_pending)
        tls(link).sock.send(b"\x17\x03\x03\x00\x40" + bytes(64))
        link.turns()
        assert link.reason is None
        # The record can be read once the chunk before it has been taken: as little as that is read.
        while tls(link).alert is None:
            link.far_peer.reads = link.far.has_pending
            link.turns(1)
        hear_all(link, make_bytes(60_000, 22))
        assert link.far_peer.was_reset


# Resets.


@every_kind
def test_what_a_peer_said_before_its_reset_reaches_a_slow_reader_before_it_is_cut(kind: Kind) -> None:
    with rig(kind, buffers=20_000) as link:
        data = fill(link)
        link.near_peer.reset()
        link.turns()
        assert link.reason is None, "the reader has not everything yet"
        hear_all(link, data)
        assert link.far_peer.was_reset
        link.until(lambda: link.reason)
        assert link.reason is near_reset(kind)


@every_kind
def test_a_peer_that_resets_while_it_is_sent_to_has_what_it_said_delivered(kind: Kind) -> None:
    """The error comes to light in sending; what it had said lies unread in our socket."""
    with rig(kind, buffers=20_000) as link:
        data = fill(link)
        link.near_peer.reads = False
        link.far_peer.send(DATA)
        stall(link)
        assert link.near.has_pending
        link.near_peer.reset()
        hear_all(link, data)
        assert link.far_peer.was_reset
        assert link.reason is near_reset(kind)
        assert link.to_near < SIZE


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.is_server], ids=str)
@pytest.mark.parametrize("says_goodbye", [True, False])
def test_a_client_that_resets_after_it_has_everything_has_finished(kind: Kind, says_goodbye: bool) -> None:
    with rig(kind) as link:
        link.near_peer.send(b"question")
        link.until(lambda: link.far_peer.received == 8)
        link.far_peer.send(DATA)
        link.far_peer.finish()
        link.until(lambda: link.near_peer.has_eof)
        if says_goodbye:
            link.near_peer.finish()
            link.near_peer.pump()
        link.near_peer.reset()
        link.until(lambda: link.reason)
        assert link.ended == [(CloseReason.FINISHED, "")]
        assert (link.from_near, link.to_near) == (8, SIZE)


def test_a_client_that_resets_in_the_middle_of_what_it_sends_has_not_finished_although_it_has_the_reply() -> None:
    with rig(Kind("1.3")) as link:
        link.far_peer.send(b"reply")
        link.far_peer.finish()
        link.until(lambda: link.near_peer.has_eof)
        link.near_peer.send(b"half a mess")
        link.until(lambda: link.far_peer.received)
        link.near_peer.reset()
        link.until(lambda: link.reason and link.far_peer.is_over)
        assert link.reason is CloseReason.CLIENT_RESET
        assert link.far_peer.was_reset


@every_kind
def test_a_backend_that_resets_instead_of_ending_has_not_finished(kind: Kind) -> None:
    with rig(kind) as link:
        client, backend = (link.near_peer, link.far_peer) if kind.is_server else (link.far_peer, link.near_peer)
        client.send(b"question")
        client.finish()
        link.until(lambda: backend.has_eof)
        backend.send(b"half an answ")
        link.until(lambda: client.received == 12)
        backend.reset()
        link.until(lambda: link.reason and client.is_over)
        assert link.reason is CloseReason.BACKEND_RESET
        assert client.was_reset or client.is_cut


# Inside a record.


@every_tls_kind
@pytest.mark.parametrize("left", [1, 12, 16, 17, 20, 21, 22, 23])
def test_a_fin_inside_a_record_is_a_cut(kind: Kind, left: int) -> None:
    """Although `strict_close` is off: a record without its end can be no end of the peer's."""
    with rig(kind) as link:
        tls(link).send(b"whole")
        link.until(lambda: link.far_peer.received == 5)
        tls(link).tls.write(b"cut")
        record = tls(link).outgoing.read()
        tls(link).sock.send(record[: max(1, len(record) - left)])
        tls(link).say_fin()
        link.until(lambda: link.reason and link.far_peer.is_over)
        assert bytes(link.far_peer.data) == b"whole"
        assert link.far_peer.was_reset
        assert link.ended == [(CloseReason.TRUNCATED, "cut inside a TLS record")]


@every_tls_kind
@pytest.mark.parametrize("size", [1, 3, 100, 5000, 16_384])
def test_a_fin_behind_bytes_of_a_records_header_or_behind_a_long_record_is_told_apart(kind: Kind, size: int) -> None:
    for is_whole in (True, False):
        with rig(kind) as link:
            tls(link).tls.write(make_bytes(size))
            record = tls(link).outgoing.read()
            tls(link).sock.send(record + (b"" if is_whole else record[: size % 5 + 1]))
            link.until(lambda link=link: link.far_peer.received == size)
            tls(link).say_fin()
            link.until(lambda link=link: link.far_peer.is_over)
            assert link.far_peer.has_eof is is_whole
            assert link.far_peer.was_reset is not is_whole
            if is_whole:
                link.far_peer.send(b"reply")
                link.far_peer.finish()
                link.until(lambda link=link: tls(link).has_eof)
                assert bytes(tls(link).data) == b"reply"


# After our own goodbye.


@every_hand_kind
def test_after_our_goodbye_nothing_is_answered_and_everything_still_arrives(kind: Kind) -> None:
    """RFC 8446 section 4.6.3: an answer to a key update is owed before our next data, of which there is none."""
    with rig(kind, by_hand=True) as link:
        link.far_peer.send(b"a line")
        link.far_peer.finish()
        link.until(lambda: hand(link).has_eof)
        heard, said = hand(link).heard, b""
        for number in range(8):
            hand(link).ask_for_keys()
            piece = make_bytes(20_000, number)
            hand(link).send(piece)
            said += piece
            link.until(lambda said=said: link.far_peer.received == len(said))
        hand(link).finish()
        link.until(lambda: link.reason)
        assert link.reason is CloseReason.FINISHED
        assert link.far_peer.digest == digest(said)
        assert hand(link).heard == heard


@every_hand_kind
def test_a_goodbye_that_waits_for_room_is_the_last_word(kind: Kind) -> None:
    with rig(kind, buffers=20_000, by_hand=True) as link:
        near = link.near
        assert isinstance(near, TLSEnd)
        hand(link).reads = False
        link.far_peer.send(make_bytes(60_000, 25))
        link.far_peer.finish()
        stall(link)
        # Our answers to key updates stand before the goodbye, and none behind it.
        while not near.is_shut:
            hand(link).reads = True
            link.turns(1)
            hand(link).reads = False
        size = near.engine.output_size()
        for _ in range(100):
            hand(link).ask_for_keys()
            link.turns(2)
            assert near.engine.output_size() <= size
        hand(link).send(b"still here")
        link.until(lambda: link.far_peer.received == 10)
        hand(link).reads = True
        link.until(lambda: hand(link).has_eof)
        assert hand(link).received == 60_000


@every_hand_kind
def test_half_a_handshake_message_holds_up_what_is_to_be_encrypted_and_loses_none_of_it(kind: Kind) -> None:
    """Libraries with small records send key updates and tickets in pieces; OpenSSL encrypts nothing in between."""
    with rig(kind, by_hand=True) as link:
        link.until(lambda: hand(link).is_shaken and hand(link).is_idle)
        for size in (5, 60_000):
            before, reply = hand(link).received, make_bytes(size, size)
            hand(link).say(22, b"\x18\0")
            hand(link).say(22, b"\0\1")
            link.until(lambda: hand(link).is_idle)
            link.turns()
            link.far_peer.send(reply)
            link.turns()
            assert hand(link).received == before
            assert (link.ended, link.to_near) == ([], before)
            hand(link).say(22, b"\0")
            new_keys(hand(link))
            link.until(lambda before=before, size=size: hand(link).received == before + size)
            assert link.to_near == before + size
            hand(link).send(b"still in order")
        link.until(lambda: link.from_near == 28)


def new_keys(peer: HandPeer) -> None:
    """As after a key update that was said in pieces."""
    keys = peer.connection._channel.write_keys
    assert keys is not None
    peer.connection._channel.write_keys = peer.connection._next_keys(keys, peer.connection.role)


# What is counted.


@every_kind
def test_what_is_counted_is_what_the_kernel_took(kind: Kind) -> None:
    for side in ("near", "far"):
        with rig(kind, buffers=20_000) as link:
            deaf, sender = (link.near_peer, link.far_peer) if side == "near" else (link.far_peer, link.near_peer)
            end = link.near if side == "near" else link.far
            deaf.reads = False
            sender.send(DATA)
            stall(link)
            moved = link.to_near if side == "near" else link.from_near
            held = end.engine.output_size() if isinstance(end, TLSEnd) else len(end._pending or b"")
            assert held > 0
            deaf.reads = True
            while deaf.pump() or unacknowledged(end.sock):  # type: ignore[arg-type]
                continue  # without the link: what its kernel had
            # Of a record that the kernel took in part nothing can be read; and what encryption adds counts for nothing.
            slack = 16_384 if isinstance(end, TLSEnd) else 0
            assert moved - slack <= deaf.received <= moved + slack // 64
            link.until(lambda deaf=deaf: deaf.received == SIZE)
            assert sum(link.cells) == link.to_near + link.from_near == SIZE


def test_limits_still_end_a_link_whose_reader_takes_nothing() -> None:
    limits = Limits(idle_s=math.inf, half_close_s=5.0, is_strict=False)
    with rig(Kind("1.3"), buffers=20_000, limits=limits) as link:
        data = fill(link)
        link.near_peer.reset()
        link.turns()
        assert link.reason is None
        link.link.on_deadline(link.reactor.now + 6.0)
        assert link.reason is CloseReason.CLIENT_RESET
        link.far_peer.reads = True
        link.until(lambda: link.far_peer.is_over)
        assert link.far_peer.was_reset
        assert link.far_peer.received < len(data)


def test_an_error_of_our_own_calls_is_nobody_elses() -> None:
    with rig(Kind("1.3")) as link:
        link.link.note_broken(link.near, OSError(errno.ENOBUFS, "No buffer space available"), is_sending=True)
        assert link.ended == [(CloseReason.INTERNAL_ERROR, "no buffer space available")]
        link.errors.clear()
