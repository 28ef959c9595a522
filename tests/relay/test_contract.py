"""The contract of a link's ends, the same for plaintext, for both engines, both roles and both versions of TLS."""

from __future__ import annotations

import gc
import math
import socket

import pytest

from tests.relay.rig import KINDS, PLAIN, TLS_KINDS, Kind, Rig, rig
from tests.support.wire_peers import TLSPeer, digest, make_bytes
from tlstunnel.outcome import CloseReason
from tlstunnel.relay.ends import TLSEnd
from tlstunnel.relay.link import Limits

every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)
every_tls_kind = pytest.mark.parametrize("kind", TLS_KINDS, ids=str)
STRICT = Limits(idle_s=math.inf, half_close_s=math.inf, is_strict=True)


def tls(one: Rig) -> TLSPeer:
    assert isinstance(one.near_peer, TLSPeer)
    return one.near_peer


@every_kind
@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 300_001])
def test_both_directions_at_once_arrive_whole_and_are_counted_exactly(kind: Kind, size: int) -> None:
    one, other = make_bytes(size, 1), make_bytes(size // 2 + 7 * (size > 0), 2)
    with rig(kind) as link:
        link.near_peer.send(one)
        link.far_peer.send(other)
        link.near_peer.finish()
        link.far_peer.finish()
        link.until(lambda: link.near_peer.is_over and link.far_peer.is_over and link.reason)
        assert (link.far_peer.received, link.far_peer.digest) == (len(one), digest(one))
        assert (link.near_peer.received, link.near_peer.digest) == (len(other), digest(other))
        assert link.near_peer.has_eof
        assert link.far_peer.has_eof
        assert link.reason is CloseReason.FINISHED
        assert (link.from_near, link.to_near) == (len(one), len(other))
        assert sorted(link.cells) == sorted((len(one), len(other)))
        link.until(lambda: link.closed == 2)


@every_kind
@pytest.mark.slow
def test_megabytes_through_small_buffers_arrive_whole_in_both_directions_at_once(kind: Kind) -> None:
    one, other = make_bytes(6 << 20, 3), make_bytes(5 << 20, 4)
    with rig(kind, buffers=20_000) as link:
        link.near_peer.send(one)
        link.far_peer.send(other)
        link.near_peer.finish()
        link.far_peer.finish()
        link.until(lambda: link.near_peer.is_over and link.far_peer.is_over and link.reason)
        assert link.far_peer.digest == digest(one)
        assert link.near_peer.digest == digest(other)
        assert link.reason is CloseReason.FINISHED


@every_kind
@pytest.mark.slow
def test_bulk_with_whole_chunks_arrives_whole(kind: Kind) -> None:
    """More than a direction must have moved before it is trusted with whole chunks."""
    data = make_bytes(20 << 20, 5)
    with rig(kind) as link:
        link.far_peer.send(data)
        link.far_peer.finish()
        link.until(lambda: link.near_peer.is_over)
        assert link.near_peer.digest == digest(data)


@every_kind
def test_tiny_writes_arrive_in_order(kind: Kind) -> None:
    data = make_bytes(400, 6)
    with rig(kind) as link:
        link.near_peer.most_at_once = link.far_peer.most_at_once = 1
        link.near_peer.send(data)
        link.far_peer.send(data[::-1])
        link.until(lambda: link.far_peer.received == link.near_peer.received == len(data))
        assert bytes(link.far_peer.data) == data
        assert bytes(link.near_peer.data) == data[::-1]


@every_kind
def test_a_wire_that_gives_one_byte_at_a_time_is_no_different(kind: Kind) -> None:
    with rig(kind) as link:
        link.near_peer.send(b"in one record")
        link.near_peer.pump()
        link.until(lambda: link.far_peer.received)
        if isinstance(link.near_peer, TLSPeer):
            link.near_peer.tls.write(b"byte by byte")
            wire = link.near_peer.outgoing.read()
        else:
            wire = b"byte by byte"
        for byte in wire:
            link.near_peer.sock.send(bytes((byte,)))
            link.turns(2)
        link.until(lambda: link.far_peer.received == 25)
        assert bytes(link.far_peer.data) == b"in one recordbyte by byte"


@every_kind
@pytest.mark.parametrize("first", ["near", "far"])
def test_a_megabyte_reply_after_the_half_close_arrives_whole(kind: Kind, first: str) -> None:
    reply = make_bytes(1 << 20, 7)
    with rig(kind) as link:
        asking, answering = (link.near_peer, link.far_peer) if first == "near" else (link.far_peer, link.near_peer)
        asking.send(b"question")
        asking.finish()
        link.until(lambda: answering.has_eof)
        assert bytes(answering.data) == b"question"
        assert not link.link.is_open
        answering.send(reply)
        answering.finish()
        link.until(lambda: asking.is_over and link.reason)
        assert asking.digest == digest(reply)
        assert asking.has_eof
        assert link.reason is CloseReason.FINISHED


@every_tls_kind
def test_close_notify_without_a_fin_is_a_half_close_and_the_fin_that_follows_is_no_truncation(kind: Kind) -> None:
    with rig(kind, limits=STRICT) as link:
        tls(link).says_fin = False
        tls(link).send(b"question")
        tls(link).finish()
        link.until(lambda: link.far_peer.has_eof)
        tls(link).say_fin()
        link.turns()
        assert link.reason is None
        link.far_peer.send(b"reply")
        link.far_peer.finish()
        link.until(lambda: tls(link).is_over and link.reason)
        assert bytes(tls(link).data) == b"reply"
        assert tls(link).has_eof
        assert link.reason is CloseReason.FINISHED


@every_tls_kind
def test_what_a_peer_sends_after_its_close_notify_is_ignored_and_not_kept(kind: Kind) -> None:
    """RFC 8446 section 6.1. A peer that goes on for ever must not make the process grow."""
    with rig(kind) as link:
        tls(link).says_fin = False
        tls(link).finish()
        link.until(lambda: link.far_peer.has_eof)
        assert isinstance(link.near, TLSEnd)
        before = incoming_size(link.near)
        for _ in range(300):
            link.near_peer.sock.send(b"\x17\x03\x03\x04\x00" + bytes(1024))
            link.turns(1)
        assert incoming_size(link.near) <= before
        link.far_peer.send(b"reply")
        link.until(lambda: tls(link).received == 5)
        assert link.reason is None


def incoming_size(end: TLSEnd) -> int:
    """Bytes of input that the engine holds."""
    from tlstunnel._openssl.binding import ffi, lib

    bio = getattr(end.engine, "_in", None)
    return int(lib.BIO_get_mem_data(bio, ffi.new("char **"))) if bio else 0


@every_tls_kind
def test_eof_without_close_notify_reaches_the_other_side_as_eof_and_is_counted(kind: Kind) -> None:
    with rig(kind) as link:
        tls(link).says_close_notify = False
        tls(link).send(b"data")
        tls(link).finish()
        link.until(lambda: link.far_peer.has_eof)
        assert bytes(link.far_peer.data) == b"data"
        link.far_peer.send(b"reply")
        link.far_peer.finish()
        link.until(lambda: tls(link).is_over and link.reason)
        assert bytes(tls(link).data) == b"reply"
        assert link.reason is CloseReason.TRUNCATED


@every_tls_kind
def test_under_strict_close_a_truncated_stream_is_cut_and_the_other_side_sees_a_reset(kind: Kind) -> None:
    with rig(kind, limits=STRICT) as link:
        tls(link).says_close_notify = False
        tls(link).send(b"data")
        tls(link).finish()
        link.until(lambda: link.far_peer.is_over)
        assert link.far_peer.was_reset
        assert link.reason is CloseReason.TRUNCATED_STRICT


@every_kind
@pytest.mark.parametrize("side", ["near", "far"])
def test_a_reset_is_named_for_its_side_and_the_other_side_does_not_take_it_for_an_end(kind: Kind, side: str) -> None:
    with rig(kind) as link:
        broken, other = (link.near_peer, link.far_peer) if side == "near" else (link.far_peer, link.near_peer)
        broken.send(b"half a mess")
        link.until(lambda: other.received)
        broken.reset()
        link.until(lambda: other.is_over)
        assert other.was_reset or other.is_cut
        is_client = (side == "near") == kind.is_server
        assert link.reason is (CloseReason.CLIENT_RESET if is_client else CloseReason.BACKEND_RESET)
        other.close()
        link.until(lambda: link.closed == 2)


@every_kind
@pytest.mark.parametrize("side", ["near", "far"])
def test_a_sink_that_never_reads_holds_up_its_source_and_costs_one_chunk(kind: Kind, side: str) -> None:
    with rig(kind, buffers=20_000) as link:
        deaf, sender = (link.near_peer, link.far_peer) if side == "near" else (link.far_peer, link.near_peer)
        end = link.near if side == "near" else link.far
        deaf.reads = False
        sender.send(make_bytes(2 << 20, 8))
        last = -1
        while last != (last := link.from_near + link.to_near):
            link.turns(40)
        assert last < 1 << 20, "the source was read although the sink is full"
        assert end.has_pending
        held = end.engine.output_size() if isinstance(end, TLSEnd) else len(end._pending or b"")
        assert 0 < held <= 68 * 1024
        # The other direction is not held up, and when the peer reads again, all of it comes.
        deaf.send(b"still here")
        link.until(lambda: sender.received == 10)
        deaf.reads = True
        link.until(lambda: deaf.received == 2 << 20)
        assert deaf.digest == digest(make_bytes(2 << 20, 8))


@every_tls_kind
def test_a_quiet_link_gives_back_what_bulk_left_behind_and_goes_on(kind: Kind) -> None:
    with rig(kind) as link:
        # Only towards us: a server's session tickets still wait in the output for the first bytes the peer is sent.
        link.near_peer.send(make_bytes(400_000, 9))
        link.until(lambda: link.far_peer.received == 400_000)
        link.link.on_deadline(link.reactor.now + 6.0)
        link.far_peer.send(b"reply")
        link.until(lambda: link.near_peer.received or link.near_peer.is_over)
        assert bytes(link.near_peer.data) == b"reply"
        link.far_peer.send(make_bytes(400_000, 10))
        link.until(lambda: link.near_peer.received == 400_005)
        link.link.on_deadline(link.reactor.now + 6.0)
        for word in (b"one", b"two"):
            link.near_peer.send(word)
            link.far_peer.send(word)
        link.until(lambda: link.far_peer.received == 400_006 and link.near_peer.received == 400_011)
        link.near_peer.finish()
        link.far_peer.finish()
        link.until(lambda: link.reason)
        assert link.reason is CloseReason.FINISHED


@every_tls_kind
def test_a_garbled_record_is_named_and_its_alert_reaches_the_peer_after_the_genuine_data(kind: Kind) -> None:
    with rig(kind) as link:
        tls(link).send(b"genuine")
        link.until(lambda: tls(link).is_idle)
        tls(link).sock.send(b"\x17\x03\x03\x00\x40" + bytes(64))
        link.until(lambda: link.reason and tls(link).is_over and link.far_peer.is_over)
        assert bytes(link.far_peer.data) in (b"genuine", b""), "a reset may overtake it, nothing may be made up"
        assert link.far_peer.was_reset
        assert tls(link).alert is not None
        assert "BAD_RECORD_MAC" in tls(link).alert.upper().replace(" ", "_")
        assert link.reason in (CloseReason.CLIENT_TLS_ERROR, CloseReason.BACKEND_TLS_ERROR)


@every_tls_kind
def test_an_oversized_record_is_refused_with_record_overflow(kind: Kind) -> None:
    with rig(kind) as link:
        tls(link).sock.send(b"\x17\x03\x03\x48\x00" + bytes(5))
        link.until(lambda: link.reason and tls(link).is_over)
        assert tls(link).alert is not None
        assert "OVERFLOW" in tls(link).alert.upper()
        assert link.reason in (CloseReason.CLIENT_TLS_ERROR, CloseReason.BACKEND_TLS_ERROR)


def test_urgent_data_does_not_stop_what_follows_it() -> None:
    """A read stops short at the urgent mark although more has arrived, and no edge says so. (TLS has none.)"""
    with rig(PLAIN) as link:
        link.near_peer.sock.send(b"before")
        link.near_peer.sock.send(b"!", socket.MSG_OOB)
        link.near_peer.sock.send(b"after")
        link.until(lambda: bytes(link.far_peer.data).replace(b"!", b"") == b"beforeafter")


@every_tls_kind
def test_no_session_is_leaked_and_none_is_freed_twice(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlstunnel._openssl import engine as fast

    counts = {"SSL_new": 0, "SSL_free": 0}

    class Counting:
        def __getattr__(self, name: str) -> object:
            if name in counts:
                counts[name] += 1
            return getattr(real, name)

    real = fast._lib
    monkeypatch.setattr(fast, "_lib", Counting())
    for ending in ("finish", "reset", "drain"):
        with rig(kind) as link:
            if ending == "finish":
                link.near_peer.finish()
                link.far_peer.finish()
                link.until(lambda link=link: link.reason)
            elif ending == "reset":
                link.near_peer.reset()
                link.until(lambda link=link: link.reason)
    gc.collect()
    assert counts["SSL_new"] == counts["SSL_free"] == 3
