"""Streams that can be checked: what is sent and what arrives is hashed, in both directions at once, on one thread.

    ours = Stream(1 << 20, seed=1)
    with backend(lambda: Stream(1 << 20, seed=2)) as service:           # sends its stream, and hashes what it gets
        ...
        came = talk(Plain(sock), ours)                                  # or TLS(sock, context, server_hostname=...)
        assert came == Stream(1 << 20, seed=2).digest()
        assert service.got() == ours.digest()

`talk` half-closes when its stream is sent, and goes on reading to the end. A stream is cut from a random block at an
offset that moves, so bytes that are lost, doubled or swapped change the hash.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import random
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.support import backends

PATIENCE_S = 60.0
"""Only a hang reaches it."""
_BLOCK = 1 << 20
_READ = 1 << 18
_STEP = 7919
_AHEAD = 1 << 19


@functools.cache
def _random_block(seed: int) -> memoryview:
    return memoryview(random.Random(seed).randbytes(2 * _BLOCK))


@dataclass(frozen=True)
class Stream:
    """So many bytes, in chunks of a size; the same for the same arguments."""

    size: int
    seed: int = 0
    chunk: int = 1 << 18

    def chunks(self) -> Iterator[memoryview]:
        """The stream, piece by piece."""
        block, at = _random_block(self.seed), 0
        left = self.size
        while left:
            piece = block[at : at + min(left, self.chunk)]
            left -= len(piece)
            at = (at + _STEP) % _BLOCK
            yield piece

    def digest(self) -> Digest:
        """What whoever receives all of it must have."""
        hashed = hashlib.sha256()
        for piece in self.chunks():
            hashed.update(piece)
        return Digest(self.size, hashed.hexdigest())


@dataclass(frozen=True)
class Digest:
    """How much came, and its SHA-256."""

    size: int
    sha256: str


class Plain:
    """A socket, driven by `talk`."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._unsent = memoryview(b"")
        self._is_ending = False
        self.is_done_sending = False

    @property
    def wants_more(self) -> bool:
        """Whether it takes another piece to send."""
        return not self._unsent

    @property
    def has_output(self) -> bool:
        """Whether something waits for room."""
        return bool(self._unsent)

    def put(self, piece: memoryview) -> None:
        self._unsent = piece

    def end(self) -> None:
        """Half-close once all is sent."""
        self._is_ending = True

    def flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
        if self._is_ending and not self._unsent and not self.is_done_sending:
            self.is_done_sending = True
            self.sock.shutdown(socket.SHUT_WR)

    def take(self) -> bytes | None:
        """What has come; empty at the end, `None` when nothing is there yet."""
        try:
            return self.sock.recv(_READ)
        except BlockingIOError:
            return None


class TLS(Plain):
    """A socket with Python's own TLS, on OpenSSL of the system; the handshake is complete when it is made."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, **how: Any) -> None:
        super().__init__(sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self._incoming, self._outgoing, **how)
        self._is_shut = False
        self._early: list[bytes] = []
        sock.settimeout(PATIENCE_S)
        while True:
            try:
                self.object.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(self._outgoing.read())
                data = sock.recv(_READ)
                if not data:
                    raise EOFError from None
                self._incoming.write(data)
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    sock.sendall(self._outgoing.read())
                raise
        sock.sendall(self._outgoing.read())

    @property
    def wants_more(self) -> bool:
        return len(self._unsent) + self._outgoing.pending < _AHEAD

    @property
    def has_output(self) -> bool:
        return bool(self._unsent or self._outgoing.pending)

    def put(self, piece: memoryview) -> None:
        self.object.write(piece)

    def flush(self) -> None:
        if self._is_ending and not self._is_shut:
            self._is_shut = True
            # Python goes on to read within unwrap(), and takes data that lies there already for an error.
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                while part := self.object.read(_READ):
                    self._early.append(part)
            with contextlib.suppress(ssl.SSLWantReadError):
                self.object.unwrap()
        with contextlib.suppress(BlockingIOError):
            while self.has_output:
                if not self._unsent:
                    self._unsent = memoryview(self._outgoing.read())
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
        if self._is_shut and not self.has_output:
            self.is_done_sending = True

    def take(self) -> bytes | None:
        parts, self._early = self._early, []
        while True:
            try:
                part = self.object.read(_READ)
            except ssl.SSLWantReadError:
                if parts:
                    return b"".join(parts)
            except ssl.SSLZeroReturnError:
                return b"".join(parts)
            else:
                if not part:
                    return b"".join(parts)
                parts.append(part)
                continue
            try:
                data = self.sock.recv(_READ)
            except BlockingIOError:
                return None
            if not data:
                raise EOFError("connection closed without close_notify")
            self._incoming.write(data)


def talk(end: Plain, outgoing: Stream, *, half_close: bool = True) -> Digest:
    """Send a stream, half-close, and receive to the end; both at once. What came.

    Args:
        half_close: otherwise this side closes only after the other one has.
    """
    end.sock.setblocking(False)
    pieces = outgoing.chunks()
    piece = next(pieces, None)
    hashed, size = hashlib.sha256(), 0
    poll = select.poll()
    is_open = True
    while is_open or not end.is_done_sending:
        while piece is not None and end.wants_more:
            end.put(piece)
            end.flush()
            piece = next(pieces, None)
        if piece is None and (half_close or not is_open):
            end.end()
        end.flush()
        if is_open:
            data = end.take()
            if data == b"":
                is_open = False
                continue
            if data:
                hashed.update(data)
                size += len(data)
                continue
        if piece is not None and end.wants_more:
            continue
        if not is_open and end.is_done_sending:
            break
        wants = (select.POLLIN if is_open else 0) | (select.POLLOUT if end.has_output else 0)
        poll.register(end.sock, wants)
        if not poll.poll(PATIENCE_S * 1000):
            raise AssertionError(f"nothing moves; {size} bytes had come")
    return Digest(size, hashed.hexdigest())


def receive(sock: socket.socket) -> Digest:
    """Read to the end, before a word is said."""
    hashed, size = hashlib.sha256(), 0
    while data := sock.recv(_READ):
        hashed.update(data)
        size += len(data)
    return Digest(size, hashed.hexdigest())


class Backend(backends.Backend):
    """A service whose connections are each answered by a function, and what that returns is kept."""

    def __init__(self, answer: Callable[[socket.socket], Any]) -> None:
        self._answer = answer
        self._results: list[Any] = []
        self._changed = threading.Condition()
        super().__init__(socket.create_server(("127.0.0.1", 0), backlog=64), self._keep)

    def got(self) -> Any:
        """What the next connection's answer returned; raises what it raised."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._results, PATIENCE_S), "the backend got no connection to its end"
            result = self._results.pop(0)
        if isinstance(result, BaseException):
            raise result
        return result

    def _keep(self, sock: socket.socket) -> None:
        result: Any
        try:
            result = self._answer(sock)
        except Exception as exc:  # noqa: BLE001 - raised again in the test, by got()
            result = exc
        with self._changed:
            self._results.append(result)
            self._changed.notify_all()


@contextlib.contextmanager
def backend(answer: Callable[[socket.socket], Any]) -> Iterator[Backend]:
    """A service on a free port of 127.0.0.1."""
    service = Backend(answer)
    try:
        yield service
    finally:
        service.close()
