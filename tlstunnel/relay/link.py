"""A link: two ends, and bytes moved between them.

Theory of operation. The reactor says that an end is ready; the link then does two things, always in this order:
`_move` bytes, a bounded amount, and `_settle` what follows from them: half-close, finish, come back.

Memory. While a sink has something pending its source is not read, so each direction holds at most one chunk, in the
sink: plaintext in a plain end, ciphertext in a TLS end. A chunk is START_CHUNK until a direction has moved PROVEN
bytes, more than the kernel's buffers of both sides swallow, so only a peer that really reads is ever given big chunks;
and at most BULK_LINKS of a worker's links use big chunks at a time. A peer that never reads costs START_CHUNK, its
encryption and the allocator's rounding: under 128 KiB (benchmarks: never-reading clients).

Ending. Every path leads to `finish`, once. How the ends are told depends on the reason:

    finished       both sides have ended; both were told already; close
    quiet          a timeout: close_notify and FIN, since nothing was moving and nothing is cut
    cut            an error of the other side: no close_notify and a reset for a plaintext peer, so that nobody takes a
                   stream that was cut for one that ended (RFC 8446 section 6.1)

A reset from a peer that had been told everything is an ending like any other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from tlstunnel._openssl import CHUNK, Scratch, TLSError
from tlstunnel.outcome import CloseReason
from tlstunnel.relay.ends import PlainEnd
from tlstunnel.relay.farewell import Farewell
from tlstunnel.relay.halfclose import Direction, Event, LinkState, after, link_state
from tlstunnel.relay.reactor import Reactor

START_CHUNK = 64 * 1024
PROVEN = 16 * 1024 * 1024
QUIET_S = 5.0
"""How long a link stands still before it gives back what bulk left behind."""

NEVER = float("inf")

_QUIET_REASONS = frozenset((CloseReason.IDLE_TIMEOUT, CloseReason.HALF_CLOSE_TIMEOUT))


class Limits:
    """The timeouts of a service's links, in seconds; `NEVER` for none. Shared by all its links."""

    __slots__ = ("half_close_s", "idle_s", "is_strict")

    def __init__(self, *, idle_s: float, half_close_s: float, is_strict: bool) -> None:
        self.idle_s, self.half_close_s, self.is_strict = idle_s, half_close_s, is_strict


class Link:
    """Joins a client's end and a backend's end, until `finish`.

    Args:
        cells: where the live byte counts are kept; `forward_cell` and `reverse_cell` are this service's places there.
        ends_at: the monotonic time of max_lifetime.
        on_finished: called once, with the reason, a detail for people, and the error if it was ours.
        on_closed: called once for each end, when its descriptor is closed.
    """

    __slots__ = (
        "_cells", "_forward_cell", "_is_bulk", "_is_finished", "_is_slim", "_limits", "_on_closed", "_on_finished",
        "_reactor", "_reverse_cell", "_scratch", "_stamp", "backend", "client", "deadline", "ends_at", "forward",
        "forward_bytes", "reverse", "reverse_bytes",
    )  # fmt: skip

    def __init__(
        self,
        reactor: Reactor,
        client: PlainEnd,
        backend: PlainEnd,
        limits: Limits,
        *,
        scratch: Scratch,
        cells: Any,
        forward_cell: int,
        reverse_cell: int,
        ends_at: float,
        on_finished: Callable[[Link, CloseReason, str, Exception | None], None],
        on_closed: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self.client = client
        self.backend = backend
        self._limits = limits
        self._cells, self._forward_cell, self._reverse_cell = cells, forward_cell, reverse_cell
        self._on_finished, self._on_closed = on_finished, on_closed
        self._is_finished = False
        self._is_slim = True
        self._is_bulk = False
        self._scratch = scratch
        self.ends_at = ends_at
        self.forward = self.reverse = Direction.FLOWING
        self.forward_bytes = self.reverse_bytes = 0
        self._stamp = reactor.now
        self.deadline = min(ends_at, reactor.now + limits.idle_s)

    def start(self) -> None:
        """Take over both ends and move what is there already."""
        reactor = self._reactor
        reactor.hand_over(self.client.fd, self)
        reactor.hand_over(self.backend.fd, self)
        reactor.hold(self)
        try:
            # What came with the last flight of a handshake lies decrypted nowhere yet, and no edge will report it.
            for source, sink in ((self.client, self.backend), (self.backend, self.client)):
                size = source.buffered()
                if size:
                    self._count(source, size)
                    sink.send(size)
        except OSError as exc:
            self._finish_broken(sink, exc)
            return
        except TLSError as exc:
            self._finish_tls(sink, exc)
            return
        self.on_ready(-1, 0)

    # What the reactor calls.

    def on_ready(self, fd: int, events: int) -> None:
        if self._is_finished:
            return
        client, backend = self.client, self.backend
        if fd == client.fd:
            client.note(events)
        elif fd == backend.fd:
            backend.note(events)
        if self._move(client, backend) and self._move(backend, client):
            self._settle()

    def on_deadline(self, now: float) -> None:
        if now >= self.ends_at:
            self.finish(CloseReason.MAX_LIFETIME)
            return
        is_open = self.state is LinkState.OPEN
        quiet_s = now - self._stamp
        allowed_s = self._limits.idle_s if is_open else self._limits.half_close_s
        if quiet_s >= allowed_s:
            self.finish(CloseReason.IDLE_TIMEOUT if is_open else CloseReason.HALF_CLOSE_TIMEOUT)
            return
        if not self._is_slim and quiet_s >= QUIET_S:
            self._slim()
            self.client.slim()
            self.backend.slim()
        self._aim()

    def on_crash(self, error: Exception) -> None:
        self.finish(CloseReason.INTERNAL_ERROR, type(error).__name__, error)

    # Bytes.

    def _move(self, source: PlainEnd, sink: PlainEnd) -> bool:
        """Move at most one chunk from source to sink. False when that ended the link."""
        active = sink
        try:
            if sink.has_pending:
                if not sink.is_writable:
                    return True
                sink.flush()
                self._stamp = self._reactor.now
                if sink.has_pending:
                    return True
            if not source.is_readable:
                return True
            active = source
            size = source.receive(self._chunk(source))
            if size:
                active = sink
                self._count(source, size)
                sink.send(size)
            return True
        except OSError as exc:
            self._finish_broken(active, exc)
        except TLSError as exc:
            self._finish_tls(active, exc)
        return False

    def _chunk(self, source: PlainEnd) -> int:
        """How much to read at once. The right to whole chunks goes back when the link is quiet or ends."""
        if self._is_bulk:
            return CHUNK
        moved = self.forward_bytes if source is self.client else self.reverse_bytes
        if moved < PROVEN or not self._scratch.bulk_left:
            return START_CHUNK
        self._is_bulk, self._is_slim = True, False
        self._scratch.bulk_left -= 1
        self.deadline = min(self.deadline, self._reactor.now + QUIET_S)
        return CHUNK

    def _slim(self) -> None:
        """Give back what bulk left behind."""
        self._is_slim = True
        if self._is_bulk:
            self._is_bulk = False
            self._scratch.bulk_left += 1

    def _count(self, source: PlainEnd, size: int) -> None:
        self._stamp = self._reactor.now
        if source is self.client:
            self.forward_bytes += size
            self._cells[self._forward_cell] += size
        else:
            self.reverse_bytes += size
            self._cells[self._reverse_cell] += size

    # What follows from them.

    def _settle(self) -> None:
        client, backend = self.client, self.backend
        if client.at_eof or backend.at_eof:
            for end in (client, backend):
                if end.failure is not None and not (backend if end is client else client).has_pending:
                    self._finish_tls(end, end.failure)
                    return
                if end.is_truncated and self._limits.is_strict:
                    self.finish(CloseReason.TRUNCATED_STRICT, "client" if end is client else "backend")
                    return
            before = self.state
            try:
                self.forward = self._advance(self.forward, client, backend)
                self.reverse = self._advance(self.reverse, backend, client)
            except OSError:
                pass  # the peer reset after its end: its own direction is over, and that is what shutting down says
            state = self.state
            if state is LinkState.FINISHED:
                is_truncated = client.is_truncated or backend.is_truncated
                self.finish(CloseReason.TRUNCATED if is_truncated else CloseReason.FINISHED)
                return
            if state is not before:
                self._aim()
        elif self._is_slim and (client.is_fat or backend.is_fat):
            self._is_slim = False
            self.deadline = min(self.deadline, self._reactor.now + QUIET_S)
        if (client.is_readable and not backend.has_pending) or (backend.is_readable and not client.has_pending):
            self._reactor.again(self)

    @staticmethod
    def _advance(state: Direction, source: PlainEnd, sink: PlainEnd) -> Direction:
        """Bring one direction as far as it can go now."""
        if state is Direction.FLOWING and source.at_eof:
            state = after(state, Event.EOF)
        if state is Direction.ENDING and not sink.has_pending:
            if not sink.is_shut:
                sink.shut()
            if not sink.has_pending:
                state = after(state, Event.FLUSHED)
        return state

    @property
    def state(self) -> LinkState:
        """Open, half-closed or finished."""
        return link_state(self.forward, self.reverse)

    def _aim(self) -> None:
        """Set the deadline to the next moment at which something may be due."""
        allowed_s = self._limits.idle_s if self.state is LinkState.OPEN else self._limits.half_close_s
        due = self._stamp + allowed_s
        if not self._is_slim:
            due = min(due, self._stamp + QUIET_S)
        self.deadline = min(due, self.ends_at)

    # The end.

    def _finish_broken(self, end: PlainEnd, error: OSError) -> None:
        """A socket failed. When that side had been told everything already, nothing is lost by it."""
        is_client = end is self.client
        told = self.reverse if is_client else self.forward
        if told is Direction.CLOSED and end.at_eof:
            self.finish(CloseReason.FINISHED)
        elif isinstance(error, TimeoutError):
            self.finish(CloseReason.CLIENT_TIMEOUT if is_client else CloseReason.BACKEND_TIMEOUT)
        elif isinstance(error, ConnectionError):
            self.finish(CloseReason.CLIENT_RESET if is_client else CloseReason.BACKEND_RESET)
        else:
            self.finish(
                CloseReason.CLIENT_RESET if is_client else CloseReason.BACKEND_RESET, error.strerror or str(error)
            )

    def _finish_tls(self, end: PlainEnd, error: TLSError) -> None:
        is_client = end is self.client
        if any("alert" in reason for reason in error.reasons):
            self.finish(CloseReason.CLIENT_ALERT if is_client else CloseReason.BACKEND_ALERT, str(error))
        else:
            self.finish(CloseReason.CLIENT_TLS_ERROR if is_client else CloseReason.BACKEND_TLS_ERROR, str(error))

    def finish(self, reason: CloseReason, detail: str = "", error: Exception | None = None) -> None:
        """End the link: tell both peers what can be told, release both ends, report once. Idempotent."""
        if self._is_finished:
            return
        self._is_finished = True
        self._slim()
        reactor = self._reactor
        reactor.release(self)
        is_over = reason in (CloseReason.FINISHED, CloseReason.TRUNCATED)
        for end in (self.client, self.backend):
            with contextlib.suppress(OSError, TLSError):
                if reason in _QUIET_REASONS and not end.has_pending and not end.is_shut:
                    end.shut()
            if is_over and end.at_eof and not end.has_pending:
                reactor.forget(end.fd)
                end.close()
                self._on_closed()
            elif end.is_tls or reason in _QUIET_REASONS or is_over:
                Farewell(reactor, end, self._on_closed)
            else:
                with contextlib.suppress(OSError):
                    end.reset_on_close()
                reactor.forget(end.fd)
                end.close()
                self._on_closed()
        self._on_finished(self, reason, detail, error)
