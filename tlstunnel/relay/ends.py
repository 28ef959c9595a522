"""The two kinds of end that a link joins: one in plaintext, one in TLS, with the same methods.

An end owns its socket. It keeps what the reactor's edges said (`is_readable`, `is_writable`), takes bytes from its
socket into the worker's shared plain area (`receive`), sends bytes from there (`send`), and keeps what its peer has not
taken yet (`has_pending`). While something is pending the link does not read the other end, so an end holds at most one
chunk: that is the memory bound of a link (see `relay.link`). `send` and `flush` return how many bytes of plaintext
the kernel took.

Calls use MSG_DONTWAIT on sockets that the kernel believes blocking: it saves the call that would change them.
Methods let OSError through; the link knows which end it came from.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable

from tlstunnel._openssl import RECORD, Engine, Scratch, TLSError
from tlstunnel.relay.reactor import HUNG_UP, READABLE, WRITABLE

_DONTWAIT = socket.MSG_DONTWAIT
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class PlainEnd:
    """An end that speaks plaintext."""

    __slots__ = (
        "_pending", "_plain", "_watch_room", "at_eof", "fd", "has_hung_up", "has_pending", "is_readable", "is_reset",
        "is_shut", "is_writable", "sock",
    )  # fmt: skip
    failure: TLSError | None = None
    is_truncated = False
    is_torn = False
    is_tls = False

    def __init__(self, sock: socket.SocketType, scratch: Scratch, watch_room: Callable[[int], None]) -> None:
        """`watch_room` is called with the descriptor once, when the socket first does not take everything."""
        self.sock = sock
        self._watch_room: Callable[[int], None] | None = watch_room
        self.fd = sock.fileno()
        self._plain = scratch.plain
        self._pending: memoryview | None = None
        self.has_hung_up = self.is_readable = self.has_pending = False
        self.is_writable = True  # a socket starts with an empty send buffer
        self.at_eof = self.is_reset = self.is_shut = False

    @property
    def is_closed(self) -> bool:
        """Whether the descriptor is given back, so that its number may be another's."""
        return self.sock.fileno() != self.fd

    def note(self, events: int) -> None:
        """Keep what the reactor's edges said."""
        if events & READABLE:
            self.is_readable = True
            if events & HUNG_UP:
                self.has_hung_up = True
        if events & WRITABLE:
            self.is_writable = True

    def receive(self, limit: int) -> int:
        """Take at most `limit` bytes into the plain area; sets `at_eof`, and `is_readable` while there may be more."""
        try:
            count = self.sock.recv_into(self._plain, limit, _DONTWAIT)
        except BlockingIOError:
            self.is_readable = False
            return 0
        # A short read emptied the socket, but EOF, and what follows urgent data (tcp(7)), bring no edge.
        self.is_readable = count == limit or (self.has_hung_up and count > 0)
        self.at_eof = count == 0
        return count

    def has_close_notify(self) -> bool:
        """Whether the peer has said its end inside a session."""
        return False

    def buffered(self) -> int:
        """What had been received before the link began: never anything here."""
        return 0

    def note_reset(self, error: OSError) -> None:
        """Sending failed by this. What the peer said before can still be read, but the socket has told its error, and
        the EOF that follows is only one where a FIN came before the reset: then the error is EPIPE (`tcp_reset`)."""
        self.is_reset = self.is_reset or error.errno not in (errno.EPIPE, errno.ENOTCONN)

    def send(self, size: int) -> int:
        """Send the first `size` bytes of the plain area; keep what the socket does not take. How many it took."""
        try:
            sent = self.sock.send(self._plain[:size], _DONTWAIT)
        except BlockingIOError:
            sent = 0
        if sent < size:
            self._pending = memoryview(bytes(self._plain[sent:size]))
            self._block()
        return sent

    def _block(self) -> None:
        """The socket is full: what is pending waits for room."""
        self.has_pending = True
        self.is_writable = False
        if self._watch_room is not None:
            self._watch_room(self.fd)
            self._watch_room = None

    def flush(self) -> int:
        """Send more of what was kept; how many bytes of plaintext the socket took."""
        pending = self._pending
        if pending is None:
            return 0
        try:
            sent = self.sock.send(pending, _DONTWAIT)
        except BlockingIOError:
            sent = 0
        self._pending, self.has_pending = pending[sent:] or None, False
        if self._pending is not None:
            self._block()
        return sent

    def unsent(self) -> int:
        """How much of what was sent the peer's machine has not acknowledged: closing with a reset would destroy it."""
        try:
            return int.from_bytes(fcntl.ioctl(self.fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except OSError:
            return 0

    def shut(self) -> None:
        """Say that nothing more will be sent; the other direction goes on. Only when nothing is pending."""
        self.say_fin()

    def say_goodbye(self) -> None:
        """The same where `close` follows at once and sends the FIN."""
        self.is_shut = True

    def say_fin(self) -> None:
        """Send the FIN alone: an alert was the last word, or the stream was cut."""
        self.is_shut = True
        self.sock.shutdown(socket.SHUT_WR)

    def discard(self) -> bool:
        """Throw away what the peer still sends; whether it may send more."""
        try:
            return self.sock.recv_into(self._plain, 0, _DONTWAIT) > 0
        except BlockingIOError:
            self.is_readable = False
            return True

    def slim(self) -> None:
        """Give back memory that bulk left behind: nothing here."""

    def reset_on_close(self) -> None:
        """Make `close` tell the peer that the stream was cut: a FIN would look like its proper end."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    def close(self) -> None:
        """Close the socket and release what the end holds."""
        self._pending = None
        self.sock.close()


class TLSEnd(PlainEnd):
    """An end whose peer speaks TLS. The engine is the end's to free."""

    __slots__ = (
        "_fin_is_due", "_send", "_untaken", "_wire", "_withheld", "engine", "failure", "is_server", "is_torn",
        "is_truncated",
    )  # fmt: skip
    is_tls = True

    def __init__(
        self,
        sock: socket.SocketType,
        scratch: Scratch,
        watch_room: Callable[[int], None],
        engine: Engine,
        *,
        is_server: bool,
    ) -> None:
        super().__init__(sock, scratch, watch_room)
        self.is_server = is_server
        self._withheld = 0
        self.engine = engine
        self._wire = scratch.wire
        self._send = sock.send
        self._fin_is_due = False
        self._untaken = 0  # of the plaintext that was sent last, what is still pending; never less
        self.failure = None
        self.is_truncated = self.is_torn = False  # torn is: truncated, and inside a record

    def begin(self) -> None:
        """Client: send the first flight."""
        self.engine.handshake(0)
        self.flush()

    def take(self) -> int:
        """Take what has arrived of a handshake into the wire area. 0: nothing yet. Raises EOFError: the peer closed."""
        try:
            count = self.sock.recv_into(self._wire, RECORD, _DONTWAIT)
        except BlockingIOError:
            self.is_readable = False
            return 0
        if count == 0:
            raise EOFError
        if count < RECORD and not self.has_hung_up:
            self.is_readable = False
        return count

    def handshake(self, count: int) -> bool:
        """Go on with the handshake by what was taken, and answer it; whether it is complete.

        Raises:
            TLSError: the handshake failed. What OpenSSL wants to tell the peer is sent as far as the socket takes it.
            EOFError: the peer ended it by close_notify.
        """
        try:
            is_complete = self.engine.handshake(count)
        except TLSError:
            with contextlib.suppress(OSError):  # the alert could not be sent; what failed is the handshake all the same
                self.flush()
            raise
        if is_complete and self.is_server and self.engine.is_tls13():
            # All that is queued now are session tickets. A client that never reads, and closes with tickets unread,
            # resets the connection and with it what it sent itself: they wait for the first bytes it is sent.
            self._withheld = self.engine.kept
        else:
            self.flush()
        return is_complete

    def receive(self, limit: int) -> int:
        try:
            count = self.sock.recv_into(self._wire, limit, _DONTWAIT)
        except BlockingIOError:
            self.is_readable = False
            return 0
        self.is_readable = count == limit or (self.has_hung_up and count > 0)
        if self.at_eof:
            return 0  # what comes after close_notify is ignored (RFC 8446 section 6.1)
        if count == 0:
            # EOF of the connection before close_notify: somebody may have cut it (RFC 8446 section 6.1).
            self.is_truncated = self.at_eof = True
            self.is_torn = self.engine.is_inside_record()
            return 0
        size = self.engine.decrypt(count)
        if self.engine.may_answer:
            self._answer()
        return size

    def has_close_notify(self) -> bool:
        return self.engine.has_ended

    def buffered(self) -> int:
        """Decrypt what came together with the end of the handshake."""
        size = self.engine.decrypt(0)
        self._answer()
        return size

    def _answer(self) -> None:
        """Take note of the end, and send what reading has produced, such as the answer to a key update."""
        engine = self.engine
        if engine.has_ended:
            self.failure = engine.failure
            self.at_eof = True
            self.is_readable = False
        if not self.has_pending and engine.output_size() > self._withheld:
            try:
                self.flush()
            except OSError as exc:  # the peer hears no answer any more; what it said before counts all the same
                self.note_reset(exc)

    def send(self, size: int) -> int:
        if self.engine.send(size, self._send):
            return size
        self._block()
        self._untaken = min(size, self.engine.output_size())
        return size - self._untaken

    def flush(self) -> int:
        self._withheld, before = 0, self._untaken
        if not self.engine.flush(self._send):
            self._block()
            self._untaken = min(before, self.engine.output_size())
            return before - self._untaken
        self._untaken, self.has_pending = 0, False
        if self._fin_is_due:
            self._fin_is_due = False
            self.sock.shutdown(socket.SHUT_WR)
        return before

    def shut(self) -> None:
        """Send close_notify, and the FIN behind it: nothing can follow close_notify (RFC 8446 section 6.1)."""
        self._fin_is_due = True
        self.say_goodbye()

    def say_goodbye(self) -> None:
        self.is_shut = True
        self.engine.close()
        self.flush()

    def slim(self) -> None:
        if not self.engine.output_size():  # session tickets may still be withheld there
            self.engine.slim()

    def close(self) -> None:
        try:
            self.engine.free()
        finally:
            self.sock.close()
