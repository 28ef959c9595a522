"""Load for a tunnel before an echo service: clients that come and go, and transfers that last. Every flaw is noted.

    with visitors(port, count=3) as crowd, transfers(port, count=2) as long:
        ...reload, kill, drain...
    # leaving checks it: nobody was refused, reset or cut, and every byte came back

A visitor connects, shakes hands, sends a few random bytes, reads them back, says goodbye and waits for the other side's
goodbye. A transfer does the same with a stream that goes on until it is told to end, and compares hashes.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.wire_peers import client_context

PATIENCE_S = 60.0
"""Only a hang reaches it."""
_GAP_S = 0.004
"""Between two visits of one visitor: load, not a wait for anything."""
_PIECE = 32 * 1024


class Load:
    """Threads that use a tunnel until told to stop."""

    def __init__(self, port: Callable[[], int], count: int, work: Callable[[Load, random.Random], None]) -> None:
        self.port = port
        self.flaws: list[str] = []
        """What went wrong, each with the moment."""
        self.served = 0
        """Conversations that came to a good end."""
        self.is_over = threading.Event()
        self._changed = threading.Condition()
        self._is_paused = False
        self._busy = 0
        self._work = work
        self._threads = [threading.Thread(target=self._run, args=(seed,), daemon=True) for seed in range(count)]
        for thread in self._threads:
            thread.start()

    def wait_for(self, count: int) -> None:
        """Until so many more conversations have come to a good end, or something went wrong."""
        with self._changed:
            goal = self.served + count
            assert self._changed.wait_for(lambda: self.served >= goal or self.flaws, PATIENCE_S), (
                "the load stands still"
            )

    def pause(self) -> None:
        """Let what is under way end, and begin nothing new."""
        with self._changed:
            self._is_paused = True
            assert self._changed.wait_for(lambda: self._busy == 0, PATIENCE_S), "the load does not come to rest"

    def go_on(self) -> None:
        """After `pause`."""
        with self._changed:
            self._is_paused = False
            self._changed.notify_all()

    def stop(self) -> None:
        """End everything, each conversation properly."""
        self.is_over.set()
        self.go_on()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a conversation hangs"

    def _run(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.is_over.is_set():
            with self._changed:
                self._changed.wait_for(lambda: not self._is_paused)
                self._busy += 1
            flaw = ""
            try:
                self._work(self, chance)
            except Exception as exc:  # noqa: BLE001 - every one is a flaw
                flaw = f"{time.monotonic():.3f} {type(exc).__name__}: {exc}"
            with self._changed:
                self._busy -= 1
                if flaw:
                    self.flaws.append(flaw)
                else:
                    self.served += 1
                self._changed.notify_all()
            self.is_over.wait(_GAP_S)


def visit(port: int, data: bytes, context: ssl.SSLContext, **how: Any) -> bytes:
    """One visit, to its good end; what came back. Raises what goes wrong."""
    with dial(port, context, **how) as sock:
        sock.sendall(data)
        came = read_exactly(sock, len(data))
        bid_farewell(sock)
    return came


def dial(port: int, context: ssl.SSLContext, *, server_hostname: str = "localhost", **how: Any) -> ssl.SSLSocket:
    """A TLS connection to the tunnel."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    # Without it what follows the handshake waits for its acknowledgement, 40 ms.
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        return context.wrap_socket(raw, server_hostname=server_hostname, **how)
    except BaseException:
        raw.close()
        raise


def read_exactly(sock: ssl.SSLSocket, size: int) -> bytes:
    """So many bytes; an end before them is a flaw."""
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError(f"the end came after {len(data)} of {size} bytes")
        data += piece
    return bytes(data)


def bid_farewell(sock: ssl.SSLSocket) -> None:
    """Say close_notify and wait for the other side's; anything else, or data, is a flaw."""
    sock.unwrap().close()


def _visit(load: Load, chance: random.Random) -> None:
    data = chance.randbytes(chance.randrange(1, 2000))
    if visit(load.port(), data, _CONTEXTS.mine()) != data:
        raise AssertionError("other bytes came back")


def _transfer(load: Load, chance: random.Random) -> None:
    sent, came = hashlib.sha256(), hashlib.sha256()
    with dial(load.port(), _CONTEXTS.mine()) as sock:
        while not load.is_over.wait(_GAP_S):
            piece = chance.randbytes(_PIECE)
            sent.update(piece)
            sock.sendall(piece)
            came.update(read_exactly(sock, len(piece)))
        bid_farewell(sock)
    if sent.digest() != came.digest():
        raise AssertionError("other bytes came back")


class _Contexts:
    """One context for each thread: sessions are not shared between them."""

    def __init__(self) -> None:
        self._local = threading.local()

    def mine(self) -> ssl.SSLContext:
        if not hasattr(self._local, "context"):
            self._local.context = client_context()
        context: ssl.SSLContext = self._local.context
        return context


_CONTEXTS = _Contexts()


@contextlib.contextmanager
def visitors(port: int | Callable[[], int], count: int = 3, *, flaws: int = 0) -> Iterator[Load]:
    """Clients that come and go until the block is left, which checks that each was served, but for so many `flaws`."""
    yield from _load(port, count, _visit, flaws)


@contextlib.contextmanager
def transfers(port: int | Callable[[], int], count: int = 2) -> Iterator[Load]:
    """Transfers that last until the block is left, which checks that every byte came back."""
    yield from _load(port, count, _transfer)


def _load(
    port: int | Callable[[], int], count: int, work: Callable[[Load, random.Random], None], flaws: int = 0
) -> Iterator[Load]:
    load = Load(port if callable(port) else lambda: port, count, work)
    try:
        yield load
    finally:
        load.stop()
    assert len(load.flaws) <= flaws, f"{len(load.flaws)} flaws, {load.served} served; the first: {load.flaws[:5]}"
    assert load.served, "nobody was served"
