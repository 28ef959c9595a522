"""Peers that ask for answers and never read them: what they make us say must not pile up."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.relay.rig import SCRATCH, Kind, Rig, our_context
from tests.support import hostile
from tests.support.wire_peers import TLSPeer, client_context
from tlstunnel import _openssl
from tlstunnel._openssl.engine import UNREAD_ANSWERS
from tlstunnel.outcome import CloseReason
from tlstunnel.relay.ends import TLSEnd
from tlstunnel.tools.tls13.client import Client

BOUND = 64 * 1024
"""Bytes that a session may hold of its own answers."""


class TLS12Records:
    """Writes TLS 1.2 records of a client as it likes, with the keys of a handshake that OpenSSL made for it."""

    def __init__(self, master: bytes, client_random: bytes, server_random: bytes) -> None:
        seed = b"key expansion" + server_random + client_random
        block, a = b"", seed
        while len(block) < 40:
            a = hmac.digest(master, a, hashlib.sha256)
            block += hmac.digest(master, a + seed, hashlib.sha256)
        self._key, self._iv = AESGCM(block[:16]), block[32:36]
        self._sequence = 1  # 0 was the Finished

    def record(self, kind: int, data: bytes) -> bytes:
        number = self._sequence.to_bytes(8, "big")
        self._sequence += 1
        aad = number + bytes((kind, 3, 3)) + len(data).to_bytes(2, "big")
        sealed = number + self._key.encrypt(self._iv + number, data, aad)
        return bytes((kind, 3, 3)) + len(sealed).to_bytes(2, "big") + sealed


def shake_by_hand(link: Rig, keylog: Path) -> TLS12Records:
    """A TLS 1.2 handshake whose keys we know."""
    context = client_context("1.2")
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    context.keylog_filename = str(keylog)
    peer = link.near_peer
    assert isinstance(peer, TLSPeer)
    peer.tls = context.wrap_bio(peer.incoming, peer.outgoing, server_hostname="localhost")
    wire = bytearray()
    write = peer.incoming.write

    class Tap:
        """Keeps what comes in."""

        def write(self, data: bytes) -> int:
            wire.extend(data)
            return write(data)

        write_eof = peer.incoming.write_eof

    peer.incoming = Tap()  # type: ignore[assignment]
    link.start()
    words = keylog.read_text().split("CLIENT_RANDOM ")[1].split()
    return TLS12Records(bytes.fromhex(words[1]), bytes.fromhex(words[0]), bytes(wire[11:43]))


HELLO = b"\x01\x00\x00\x2b\x03\x03" + bytes(32) + b"\x00\x00\x02\xc0\x2b\x01\x00\x00\x00"


def test_renegotiation_is_declined_and_the_connection_goes_on(tmp_path: Path) -> None:
    link = Rig(Kind("1.2", True))
    records = shake_by_hand(link, tmp_path / "keys")
    link.near_peer.reads = False  # it would take our warning for a failure
    link.near_peer.sock.send(records.record(22, HELLO) + records.record(23, b"still here"))
    link.until(lambda: link.far_peer.received)
    assert bytes(link.far_peer.data) == b"still here"
    link.turns()
    assert link.reason is None
    link.close()


def test_warnings_that_end_nothing_are_no_errors_and_close_notify_behind_them_is_an_end(
    tmp_path: Path,
) -> None:
    """RFC 5246 section 7.2: user_canceled, unrecognized_name, and one that nobody knows."""
    link = Rig(Kind("1.2", True))
    records = shake_by_hand(link, tmp_path / "keys")
    said = [records.record(21, bytes((1, number))) for number in (90, 112, 200)]
    said += [records.record(23, b"still here"), records.record(21, b"\1\x5a"), records.record(21, b"\1\0")]
    link.near_peer.sock.send(b"".join(said))
    link.until(lambda: link.far_peer.has_eof)
    assert bytes(link.far_peer.data) == b"still here"
    link.far_peer.finish()
    link.until(lambda: link.reason)
    assert link.reason is CloseReason.FINISHED
    link.close()


def test_after_our_goodbye_renegotiation_is_not_even_declined(tmp_path: Path) -> None:
    link = Rig(Kind("1.2", True))
    records = shake_by_hand(link, tmp_path / "keys")
    link.far_peer.finish()
    link.until(lambda: link.near_peer.has_eof)
    for _ in range(3):
        link.near_peer.sock.send(records.record(22, HELLO) + records.record(23, b"still here"))
    link.until(lambda: link.far_peer.received == 30)
    link.near_peer.sock.send(records.record(21, b"\1\0"))
    link.until(lambda: link.reason)
    assert link.reason is CloseReason.FINISHED
    assert link.near_peer.alert is None
    link.close()


@pytest.mark.parametrize("before", [b"", b"\x15\3\3\0\2\1\x5a"], ids=["close_notify", "user_canceled"])
def test_a_handshake_that_the_peer_ends_by_close_notify_is_an_end_and_no_error(before: bytes) -> None:
    link = Rig(Kind("1.2", True))
    assert isinstance(link.near, TLSEnd)
    link.near_peer.pump()
    link.until(lambda: link.near.is_readable)
    assert not link.near.handshake(link.near.take())
    link.near_peer.sock.send(before + b"\x15\3\3\0\2\1\0")
    link.until(lambda: link.near.is_readable)
    with pytest.raises(EOFError):
        link.near.handshake(link.near.take())
    link.link.start()
    link.close()


def test_a_client_that_asks_to_renegotiate_for_ever_and_never_reads_does_not_make_us_grow(
    tmp_path: Path,
) -> None:
    link = Rig(Kind("1.2", True), buffers=10_000)
    records = shake_by_hand(link, tmp_path / "keys")
    link.near_peer.reads = False
    asked = b"".join(records.record(22, HELLO) for _ in range(20_000))
    at = 0
    while link.reason is None:
        with contextlib.suppress(BlockingIOError):
            at += link.near_peer.sock.send(asked[at : at + 65536])
        link.turns(1)
        assert link.near.engine.output_size() < BOUND  # type: ignore[attr-defined]
    assert link.reason is CloseReason.CLIENT_TLS_ERROR
    link.close()


def test_a_peer_that_asks_for_key_updates_for_ever_and_never_reads_does_not_make_us_grow() -> None:
    engine = _openssl.Engine(our_context("1.3", is_server=True).raw, SCRATCH, is_server=True)
    client = Client(hostile.client_config())
    client.start()
    sent = bytearray()

    def send(data: memoryview, _flags: int) -> int:
        sent.extend(bytes(data))
        return len(data)

    def feed(data: bytes, take) -> None:  # type: ignore[no-untyped-def]
        for at in range(0, len(data), 16_000):
            piece = data[at : at + 16_000]
            SCRATCH.wire[: len(piece)] = piece
            take(len(piece))

    feed(client.data_to_send(), engine.handshake)
    engine.flush(send)
    client.receive(bytes(sent))
    feed(client.data_to_send(), engine.handshake)
    # Its reader takes nothing from now on, which the engine learns when it next wants to send.
    assert not engine.flush(lambda _data, _flags: 0)
    before = engine.output_size()
    while engine.failure is None:
        for _ in range(100):
            client.update_keys(request_peer=True)
        feed(client.data_to_send(), engine.decrypt)
        assert engine.output_size() - before < BOUND
    assert engine.failure.reasons == UNREAD_ANSWERS
    engine.free()
