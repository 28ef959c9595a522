"""Reaching a backend.

Addresses that are literal, and unix sockets, are connected to in the reactor itself: one non-blocking connect, which on
loopback is usually complete when the call returns. Names take trio: resolved (`names`), and all addresses raced as
RFC 8305 describes (happy eyeballs), by trio's own `open_tcp_stream`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from tlstunnel.address import Target, TCPAddress, UnixAddress
from tlstunnel.config.model import Keepalive
from tlstunnel.connection.refusal import RefusedError
from tlstunnel.errors import words_of
from tlstunnel.outcome import CloseReason

_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; Python has no name for it before 3.12
_BUSY_RETRY_S = 0.02
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
FIRST_REST_S = 1.0
MAX_REST_S = 60.0

_NAMED_REASONS = {
    CloseReason.BACKEND_REFUSED: (errno.ECONNREFUSED, errno.ECONNRESET),
    # A path that is not there, leads through a file or in a circle; or what is there is another kind of socket.
    CloseReason.BACKEND_NO_SOCKET: (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENOTSOCK, errno.EPROTOTYPE),
    # Permissions of a unix socket; for TCP a packet filter, a security module or the unit's own restrictions.
    CloseReason.BACKEND_PERMISSION: (errno.EACCES, errno.EPERM),
    CloseReason.BACKEND_CONNECT_TIMEOUT: (errno.ETIMEDOUT,),
    CloseReason.BACKEND_NO_DESCRIPTORS: (errno.EMFILE, errno.ENFILE),
    # Which of the two it is depends on whether the port was to be chosen at connect or at bind (ip(7), connect(2)).
    CloseReason.BACKEND_NO_PORT: (errno.EADDRNOTAVAIL, errno.EADDRINUSE),
    CloseReason.BACKEND_NO_MEMORY: (errno.ENOBUFS, errno.ENOMEM),
}
_REASONS = {number: reason for reason, numbers in _NAMED_REASONS.items() for number in numbers}
"""What connect(2), socket(2), ip(7), tcp(7) and unix(7) may say; all else, the network's own words (ENETUNREACH,
EHOSTUNREACH, ENETDOWN, EAFNOSUPPORT ...), means that there is no way to the backend."""
_SELF_CONNECTS = 3
DEFAULT_KEEPALIVE = Keepalive()
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class SourceError(OSError):
    """`source_address` cannot be used; the message says why."""


def dial_error(target: Target, error: OSError) -> RefusedError:
    """What the system said about a target, as a close reason."""
    if isinstance(error, SourceError):
        return RefusedError(CloseReason.BACKEND_NO_SOURCE, str(error))
    if isinstance(error, socket.gaierror):
        return RefusedError(CloseReason.BACKEND_UNRESOLVABLE, f"{target}: {words_of(error)}")
    causes = _leaves(error)
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return RefusedError(CloseReason.BACKEND_UNRESOLVABLE, f"{target}: {words_of(cause)}")
    first = next((cause for cause in causes if cause.errno in _REASONS), causes[0])
    reason = _REASONS.get(first.errno or 0, CloseReason.BACKEND_UNREACHABLE)
    if isinstance(first, TimeoutError):
        reason = CloseReason.BACKEND_CONNECT_TIMEOUT
    return RefusedError(reason, f"{target}: {_words(first)}")


def _words(error: OSError) -> str:
    """What the system says, without the address that trio puts before it: the target has been named."""
    text = words_of(error)
    plain = os.strerror(error.errno).lower() if error.errno else ""
    return plain if plain and text.endswith(plain) else text


def _leaves(error: BaseException) -> list[OSError]:
    """The errors of the single attempts, which trio puts beneath the one it raises."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return [leaf for inner in cause.exceptions for leaf in _leaves(inner)] or [OSError(str(error))]
    if isinstance(cause, OSError):
        return _leaves(cause)
    return [error] if isinstance(error, OSError) else [OSError(str(error))]


class Dialer:
    """Knows one target and how to begin a connection to it."""

    __slots__ = ("_address", "_failures", "_family", "_keepalive", "_source", "_zone", "rests_until", "target", "text")

    def __init__(
        self, target: Target, source: str | None = None, keepalive: Keepalive | None = DEFAULT_KEEPALIVE
    ) -> None:
        self.target = target
        self.text = str(target)
        self._source = source if isinstance(target, TCPAddress) else None
        self.rests_until = 0.0
        """Until when others are tried first; 0 for a target that has not failed lately."""
        self._failures = 0
        self._family: int | None = None
        self._address: Any = None
        self._zone = ""
        self._keepalive = keepalive
        if isinstance(target, UnixAddress):
            self._family, self._address = socket.AF_UNIX, target.path
        elif target.is_literal:
            host, _, self._zone = target.host.partition("%")
            if ":" in host:
                self._family, self._address = socket.AF_INET6, (host, target.port, 0, 0)
            else:
                self._family, self._address = socket.AF_INET, (host, target.port)

    def rest(self, now: float) -> None:
        """It failed: leave it alone for a while, twice as long each time."""
        self.rests_until = now + min(MAX_REST_S, FIRST_REST_S * 2.0**self._failures)
        self._failures = min(self._failures + 1, 10)

    def wake(self) -> None:
        """It was reached."""
        self.rests_until, self._failures = 0.0, 0

    def begin(self) -> tuple[socket.SocketType, bool] | None:
        """Start a connection without waiting: the socket, and whether it is connected already.

        `None` when that takes trio: see `finish_slowly`.

        Raises:
            RefusedError: it failed at once.
        """
        if self._family is None:
            return None
        try:
            sock = socket.SocketType(self._family, _STREAM, 0)
        except OSError as exc:
            raise dial_error(self.target, exc) from None
        try:
            if self._source is not None:
                self._bind(sock, self._source)
            if self._family != socket.AF_UNIX:
                set_up(sock, self._keepalive)
            code = sock.connect_ex((*self._address[:3], _scope(self._zone)) if self._zone else self._address)
        except OSError as exc:
            sock.close()
            raise dial_error(self.target, exc) from None
        except BaseException:
            sock.close()
            raise
        if code == 0:
            return sock, True
        if code == errno.EINPROGRESS:
            return sock, False
        sock.close()
        if code == errno.EAGAIN:
            return None  # a unix socket's queue is full: the backend is slow to accept
        raise dial_error(self.target, OSError(code, os.strerror(code)))

    def _bind(self, sock: socket.SocketType, source: str) -> None:
        try:
            # The port is chosen at connect, when it need only be free towards this target (ip(7)).
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            host, _, zone = source.partition("%")
            sock.bind((host, 0, 0, _scope(zone)) if zone else (host, 0))
        except OSError as exc:
            raise self._source_error(exc) from None

    def _source_error(self, error: OSError) -> SourceError:
        return SourceError(f"source_address {self._source}: {_words(error)}")

    def _check_source(self) -> None:
        """
        Raises:
            SourceError: it was the source address that failed; trio does not tell.
        """
        if self._source is not None:
            with socket.socket(socket.AF_INET6 if ":" in self._source else socket.AF_INET) as sock:
                self._bind(sock, self._source)

    def is_there(self, sock: socket.SocketType) -> bool:
        """Whether a socket that `begin` started is connected.

        Where nobody listens on a port of this machine from which the kernel also takes the ports of connections
        (ip_local_port_range), it may take that very port. Then SYN meets SYN, as when two open at once (RFC 9293
        section 3.5), and the socket would hear its own bytes.

        Raises:
            RefusedError: it is, to itself. The socket is the caller's to close.
        """
        try:
            peer = sock.getpeername()
            if self._family == socket.AF_UNIX or sock.getsockname() != peer:
                return True
        except OSError:
            return False
        _forget_port(sock)
        raise dial_error(self.target, _nobody_there())

    def check(self, sock: socket.SocketType) -> bool:
        """After an edge on a socket that `begin` started: whether it is connected; False means not yet.

        Raises:
            RefusedError: it failed. The socket is the caller's to close.
        """
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise dial_error(self.target, OSError(code, os.strerror(code)))
        return self.is_there(sock)

    def slowly(self, timeout_s: float) -> Callable[[], Awaitable[socket.SocketType]]:
        """The async function that connects where `begin` could not.

        **Cancellation**: closes what it had opened.
        """

        lack: list[OSError] = []

        async def connect() -> socket.SocketType:
            with trio.move_on_after(min(timeout_s, 1e9)):
                if isinstance(self.target, TCPAddress):
                    try:
                        return await _connect_name(self.target, self._source, self._keepalive, lack)
                    except OSError:
                        self._check_source()
                        raise
                return await self._connect_busy()
            raise lack[0] if lack else TimeoutError(errno.ETIMEDOUT, "not accepted in time")

        return connect

    async def _connect_busy(self) -> socket.SocketType:
        while True:
            await trio.sleep(_BUSY_RETRY_S)
            try:
                begun = self.begin()
            except RefusedError as exc:
                raise ConnectionRefusedError(errno.ECONNREFUSED, exc.refusal.detail) from None
            if begun is not None:
                return begun[0]


def set_up(sock: Any, keepalive: Keepalive | None) -> None:
    """Small writes go out at once, and a peer that has vanished is noticed. What a listening socket is told, those that
    it accepts inherit. (The three calls for the times take a microsecond, of the 450 that a connection costs.)"""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, keepalive is not None)
    if keepalive is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, keepalive.idle_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, keepalive.interval_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, keepalive.count)


async def _race(target: TCPAddress, source: str | None, lack: list[OSError]) -> trio.SocketStream:
    """Try all addresses of a name, as RFC 8305 says.

    A race takes a descriptor for each address, where a connection counts with one. While others' races have them all,
    this one waits: they end, and then there is one for everybody who was accepted. `lack` holds what it waits for.
    """
    while True:
        lack.clear()
        try:
            return await trio.open_tcp_stream(target.host, target.port, local_address=source)
        except OSError as exc:
            if not all(leaf.errno in _NO_DESCRIPTOR for leaf in _leaves(exc)):
                raise
            lack.append(exc)
        await trio.sleep(_BUSY_RETRY_S)


async def _connect_name(
    target: TCPAddress, source: str | None, keepalive: Keepalive | None, lack: list[OSError]
) -> socket.SocketType:
    for _ in range(_SELF_CONNECTS):
        stream = await _race(target, source, lack)
        if stream.socket.getsockname() == stream.socket.getpeername():
            # The name may have another address, where somebody listens.
            _forget_port(stream.socket)
            stream.socket.close()
            continue
        try:
            set_up(stream.socket, keepalive)
            return _detached(stream.socket)
        except BaseException:
            stream.socket.close()
            raise
    raise _nobody_there()


def _detached(sock: trio.socket.SocketType) -> socket.SocketType:
    """The socket as the reactor wants it."""
    family = sock.family
    return socket.SocketType(family, _STREAM, 0, fileno=sock.detach())


def _forget_port(sock: Any) -> None:
    """Have the socket leave nothing behind when it is closed: TIME_WAIT would keep its port from whoever is to listen
    there (RFC 9293 section 3.6.1)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def _nobody_there() -> OSError:
    """What the kernel would have said, had it taken another port to come from."""
    return ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


def _scope(zone: str) -> int:
    """The number of an interface, which changes when that comes back: asked for at each connection.

    Raises:
        OSError: there is none of this name.
    """
    try:
        return socket.if_nametoindex(zone)
    except OSError:
        if zone.isdigit():
            return int(zone)
        raise OSError(errno.ENODEV, f'there is no interface "{zone}"') from None
