"""The clients of `bench relay`, in a process of its own: what they do costs the tunnel's process nothing.

It is told what to do as JSON lines on standard input, and answers each with one on standard output. A load that is
slower than the tunnel measures itself, so it does as little as it can: what is downloaded is counted and thrown away
inside the kernel (MSG_TRUNC), without decrypting it; handshakes are made BATCH at a time, so that the tunnel always has
one to work on; certificates are not verified. Every answer carries this process's own CPU time.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import sys
import time
from typing import Any

from tlstunnel._openssl import Engine, Scratch
from tlstunnel.config.model import TLSSettings
from tlstunnel.tls.context import Context, client_context
from tlstunnel.tools.bench.backend import COMMAND
from tlstunnel.tools.bench.refusals import group_name
from tlstunnel.x509.trust import CABundle

BATCH = 16
_CHUNK = 256 * 1024
_EXCHANGE = 64


class LoadError(Exception):
    """A connection did not do what it should."""


class _Client:
    """One TLS connection, on a blocking socket."""

    def __init__(self, load: _Load, session: Any = None) -> None:
        self._area = load.area
        self.sock = socket.create_connection(("127.0.0.1", load.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.engine = Engine(load.context.raw, load.area, is_server=False)
        if session is not None:
            self.engine.resume(session)
        self.engine.handshake(0)
        self.engine.flush(self._send)

    def _send(self, data: Any, _flags: int) -> int:
        self.sock.sendall(data)
        return len(data)

    def _receive(self, limit: int) -> int:
        count = self.sock.recv_into(self._area.wire, limit)
        if not count:
            raise LoadError("tlstunnel closed the connection")
        return count

    def shake(self) -> None:
        """Complete the handshake."""
        while not self.engine.handshake(self._receive(_CHUNK)):
            self.engine.flush(self._send)
        self.engine.flush(self._send)

    def say(self, data: bytes) -> None:
        """Send a few bytes."""
        self._area.plain[: len(data)] = data
        self.engine.send(len(data), self._send)

    def fill(self, size: int) -> None:
        """Send so many bytes of whatever."""
        while size > 0:
            self.engine.send(min(size, _CHUNK), self._send)
            size -= _CHUNK

    def hear(self, size: int) -> None:
        """Receive at least so many bytes. What came with the end of the handshake counts."""
        size -= self.engine.decrypt(0)
        while size > 0:
            size -= self.engine.decrypt(self._receive(_CHUNK))
            if self.engine.failure is not None:
                raise LoadError(str(self.engine.failure))

    def count_to_end(self, least: int) -> None:
        """Throw away everything up to the end, which must not come early."""
        count = total = 0
        while (count := self.sock.recv_into(self._area.wire, _CHUNK, socket.MSG_TRUNC)) > 0:
            total += count
        if total < least:
            raise LoadError(f"{total} bytes came instead of {least}")

    def close(self) -> None:
        """Say goodbye and close."""
        self.engine.close()
        try:
            self.engine.flush(self._send)
        except ConnectionError:
            return  # the tunnel was first
        finally:
            self.engine.free()
            self.sock.close()


class _Load:
    """What there is to do, and what it is done with."""

    def __init__(self, port: int, settings: TLSSettings) -> None:
        self.port = port
        self.area = Scratch()
        nobody = CABundle(certificates_der=(), subjects=(), begins=(), expiries=(), source="", digest="")
        self.context: Context = client_context(settings, nobody)
        self.context.raw.set_verify(0)  # SSL_VERIFY_NONE: whose certificate it is does not matter here
        self._session: Any = None
        self._held: list[_Client] = []

    def handshakes(self, count: int, *, resumed: bool) -> dict[str, Any]:
        """`count` times connect, handshake, one byte echoed, close. Resumed ones all resume the same session."""
        if resumed and self._session is None:
            self._shake(1, None)
        session = self._session if resumed else None
        done = 0
        while done < count:
            self._shake(min(BATCH, count - done), session)
            done += BATCH
        return {"done": count}

    def _shake(self, count: int, session: Any) -> None:
        clients = [_Client(self, session) for _ in range(count)]
        for client in clients:
            client.shake()
            client.say(b"E!")
        for client in clients:
            client.hear(1)
            if client.engine.is_resumed() != (session is not None):
                raise LoadError("a session was not resumed" if session is not None else "a session was resumed")
        if session is None:
            self._session = clients[0].engine.session()
        for client in clients:
            client.close()

    def download(self, size: int) -> dict[str, Any]:
        """So many bytes from the backend."""
        client = self._begin(b"D", size)
        client.count_to_end(size)
        client.close()
        return {"bytes": size}

    def upload(self, size: int) -> dict[str, Any]:
        """So many bytes to the backend, until it says that they have come."""
        client = self._begin(b"U", size)
        client.fill(size)
        client.hear(1)
        client.close()
        return {"bytes": size}

    def trips(self, count: int, connections: int) -> dict[str, Any]:
        """`count` exchanges of 64 bytes, one at a time, over so many connections in turn; each one's microseconds."""
        clients = [self._begin(b"E", None) for _ in range(connections)]
        data = b"e" * _EXCHANGE
        for client in clients:
            client.say(data)
            client.hear(_EXCHANGE)
        taken, clock = [], time.perf_counter
        for number in range(count):
            client = clients[number % connections]
            begun = clock()
            client.say(data)
            client.hear(_EXCHANGE)
            taken.append((clock() - begun) * 1e6)
        for client in clients:
            client.close()
        return {"us": taken}

    def bulk(self) -> dict[str, Any]:
        """Download until the next line comes on standard input; says so when it has begun."""
        client = self._begin(b"D", 1 << 40)
        total = client.sock.recv_into(self.area.wire, _CHUNK, socket.MSG_TRUNC)
        print(json.dumps({"begun": True}), flush=True)  # noqa: T201 - an answer
        while not select.select([sys.stdin], [], [], 0)[0]:
            total += client.sock.recv_into(self.area.wire, _CHUNK, socket.MSG_TRUNC)
        sys.stdin.readline()
        client.engine.free()
        client.sock.close()
        return {"bytes": total}

    def negotiated(self) -> dict[str, Any]:
        """What a handshake agrees on."""
        client = self._begin(b"E", None)
        engine = client.engine
        found = {"version": engine.version(), "suite": engine.cipher(), "group": group_name(engine)}
        client.close()
        return found

    def _begin(self, what: bytes, size: int | None) -> _Client:
        client = _Client(self)
        client.shake()
        client.say(what if size is None else what + size.to_bytes(COMMAND - 1, "big"))
        return client


def main() -> None:
    """Obey until standard input ends."""
    settings = json.loads(sys.stdin.readline())
    settings["tls"]["alpn"] = tuple(settings["tls"]["alpn"])
    load = _Load(settings["port"], TLSSettings(**settings["tls"]))
    gc.disable()
    while line := sys.stdin.readline():
        command = json.loads(line)
        begun, cpu = time.perf_counter(), time.process_time()
        try:
            answer = getattr(load, command.pop("do"))(**command)
        except (OSError, LoadError) as exc:
            answer = {"failure": str(exc) or type(exc).__name__}
        answer |= {"seconds": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu}
        gc.collect()
        print(json.dumps(answer), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
