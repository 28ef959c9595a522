"""TLS clients for tests that talk to a tunnel: blocking, with full control of how they end.

with clients.connect(port) as client:          # TLS 1.3 as localhost; see `connect` for more
    client.send(b"ping"); client.read(4); client.close_notify(); client.read_all()
clients.raw(port)                              # a plain socket with a timeout that only a hang reaches
clients.alert_on(sock)                         # the plaintext alert that comes, by name; None at EOF without one
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

from tests.support.backends import reset
from tests.support.wire_peers import client_context, is_cut, sees_cuts
from tlstunnel.tools.tls13.names import AlertDescription

PATIENCE_S = 60.0


class Client:
    """A TLS session over a socket, through memory, so that close_notify and FIN are two things."""

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        name: str = "localhost",
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE_S)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = sees_cuts(context).wrap_bio(self._incoming, self._outgoing, server_hostname=name, session=session)
        self.has_close_notify = False

    def handshake(self) -> Client:
        """Complete the handshake. Raises ssl.SSLError with the alert's name in `reason`."""
        self._do(self.tls.do_handshake)
        return self

    def send(self, data: bytes) -> None:
        """Send all of it."""
        for at in range(0, len(data), 1 << 18):
            self.tls.write(data[at : at + (1 << 18)])
            self._flush()

    def read(self, size: int) -> bytes:
        """Exactly so many bytes, or fewer at the end."""
        data = bytearray()
        while len(data) < size and (piece := self._read(size - len(data))):
            data += piece
        return bytes(data)

    def read_all(self) -> bytes:
        """Everything until the end; `has_close_notify` says whether that was a proper one."""
        data = bytearray()
        while piece := self._read(1 << 18):
            data += piece
        return bytes(data)

    def _read(self, size: int) -> bytes:
        try:
            piece: bytes = self._do(lambda: self.tls.read(size))
        except ssl.SSLZeroReturnError:
            piece = b""
        except ssl.SSLError as exc:
            if is_cut(exc):
                return b""
            raise
        self.has_close_notify = self.has_close_notify or not piece
        return piece

    def close_notify(self, *, fin: bool = False) -> None:
        """Say that nothing more will be sent, with or without the FIN behind it."""
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLSyscallError):
            self.tls.unwrap()
        self._flush()
        if fin:
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a reset."""
        reset(self.sock)

    def close(self) -> None:
        """Close the socket, with no word about it."""
        self.sock.close()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self.sock.sendall(data)

    def _do(self, step):  # type: ignore[no-untyped-def]
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._flush()
                data = self.sock.recv(1 << 18)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
                continue
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush()
                raise
            self._flush()
            return result


@contextlib.contextmanager
def connect(
    port: int,
    *,
    context: ssl.SSLContext | None = None,
    name: str = "localhost",
    host: str = "127.0.0.1",
    session: ssl.SSLSession | None = None,
) -> Iterator[Client]:
    """A client that has completed its handshake."""
    with raw(port, host=host) as sock:
        yield Client(sock, context or client_context(), name, session).handshake()


def raw(port: int, *, host: str = "127.0.0.1") -> socket.socket:
    """A connected plain socket."""
    sock = socket.create_connection((host, port), timeout=PATIENCE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_to_end(sock: socket.socket) -> tuple[bytes, bool]:
    """Everything that comes, and whether a reset ended it."""
    data = bytearray()
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionResetError:
        return bytes(data), True
    return bytes(data), False


def alert_in(data: bytes) -> str | None:
    """The plaintext fatal alert at the end of these records, by name."""
    at, found = 0, None
    while at + 5 <= len(data):
        kind, size = data[at], int.from_bytes(data[at + 3 : at + 5], "big")
        if kind == 21 and size == 2 and data[at + 5] == 2:
            found = AlertDescription(data[at + 6]).name.lower()
        at += 5 + size
    return found


def alert_on(sock: socket.socket) -> str | None:
    """The plaintext fatal alert that comes before the end; a reset instead of the end is a failure."""
    data, was_reset = read_to_end(sock)
    assert not was_reset, f"a reset destroyed what was said: {data!r}"
    return alert_in(data)
