"""Plaintext and TLS services on loopback, served by threads: what stands behind a tunnel in a test.

    with backends.serve(backends.echo) as backend:
        backend.port

A handler gets the accepted socket (with a timeout that only a hang reaches) and may do as it likes; the socket is
closed after it. What it raises fails the test when the block is left, except what a peer's reset or absence causes.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.ports import free_port

PATIENCE_S = 60.0
Handler = Callable[[socket.socket], object]


class Backend:
    """A listening service."""

    def __init__(self, sock: socket.socket, handler: Handler, context: ssl.SSLContext | None = None) -> None:
        self._sock = sock
        self._handler = handler
        self._context = context
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.errors: list[BaseException] = []
        self.count = 0
        """Connections accepted."""
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def port(self) -> int:
        """Its port."""
        return int(self._sock.getsockname()[1])

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            self.count += 1
            with self._lock:
                self._open.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE_S)
        try:
            if self._context is not None:
                tls = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                sock = tls
                tls.do_handshake()
            self._handler(sock)
        except (ConnectionError, ssl.SSLError, TimeoutError):
            pass
        except OSError as exc:
            # Shutting down what a peer has reset already says that it is not connected.
            if sock.fileno() >= 0 and exc.errno != errno.ENOTCONN:
                self.errors.append(exc)
        except BaseException as exc:  # noqa: BLE001 - reported by the test that waits for it
            self.errors.append(exc)
        finally:
            sock.close()

    def close(self) -> None:
        """Accept nothing more, end what is open, and report what handlers raised."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._acceptor.join(PATIENCE_S)
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for error in self.errors:
            raise error


@contextlib.contextmanager
def serve(
    handler: Handler,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    path: Path | None = None,
    context: ssl.SSLContext | None = None,
) -> Iterator[Backend]:
    """A service until the block is left; on a unix socket if a path is given, in TLS if a context is."""
    if path is not None:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        sock.listen(64)
    else:
        sock = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=64)
    backend = Backend(sock, handler, context)
    try:
        yield backend
    finally:
        backend.close()


unused_port = free_port
"""For a backend that is not there."""


def echo(sock: socket.socket) -> int:
    """Send back what comes until it ends, then end; how many bytes it was."""
    size = 0
    while data := sock.recv(1 << 18):
        sock.sendall(data)
        size += len(data)
    half_close(sock)
    return size


def read_all(sock: socket.socket) -> bytes:
    """Everything until the end."""
    data = bytearray()
    while piece := sock.recv(65536):
        data += piece
    return bytes(data)


def half_close(sock: socket.socket) -> None:
    """Say that nothing more will be sent. In TLS that waits for the peer's close_notify too."""
    if isinstance(sock, ssl.SSLSocket):
        sock.unwrap().close()
    else:
        sock.shutdown(socket.SHUT_WR)


def reset(sock: socket.socket) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
