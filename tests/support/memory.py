"""An engine of ours and a session of the standard library, shaking hands in memory.

made = memory.shake(engine, memory.client())        # an `Outcome`: what each side said
memory.server_engine(contexts.server), memory.client_engine(...)
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

from tests.support.wire_peers import client_context
from tlstunnel._openssl import RECORD, Engine, Scratch, TLSError

SCRATCH = Scratch()


class Peer:
    """The other side: an SSLObject over two memory BIOs."""

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        is_server: bool = False,
        name: str = "localhost",
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=is_server,
            server_hostname=None if is_server else name,
            session=session,
        )
        self.is_done = False
        self.error: ssl.SSLError | None = None

    def step(self) -> None:
        """Go on with the handshake."""
        if self.error is None:
            try:
                self.tls.do_handshake()
                self.is_done = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as exc:
                self.error = exc

    def read(self, size: int = 1 << 16) -> bytes:
        """What has come."""
        try:
            data: bytes = self.tls.read(size)
        except ssl.SSLWantReadError:
            data = b""
        return data


@dataclass
class Outcome:
    """How a handshake went."""

    engine: Engine
    peer: Peer
    error: TLSError | None = None

    @property
    def is_good(self) -> bool:
        """Whether both sides are content."""
        return self.error is None and self.peer.error is None and self.peer.is_done

    def to_peer(self) -> None:
        """Carry the engine's output over."""
        self.engine.flush(self._take)

    def _take(self, data: Any, _flags: int) -> int:
        self.peer.incoming.write(bytes(data))
        return len(data)

    def send(self, data: bytes) -> None:
        """From the engine to the peer."""
        SCRATCH.plain[: len(data)] = data
        self.engine.send(len(data), self._take)

    def from_peer(self, take: Any) -> Any:
        """Carry the peer's output over, through `engine.handshake` or `engine.decrypt`; the last result."""
        wire, result = self.peer.outgoing.read(), None
        while wire:
            piece, wire = wire[:RECORD], wire[RECORD:]
            SCRATCH.wire[: len(piece)] = piece
            result = take(len(piece))
        return result


def shake(engine: Engine, peer: Peer, *, is_client: bool = False) -> Outcome:
    """A handshake until both sides are done, or one has refused and the other has heard it."""
    made = Outcome(engine, peer)
    is_done = False
    try:
        if is_client:
            engine.handshake(0)
        for _ in range(10):
            made.to_peer()
            peer.step()
            is_done = bool(made.from_peer(engine.handshake)) or is_done
            if is_done and peer.is_done:
                break
    except TLSError as exc:
        made.error = exc
    made.to_peer()
    peer.step()
    return made


def client(version: str = "1.3", **options: Any) -> Peer:
    """A client that trusts the test CA."""
    return Peer(client_context(version), **options)


def engine_of(context: Any, *, is_server: bool = True) -> Engine:
    """An engine on a context of ours."""
    return Engine(context.raw, SCRATCH, is_server=is_server)
