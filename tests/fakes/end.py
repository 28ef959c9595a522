"""An end without a socket: what its peer sends is put in, what it was sent is taken out, room is what the test gives.

It keeps the contract of `relay.ends.PlainEnd`: tests/fakes/test_fake_end.py runs the same script on both.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any

from tests.fakes.reactor import FakeReactor
from tlstunnel._openssl import Scratch, TLSError
from tlstunnel.relay.ends import PlainEnd
from tlstunnel.relay.reactor import EPOLLIN, HUNG_UP

_descriptors = itertools.count(100_000)
EOF = b""


class FakeEnd(PlainEnd):
    """Set `arriving` through `put`, `put_eof` and `put_error`; look at `sent`, `fins`, `was_reset`, `is_closed`."""

    def __init__(self, reactor: FakeReactor, scratch: Scratch, *, room: float = float("inf")) -> None:
        self.fd = next(_descriptors)
        self._plain = scratch.plain
        self._reactor = reactor
        self._watch_room = reactor.watch_room
        self._pending: Any = None
        self._hung_up = False
        self.is_readable = False
        self.is_writable = True
        self.has_pending = False
        self.at_eof = False
        self.is_reset = False
        self.is_shut = False
        self.truncated = False
        self.is_torn = False
        self.breaks: TLSError | None = None
        self._arriving: deque[bytes | OSError] = deque()
        self.sent = bytearray()
        self.room = room
        self.fails_to_send: OSError | None = None
        self._has_failed = False
        self.reads: list[int] = []
        """The limit of every read."""
        self.unacknowledged = 0
        self.fins = 0
        self.was_reset = False
        self.closes = 0
        self.slimmed = 0

    @property
    def is_closed(self) -> bool:
        return self.closes > 0

    @property
    def failure(self) -> TLSError | None:  # type: ignore[override]
        return self.breaks if self.at_eof else None

    # What the peer does; each is an edge.

    def put(self, data: bytes) -> None:
        """The peer sends."""
        self._arriving.append(data)
        self._reactor.ready(self.fd, EPOLLIN)

    def put_eof(self, *, truncated: bool = False) -> None:
        """The peer says that it has finished, or just vanishes."""
        self.truncated = truncated
        self._arriving.append(EOF)
        self._reactor.ready(self.fd, EPOLLIN | HUNG_UP)

    def put_error(self, error: OSError) -> None:
        """The peer resets, or the system gives up on it."""
        self._arriving.append(error)
        self._reactor.ready(self.fd, EPOLLIN | HUNG_UP)

    def give_room(self, room: float = float("inf")) -> None:
        """The peer reads."""
        self.room = room
        if self.fd in self._reactor.wants_room:
            self._reactor.ready(self.fd, 4)  # EPOLLOUT

    # What the link calls.

    def receive(self, limit: int) -> int:
        self.reads.append(limit)
        if not self._arriving:
            self.is_readable = False
            self.at_eof = self.at_eof or self._has_failed  # as tcp(7) sockets do: the error was told once
            return 0
        data = self._arriving.popleft()
        if isinstance(data, OSError):
            raise data
        if data == EOF:
            self.at_eof, self.is_truncated = True, self.truncated
            self.is_readable = False
            return 0
        taken, rest = data[:limit], data[limit:]
        if rest:
            self._arriving.appendleft(rest)
        self.is_readable = bool(self._arriving) or self._hung_up
        self._plain[: len(taken)] = taken
        return len(taken)

    def send(self, size: int) -> int:
        data = bytes(self._plain[:size])
        sent = self._send(data)
        if sent < size:
            self._pending = data[sent:]
            self._block()
        return sent

    def flush(self) -> int:
        if self._pending is None:
            return 0
        sent = self._send(self._pending)
        self._pending = self._pending[sent:] or None
        if self._pending is None:
            self.has_pending = False
        else:
            self._block()
        return sent

    def unsent(self) -> int:
        return self.unacknowledged

    def _send(self, data: bytes) -> int:
        if self.fails_to_send is not None:
            self._has_failed = True
            raise self.fails_to_send
        assert not self.is_shut, "sent after the end was said"
        assert not self.closes, "sent after close"
        taken = int(min(self.room, len(data)))
        self.room -= taken
        self.sent += data[:taken]
        return taken

    def say_fin(self) -> None:
        assert not self.is_shut, "FIN said twice"
        self.is_shut = True
        if self.fails_to_send is not None:
            raise self.fails_to_send
        self.fins += 1

    def discard(self) -> bool:
        if not self._arriving:
            self.is_readable = False
            return True
        data = self._arriving.popleft()
        if isinstance(data, OSError):
            raise data
        return data != EOF

    def slim(self) -> None:
        self.slimmed += 1

    def reset_on_close(self) -> None:
        self.was_reset = True

    def close(self) -> None:
        assert not self.closes, "closed twice"
        self.closes += 1
