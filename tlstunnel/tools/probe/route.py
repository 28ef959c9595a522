"""How to reach the server, as often as there are questions: one name lookup, then connections with a deadline each.

Nothing here waits longer than it was told to. The lookup runs in a thread of its own because the system's resolver
knows no deadline; connecting, STARTTLS and the conversation each have theirs, however slowly the other end drips.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from tlstunnel.address import Target, TCPAddress, UnixAddress
from tlstunnel.connection.starttls.conversation import Conversation
from tlstunnel.errors import words_of
from tlstunnel.tools.probe.trouble import HungUp, OutOfTime, Silent, Unreachable

MAX_RECEIVED = 1 << 20
"""No honest handshake is longer."""
_CHUNK = 1 << 16
Address = tuple[int, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long to wait, in seconds: for a name and a connection, for a conversation, for everything."""

    connect_s: float = 5.0
    answer_s: float = 10.0
    total_s: float = 300.0


class Line:
    """One connection. Use it as a context manager; leaving closes the socket."""

    def __init__(self, sock: socket.socket, deadline: float, answer_s: float, end: float) -> None:
        self.received = 0
        self.first = b""
        """The first bytes that came after STARTTLS, to be shown if they are no TLS."""
        self.connected_s = 0.0
        """How long connecting took."""
        self.starttls_s: float | None = None
        """How long the plaintext before TLS took."""
        self.first_byte_at: float | None = None
        """When the first byte came, by the monotonic clock."""
        self.silence_means = _NO_TLS
        """What may be the trouble where nothing comes."""
        self._sock = sock
        self._deadline = min(deadline, end)
        self._answer_s = answer_s
        self._end = end

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            Silent, OutOfTime: it does not go out.
            HungUp: nobody takes it.
        """
        self._wait()
        try:
            self._sock.sendall(data)
        except TimeoutError:
            raise self._silent() from None
        except OSError as exc:
            raise HungUp(f"{_reason(exc)} while we were sending") from exc

    def receive(self) -> bytes:
        """What comes next; nothing at the end of input.

        Raises:
            Silent, OutOfTime: nothing came in time, or the server talks without end.
            HungUp: the connection was reset.
        """
        return self.receive_until(None)

    def receive_until(self, deadline: float | None) -> bytes:
        """Like `receive`, with an earlier deadline of its own by the monotonic clock."""
        self._wait(deadline)
        try:
            data = self._sock.recv(_CHUNK)
        except TimeoutError:
            raise self._silent() from None
        except OSError as exc:
            raise HungUp(_reason(exc)) from exc
        if data and self.first_byte_at is None:
            self.first_byte_at = time.monotonic()
        self.received += len(data)
        self.first = (self.first + data[:64])[:64]
        if self.received > MAX_RECEIVED:
            raise Silent(f"the server sent over {MAX_RECEIVED >> 20} MiB without an answer; gave up", self.received)
        return data

    def shorten(self, seconds: float) -> None:
        """Let the conversation end this soon, if it would not anyway."""
        self._deadline = min(self._deadline, time.monotonic() + seconds)

    def restart(self) -> None:
        """Count from here what came: TLS begins."""
        self.received, self.first, self.first_byte_at = 0, b"", None

    def _wait(self, deadline: float | None = None) -> None:
        left = min(self._deadline, deadline or self._deadline) - time.monotonic()
        if left <= 0:
            raise self._silent()
        self._sock.settimeout(left)

    def _silent(self) -> Silent | OutOfTime:
        if time.monotonic() >= self._end:
            return OutOfTime(_OVER)
        if self.received:
            text = f"the server began to answer, but was not done within {self._answer_s:g}s; it may be overloaded"
        else:
            text = silence(self._answer_s, self.silence_means)
        return Silent(text, self.received)


_NO_TLS = "it may speak no TLS, or only after STARTTLS, which `tlstunnel probe --starttls` asks for"
_OVER = "the time for the whole probe was over; give it more with --max-time"
_OTHER_PROTOCOL = "it may speak another protocol, or TLS from the first byte; give the right --starttls, or none"
_NO_HELLO = "it agreed to TLS, and may be overloaded; look at its log"


def silence(seconds: float, meaning: str = _NO_TLS) -> str:
    """What is said of a server that never answers."""
    return f"the server said nothing within {seconds:g}s; {meaning}"


class Route:
    """Opens connections to one server. `open` may be called from several threads."""

    def __init__(
        self, target: Target, limits: Limits | None = None, *, starttls: Callable[[], Conversation] | None = None
    ) -> None:
        self.target = target
        self.limits = limits or Limits()
        self.connections = 0
        self._starttls = starttls
        self._end = time.monotonic() + self.limits.total_s
        self._addresses: list[Address] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_over = False

    @property
    def address(self) -> str | None:
        """The address that is talked to, once there is one; None for a unix socket."""
        if not self._addresses or isinstance(self.target, UnixAddress):
            return None
        return str(self._addresses[0][1][0])

    def stop(self) -> None:
        """End the connections there are, and open no more: the next one raises `OutOfTime`."""
        with self._lock:
            self._is_over = True
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def resolve(self) -> float:
        """Look the name up, once.

        Returns:
            Seconds it took.

        Raises:
            Unreachable: it has no address, or none in time.
        """
        start = time.monotonic()
        if isinstance(self.target, UnixAddress):
            self._addresses = [(socket.AF_UNIX, self.target.path)]
        else:
            self._addresses = look_up(self.target, self.limits.connect_s)
        return time.monotonic() - start

    @contextlib.contextmanager
    def open(self, *, answer_s: float | None = None) -> Generator[Line, None, None]:
        """A connection on which TLS may begin. The deadline of its conversation starts now.

        Raises:
            Unreachable, Silent, HungUp: it did not come about.
            OutOfTime: the probe has taken as long as it may.
            StartTLSError: the server does not go on to TLS.
        """
        if self._is_over or time.monotonic() >= self._end:
            raise OutOfTime(_OVER)
        start = time.monotonic()
        sock = self._connect()
        connected = time.monotonic()
        with self._lock:
            if self._is_over:  # it was stopped while we connected, and nobody would end this one
                sock.close()
                raise OutOfTime(_OVER)
            self.connections += 1
            self._open.add(sock)
        wait = min(answer_s or self.limits.answer_s, self.limits.answer_s)
        try:
            with Line(sock, connected + wait, wait, self._end) as line:
                line.connected_s = connected - start
                if self._starttls is not None:
                    line.silence_means = _OTHER_PROTOCOL
                    _upgrade(self._starttls(), line)
                    line.silence_means = _NO_HELLO
                    line.starttls_s = time.monotonic() - connected
                    line.restart()
                yield line
        finally:
            with self._lock:
                self._open.discard(sock)

    def _connect(self) -> socket.socket:
        if not self._addresses:
            self.resolve()
        deadline = min(time.monotonic() + self.limits.connect_s, self._end)
        problem = "no address"
        for family, where in list(self._addresses):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(left)
                connect(sock, where)
                if family != socket.AF_UNIX:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except TimeoutError:
                sock.close()
                problem = f"no answer within {self.limits.connect_s:g}s"
            except OSError as exc:
                sock.close()
                problem = _reason(exc)
            else:
                # From now on always the same one: the answers are to be those of one server.
                self._addresses = [(family, where)]
                return sock
        what = "the path" if isinstance(self.target, UnixAddress) else "host and port"
        raise Unreachable(f"{problem}; check {what}")


def connect(sock: socket.socket, where: Any) -> None:
    """Connect, and believe it only if somebody else is at the other end.

    Where nobody listens on a port of this machine from which the kernel also takes the ports of connections, it may
    take that very port, and the socket is connected to itself (RFC 9293 section 3.5).

    Raises:
        OSError: as `socket.connect`.
    """
    sock.connect(where)
    if sock.family != socket.AF_UNIX and sock.getsockname() == sock.getpeername():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leaves no TIME_WAIT on the port
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


def look_up(target: TCPAddress, timeout_s: float | None) -> list[Address]:
    """The addresses of a name: each a family and what to connect to.

    Args:
        timeout_s: how long to wait for the system's resolver; None for as long as it takes.

    Raises:
        Unreachable: it has no address, or none in time.
    """
    answers: queue.SimpleQueue[list[Address] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            answers.put([(family, where) for family, _, _, _, where in found])
        except OSError as exc:
            answers.put(exc)
        except UnicodeError:
            answers.put(socket.gaierror("no name"))

    threading.Thread(target=ask, daemon=True, name="name lookup").start()
    try:
        found = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise Unreachable(f"no answer from the name servers within {timeout_s:g}s; try an address") from None
    if isinstance(found, OSError):
        raise Unreachable("the name has no address; check its spelling") from found
    return found


def _upgrade(conversation: Conversation, line: Line) -> None:
    """Run the plaintext before TLS."""
    outgoing = next(conversation)
    while True:
        data = b""
        if outgoing:
            line.send(outgoing)
        else:
            data = line.receive()
            if not data:
                raise HungUp("the server hung up before TLS began; give the right --starttls")
        try:
            outgoing = conversation.send(data)
        except StopIteration:
            return


def _reason(exc: OSError) -> str:
    return words_of(exc)
