"""Peers on non-blocking sockets, pumped by the test's own loop: one in plaintext, one in TLS (the standard library's).

    peer.send(b"...")        queue bytes; peer.finish() half-closes once they are out
    peer.pump()              move what can be moved now; whether anything moved
    peer.received, .digest   what has come: how many bytes, and their SHA-256; .data holds the first megabyte
    peer.has_eof             the other end half-closed properly: FIN, or close_notify
    peer.is_cut              TLS: FIN without close_notify
    peer.was_reset, .alert   how else it ended

`reads = False` makes a peer that never reads.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import socket
import ssl
import struct

from tests.support import certificates, hostile
from tlstunnel.tools.tls13.client import Client
from tlstunnel.tools.tls13.connection import Connection
from tlstunnel.tools.tls13.events import ApplicationData, Closed, HandshakeComplete
from tlstunnel.tools.tls13.failure import PeerAlert
from tlstunnel.tools.tls13.messages import KeyUpdate
from tlstunnel.tools.tls13.names import alert_name
from tlstunnel.tools.tls13.server import Server

_KEPT = 1 << 20
_PIECE = 1 << 18


def make_bytes(size: int, seed: int = 0) -> bytes:
    """So many bytes without a period, the same for the same arguments."""
    return hashlib.shake_128(f"{seed}".encode()).digest(size)


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def sees_cuts(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same context; a FIN without close_notify is an error in its sessions, as `is_cut` says.

    Python before 3.11.4 takes it for an end.
    """
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    return context


def is_cut(error: ssl.SSLError) -> bool:
    """Whether a FIN without close_notify is what went wrong. Python before 3.11.4 has no type of its own for it."""
    return isinstance(error, ssl.SSLEOFError) or error.reason == "UNEXPECTED_EOF_WHILE_READING"


class PlainPeer:
    """The other end of a plaintext connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)
        self.reads = True
        self.most_at_once = _PIECE
        self.received = 0
        self.data = bytearray()
        self._hash = hashlib.sha256()
        self.has_eof = False
        self.is_cut = False
        self.was_reset = False
        self._is_broken = False
        self.alert: str | None = None
        self._queue = bytearray()
        self._is_finishing = False
        self.has_finished = False

    @property
    def digest(self) -> str:
        """SHA-256 of what has come."""
        return self._hash.hexdigest()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.has_eof or self.is_cut or self.was_reset or self.alert is not None

    @property
    def is_idle(self) -> bool:
        """Whether everything queued is out."""
        return not self._queue and (self.has_finished or not self._is_finishing)

    def send(self, data: bytes) -> None:
        """Queue bytes."""
        self._queue += data

    def finish(self) -> None:
        """Half-close when everything is out."""
        self._is_finishing = True

    def reset(self) -> None:
        """Close with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close the socket as the kernel sees fit."""
        self.sock.close()

    def pump(self) -> bool:
        """Send and receive what can be now."""
        if self.sock.fileno() < 0:
            return False
        moved = False
        with contextlib.suppress(BlockingIOError):
            try:
                moved |= self._write()
            except ConnectionError as exc:
                self._queue.clear()
                # The error is told once: what had come can still be read, and the end of it looks like an EOF.
                self._is_broken = self._is_broken or isinstance(exc, ConnectionResetError)
        if self.reads and not self.is_over:
            try:
                moved |= self._read()
            except BlockingIOError:
                pass
            except ConnectionError:
                self.was_reset = True
        return moved

    def _write(self) -> bool:
        moved = self._write_queue()
        if self._is_finishing and not self.has_finished and not self._queue and self._can_say_end():
            self._say_end()
            self.has_finished = moved = True
        return moved

    def _write_queue(self) -> bool:
        if not self._queue:
            return False
        sent = self.sock.send(self._queue[: self.most_at_once])
        del self._queue[:sent]
        return True

    def _can_say_end(self) -> bool:
        return True

    def _say_end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def _read(self) -> bool:
        data = self.sock.recv(self.most_at_once)
        if data:
            self._take(data)
        elif self._is_broken:
            self.was_reset = True
        else:
            self.has_eof = True
        return True

    def _take(self, data: bytes) -> None:
        self.received += len(data)
        self._hash.update(data)
        if len(self.data) < _KEPT:
            self.data += data


class TLSPeer(PlainPeer):
    """The other end of a TLS connection. `says_fin` adds the FIN to close_notify at once, as most programs do."""

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, *, is_server: bool, session: ssl.SSLSession | None = None
    ) -> None:
        super().__init__(sock)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = sees_cuts(context).wrap_bio(
            self.incoming, self.outgoing, server_side=is_server, session=session,
            server_hostname=None if is_server else "localhost",
        )  # fmt: skip
        self.is_shaken = False
        self.says_fin = True
        self.says_close_notify = True
        self._wire = bytearray()

    @property
    def is_idle(self) -> bool:
        return super().is_idle and not self._wire and not self.outgoing.pending

    def _write_queue(self) -> bool:
        moved = self._shake()
        if self.is_shaken and self._queue and len(self._wire) < 4 * _PIECE:
            piece = bytes(self._queue[: self.most_at_once])
            sent = self.tls.write(piece)
            del self._queue[:sent]
            moved = True
        return self._flush() or moved

    def _flush(self) -> bool:
        self._wire += self.outgoing.read()
        if not self._wire:
            return False
        sent = self.sock.send(self._wire)
        del self._wire[:sent]
        return True

    def _can_say_end(self) -> bool:
        return self.is_shaken and not self._wire

    def _say_end(self) -> None:
        if self.says_close_notify:
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLError):
                self.tls.unwrap()
        self._flush()
        if self.says_fin:
            self.sock.shutdown(socket.SHUT_WR)

    def say_fin(self) -> None:
        """The FIN alone."""
        self.sock.shutdown(socket.SHUT_WR)

    def _read(self) -> bool:
        data = self.sock.recv(self.most_at_once)
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()
        self._shake()
        if self.is_shaken:
            self._decrypt()
        if not data and not self.is_over:
            self.is_cut = True
        with contextlib.suppress(BlockingIOError):
            self._flush()
        return True

    def _decrypt(self) -> None:
        try:
            while True:
                piece = self.tls.read(_PIECE)
                if not piece:
                    self.has_eof = True
                    return
                self._take(piece)
        except ssl.SSLWantReadError:
            return
        except ssl.SSLZeroReturnError:
            self.has_eof = True
        except ssl.SSLError as exc:
            self._break(exc)

    def _shake(self) -> bool:
        if self.is_shaken or self.is_over:
            return False
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as exc:
            self._break(exc)
            return False
        self.is_shaken = True
        return True

    def _break(self, error: ssl.SSLError) -> None:
        if is_cut(error):
            self.is_cut = True
        else:
            self.alert = error.reason or str(error)


class HandPeer(PlainPeer):
    """A TLS 1.3 peer that says what no library would: `records` are its raw records, sent in their order."""

    def __init__(self, sock: socket.socket, *, is_server: bool) -> None:
        super().__init__(sock)
        self.connection: Connection
        if is_server:
            self.connection = Server(hostile.server_config())
        else:
            client = self.connection = Client(hostile.client_config())
            client.start()
        self.is_shaken = False
        self.wire = bytearray()
        """What is to be sent and what the kernel has not taken."""
        self.heard = 0
        """Bytes that have come, of whatever kind."""

    @property
    def is_idle(self) -> bool:
        return not self.wire

    def finish(self) -> None:
        self.say(21, b"\1\0")

    def send(self, data: bytes) -> None:
        for at in range(0, len(data), 1 << 14):
            self.say(23, data[at : at + (1 << 14)])

    def say(self, content_type: int, content: bytes) -> None:
        """A record under the current keys."""
        self.connection.send_raw(content_type, content)

    def ask_for_keys(self) -> None:
        """A key update that asks for one in return."""
        # Not `update_keys`: that is for connections that the peer has not ended.
        hand = self.connection
        hand._send(KeyUpdate(True))
        hand._end_flight()
        keys = hand._channel.write_keys
        assert keys is not None
        hand._channel.write_keys = hand._next_keys(keys, hand.role)

    def _write_queue(self) -> bool:
        self.wire += self.connection.data_to_send()
        if not self.wire:
            return False
        del self.wire[: self.sock.send(self.wire[:_PIECE])]
        return True

    def _read(self) -> bool:
        data = self.sock.recv(self.most_at_once)
        self.heard += len(data)
        if not data:
            self.is_cut = True
            return True
        try:
            events = self.connection.receive(data)
        except PeerAlert as exc:
            self.alert = alert_name(exc.alert)
            return True
        for event in events:
            if isinstance(event, ApplicationData):
                self._take(event.data)
            self.is_shaken = self.is_shaken or isinstance(event, HandshakeComplete)
            self.has_eof = self.has_eof or isinstance(event, Closed)
        return True


_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@functools.cache
def server_context(version: str = "1.3", *, asks: bool = False) -> ssl.SSLContext:
    """A server for localhost; `asks` demands a client certificate of the test CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = certificates.server("localhost", "127.0.0.1")
    context.load_cert_chain(pair.certificate, pair.key)
    context.minimum_version = context.maximum_version = _VERSIONS[version]
    if asks:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates.ca().certificate)
    return context


def client_context(version: str = "1.3", pair: certificates.Pair | None = None) -> ssl.SSLContext:
    """A client that trusts the test CA, with a certificate of its own if one is given."""
    context = ssl.create_default_context(cafile=str(certificates.ca().certificate))
    context.minimum_version = context.maximum_version = _VERSIONS[version]
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context
