"""The short way of a small exchange: taken whenever it can be, left where more is going on, and found again after."""

from __future__ import annotations

import gc

import pytest

from tests.relay.rig import KINDS, PLAIN, Kind, Rig, rig
from tests.support.wire_peers import TLSPeer
from tlstunnel.relay.link import Flow, Link

FAST = Kind("1.3")


def exchange(link: Rig, data: bytes) -> None:
    """The near peer sends; what it sent arrives."""
    expected = link.far_peer.received + len(data)
    link.near_peer.send(data)
    link.until(lambda: link.far_peer.received == expected)


def asked_twice(link: Rig) -> bool:
    """Whether the last record was read with a second question for more."""
    return bool(link.near.engine.may_answer)  # type: ignore[attr-defined]


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_a_record_that_comes_alone_is_read_once(version: str) -> None:
    with rig(Kind(version)) as link:
        exchange(link, b"what came with the handshake may have to be looked for")
        exchange(link, b"alone")
        assert not asked_twice(link)


def test_a_session_that_saw_a_record_in_pieces_reads_the_next_one_once() -> None:
    with rig(FAST) as link:
        exchange(link, b"first")
        assert isinstance(link.near_peer, TLSPeer)
        link.near_peer.tls.write(b"in two pieces")
        wire = link.near_peer.outgoing.read()
        expected = link.far_peer.received + 13
        for piece in (wire[:9], wire[9:]):
            link.near_peer.sock.send(piece)
            link.turns()
        link.until(lambda: link.far_peer.received == expected)
        assert asked_twice(link)
        exchange(link, b"whole: it is seen that records stand whole again")
        exchange(link, b"whole again")
        assert not asked_twice(link)


def test_a_session_that_moved_bulk_reads_the_next_small_record_once() -> None:
    with rig(FAST) as link:
        exchange(link, bytes(300_000))
        exchange(link, b"small")
        exchange(link, b"small again")
        assert not asked_twice(link)


def test_two_records_that_come_together_arrive_together_and_in_order() -> None:
    with rig(FAST) as link:
        exchange(link, b"first")
        exchange(link, b"second")
        assert isinstance(link.near_peer, TLSPeer)
        link.near_peer.tls.write(b"one")
        link.near_peer.tls.write(b"two")
        link.near_peer.sock.send(link.near_peer.outgoing.read())
        link.until(lambda: link.far_peer.received == 17)
        assert bytes(link.far_peer.data) == b"firstsecondonetwo"


@pytest.mark.parametrize("kind", [PLAIN, FAST], ids=str)
def test_a_link_is_calm_while_both_sides_are_open_and_nothing_is_pending(kind: Kind) -> None:
    with rig(kind, buffers=8192) as link:
        exchange(link, b"a word")
        assert link.link.is_calm
        link.near_peer.send(bytes(2 << 20))
        for _ in range(200):
            link.near_peer.pump()  # the far peer does not read
            link.reactor.turn(0.0)
        assert link.far.has_pending
        assert not link.link.is_calm
        link.until(lambda: link.far_peer.received == (2 << 20) + 6)
        exchange(link, b"a word")
        assert link.link.is_calm
        link.far_peer.finish()
        link.until(lambda: link.far.at_eof)
        assert not link.link.is_calm


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_link_that_has_ended_leaves_nothing_to_the_collector(kind: Kind) -> None:
    gc.collect()
    gc.disable()
    try:
        before = {id(link): link for link in links()}
        made = Rig(kind).start()
        exchange(made, b"a word")
        made.close()
        del made.link
        assert [link for link in links() if id(link) not in before] == []
    finally:
        gc.enable()


def links() -> list[Link | Flow]:
    """All that there are, wanted or not."""
    return [each for each in gc.get_objects() if isinstance(each, Link | Flow)]
