"""A link: two ends, and bytes moved between them.

Theory of operation. The reactor tells a flow that its source is ready. While the link is calm, both ends open and
nothing pending, the flow moves what is there and nothing follows from it: that is every small exchange. Otherwise the
link does two things, always in this order: `_serve` both flows, a bounded amount, and `settle` what follows from that:
half-close, finish, come back.

Memory. While a sink has something pending its source is not read, so each direction holds at most one chunk, in the
sink: plaintext in a plain end, ciphertext in a TLS end. A chunk is START_CHUNK until a direction has moved PROVEN
bytes, more than the kernel's buffers of both sides swallow, so only a peer that really reads is ever given big chunks;
and at most BULK_LINKS of a worker's links use big chunks at a time. A peer that never reads costs START_CHUNK, its
encryption and the allocator's rounding: under 128 KiB (ladder: start-chunk).

Ending. Every path leads to `finish`, once. How the ends are told depends on the reason:

    finished       both sides have ended; both were told already; close
    quiet          a timeout: close_notify and FIN, since nothing was moving and nothing is cut
    cut            an error of the other side: no close_notify and a reset for a plaintext peer, so that nobody takes a
                   stream that was cut for one that ended (RFC 8446 section 6.1)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

from tlstunnel._openssl import CHUNK, FAT, Scratch, TLSError
from tlstunnel.outcome import CloseReason
from tlstunnel.relay.ends import PlainEnd
from tlstunnel.relay.farewell import Farewell
from tlstunnel.relay.halfclose import Direction, Event, LinkState, after, link_state
from tlstunnel.relay.reactor import EPOLLIN, Reactor

START_CHUNK = 64 * 1024
PROVEN = 16 * 1024 * 1024
QUIET_S = 1.0
"""How long a link stands still before it gives back what its handshake, and bulk, left behind."""

NEVER = float("inf")

_QUIET_REASONS = frozenset((CloseReason.IDLE_TIMEOUT, CloseReason.HALF_CLOSE_TIMEOUT))


class Limits(NamedTuple):
    """The timeouts of a service's links, in seconds; `NEVER` for none. Shared by all its links."""

    idle_s: float
    half_close_s: float
    is_strict: bool


class Flow:
    """One direction of a link. Hears of the edges of its source."""

    __slots__ = ("cell", "chunk", "link", "moved", "sink", "source", "state")

    def __init__(self, link: Link, source: PlainEnd, sink: PlainEnd, cell: int) -> None:
        self.link, self.source, self.sink, self.cell = link, source, sink, cell
        self.moved = 0
        self.chunk = START_CHUNK  # how much is read at once
        self.state = Direction.FLOWING

    def on_ready(self, fd: int, events: int, take: Callable[[], int] | None = None) -> None:
        """The source's socket had these edges. With -1, for the link: move at most one chunk, or what `take` finds."""
        link = self.link
        if fd >= 0 and (events != EPOLLIN or not link.is_calm):
            link.on_edges(self, events)
            return
        active = source = self.source
        try:
            size = source.receive(self.chunk) if take is None else take()
            if size:
                active = self.sink
                link.stamp = link.reactor.now
                self.moved += size
                link.cells[self.cell] += size
                if size > FAT:
                    link.note_bulk(self)
                active.send(size)
        except OSError as exc:
            link.finish_broken(active, exc)
        except TLSError as exc:
            link.finish_tls(active, exc)
        if fd >= 0 and (source.is_readable or self.sink.has_pending or source.at_eof):
            link.settle()

    def on_crash(self, error: Exception) -> None:
        self.link.on_crash(error)

    def advance(self, *, is_last: bool) -> None:
        """Bring the direction's end as far as it can go now. The last direction's FIN is left to `close`."""
        sink = self.sink
        if self.state is Direction.FLOWING and self.source.at_eof:
            self.state = after(self.state, Event.EOF)
        if self.state is Direction.ENDING and not sink.has_pending:
            if not sink.is_shut:
                if is_last:
                    sink.say_goodbye()
                else:
                    sink.shut()
            if not sink.has_pending:
                self.state = after(self.state, Event.FLUSHED)


class Link:
    """Joins a client's end and a backend's end, until `finish`.

    Args:
        cells: where the live byte counts are kept; `forward_cell` and `reverse_cell` are this service's places there.
        ends_at: the monotonic time of max_lifetime.
        on_finished: called once, with the reason, a detail for people, and the error if it was ours.
        on_closed: called once for each end, when its descriptor is closed.
    """

    __slots__ = (
        "_is_finished", "_is_slim", "_limits", "_on_closed", "_on_finished", "_scratch", "backend", "cells", "client",
        "deadline", "ends_at", "forward", "is_calm", "reactor", "reverse", "stamp", "state",
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
        self.reactor = reactor
        self.client = client
        self.backend = backend
        self._limits = limits
        self.cells = cells
        self._on_finished, self._on_closed = on_finished, on_closed
        self._is_finished = self.is_calm = False
        self._is_slim = False  # the handshake leaves something to give back as well
        self._scratch = scratch
        self.ends_at = ends_at
        self.forward = Flow(self, client, backend, forward_cell)
        self.reverse = Flow(self, backend, client, reverse_cell)
        self.state = LinkState.OPEN
        self.stamp = reactor.now
        self.deadline = min(ends_at, reactor.now + min(limits.idle_s, QUIET_S))

    def start(self) -> None:
        """Take over both ends and move what is there already."""
        reactor = self.reactor
        reactor.hand_over(self.client.fd, self.forward)
        reactor.hand_over(self.backend.fd, self.reverse)
        reactor.hold(self)
        for flow in (self.forward, self.reverse):
            if not self._is_finished:
                # What came with the last flight of a handshake lies decrypted nowhere yet, and no edge will report it.
                flow.on_ready(-1, 0, flow.source.buffered)
        self.on_ready(-1, 0)

    # What the reactor calls.

    def on_ready(self, _fd: int, _events: int) -> None:
        """Another turn, as asked for."""
        self._serve(self.forward)
        self._serve(self.reverse)
        self.settle()

    def on_edges(self, incoming: Flow, events: int) -> None:
        """The same, where more than a small exchange is going on."""
        end = incoming.source
        end.note(events)
        if end.has_pending:
            # It may have room now, and what the other end has left to give, or its end, brings no edge of its own.
            self._serve(self.reverse if incoming is self.forward else self.forward)
        self._serve(incoming)
        self.settle()

    def on_deadline(self, now: float) -> None:
        if now >= self.ends_at:
            self.finish(CloseReason.MAX_LIFETIME)
            return
        is_open = self.state is LinkState.OPEN
        quiet_s = now - self.stamp
        allowed_s = self._limits.idle_s if is_open else self._limits.half_close_s
        if quiet_s >= allowed_s:
            self.finish(CloseReason.IDLE_TIMEOUT if is_open else CloseReason.HALF_CLOSE_TIMEOUT)
            return
        if not self._is_slim and quiet_s >= QUIET_S:
            self._slim()
            self.client.slim()
            self.backend.slim()
            self._scratch.has_slimmed = True
        self._aim()

    def on_crash(self, error: Exception) -> None:
        self.finish(CloseReason.INTERNAL_ERROR, type(error).__name__, error)

    # Bytes.

    def _serve(self, flow: Flow) -> None:
        """Flush what is pending in the sink, then move at most one chunk."""
        sink = flow.sink
        if self._is_finished:
            return
        if sink.has_pending and sink.is_writable:
            try:
                sink.flush()
            except OSError as exc:
                self.finish_broken(sink, exc)
                return
            self.stamp = self.reactor.now
        if flow.source.is_readable and not sink.has_pending:
            flow.on_ready(-1, 0)

    def note_bulk(self, flow: Flow) -> None:
        """A long chunk moved: there will be something to give back, and the flow may have earned bigger ones."""
        if self._is_slim:
            self._is_slim = False
            self.deadline = min(self.deadline, self.reactor.now + QUIET_S)
        if flow.chunk == START_CHUNK and flow.moved >= PROVEN and self._scratch.bulk_left:
            flow.chunk = CHUNK
            self._scratch.bulk_left -= 1

    def _slim(self) -> None:
        """Give back the right to whole chunks."""
        self._is_slim = True
        for flow in (self.forward, self.reverse):
            if flow.chunk == CHUNK:
                flow.chunk = START_CHUNK
                self._scratch.bulk_left += 1

    # What follows from them.

    def settle(self) -> None:
        """Half-close, finish or come back, as what was moved demands."""
        if self._is_finished:
            return
        client, backend = self.client, self.backend
        if client.at_eof or backend.at_eof:
            for flow in (self.forward, self.reverse):
                failure = flow.source.failure
                if failure is not None and not flow.sink.has_pending:
                    self.finish_tls(flow.source, failure)
                    return
                if flow.source.is_truncated and self._limits.is_strict:
                    self.finish(CloseReason.TRUNCATED_STRICT, "client" if flow.source is client else "backend")
                    return
            is_over = client.at_eof and backend.at_eof and not client.has_pending and not backend.has_pending
            try:
                self.forward.advance(is_last=is_over)
                self.reverse.advance(is_last=is_over)
            except OSError as exc:
                # The peer whose turn it was to hear our FIN has reset.
                if not is_over:
                    self.finish_broken(backend if self.forward.state is Direction.ENDING else client, exc)
                    return
                self.forward.state = self.reverse.state = Direction.CLOSED
            before, self.state = self.state, link_state(self.forward.state, self.reverse.state)
            if self.state is LinkState.FINISHED:
                is_truncated = client.is_truncated or backend.is_truncated
                self.finish(CloseReason.TRUNCATED if is_truncated else CloseReason.FINISHED)
                return
            if self.state is not before:
                self._aim()
        self.is_calm = not (client.at_eof or backend.at_eof or client.has_pending or backend.has_pending)
        if (client.is_readable and not backend.has_pending) or (backend.is_readable and not client.has_pending):
            self.reactor.again(self)

    def _aim(self) -> None:
        """Set the deadline to the next moment at which something may be due."""
        allowed_s = self._limits.idle_s if self.state is LinkState.OPEN else self._limits.half_close_s
        due = self.stamp + allowed_s
        if not self._is_slim:
            due = min(due, self.stamp + QUIET_S)
        self.deadline = min(due, self.ends_at)

    # The end.

    def finish_broken(self, end: PlainEnd, error: OSError) -> None:
        """A socket failed. Where that side had ended and been told everything, that is an ending like any other."""
        is_client = end is self.client
        heard, told = (self.forward, self.reverse) if is_client else (self.reverse, self.forward)
        if told.state is Direction.CLOSED and end.at_eof:
            self.finish(CloseReason.FINISHED)
            return
        with contextlib.suppress(OSError, TLSError):
            # What it said before it broke counts: without us it would be heard.
            while not (end.at_eof or heard.sink.has_pending) and (size := end.receive(heard.chunk)):
                heard.moved += size
                self.cells[heard.cell] += size
                heard.sink.send(size)
        if end.failure is not None:
            self.finish_tls(end, end.failure)
        elif isinstance(error, TimeoutError):
            self.finish(CloseReason.CLIENT_TIMEOUT if is_client else CloseReason.BACKEND_TIMEOUT)
        else:
            detail = "" if isinstance(error, ConnectionError) else error.strerror or str(error)
            self.finish(CloseReason.CLIENT_RESET if is_client else CloseReason.BACKEND_RESET, detail)

    def finish_tls(self, end: PlainEnd, error: TLSError) -> None:
        """A session failed: by the peer's alert, or because the peer broke the protocol."""
        alert, broken = CloseReason.BACKEND_ALERT, CloseReason.BACKEND_TLS_ERROR
        if end is self.client:
            alert, broken = CloseReason.CLIENT_ALERT, CloseReason.CLIENT_TLS_ERROR
        self.finish(alert if any("alert" in reason for reason in error.reasons) else broken, str(error))

    def finish(self, reason: CloseReason, detail: str = "", error: Exception | None = None) -> None:
        """End the link: tell both peers what can be told, release both ends, report once. Idempotent."""
        if self._is_finished:
            return
        self._is_finished, self.is_calm = True, False
        self._slim()
        self.reactor.release(self)
        is_over = reason in (CloseReason.FINISHED, CloseReason.TRUNCATED)
        is_quiet = reason in _QUIET_REASONS
        for end in (self.client, self.backend):
            is_done = is_over and end.at_eof and not end.has_pending
            if not is_done:
                with contextlib.suppress(OSError, TLSError):
                    if is_quiet and not end.has_pending and not end.is_shut:
                        end.shut()
                    elif not (is_over or end.is_tls):
                        end.reset_on_close()
            if not is_done and (is_over or is_quiet or end.is_tls):
                Farewell(self.reactor, end, self._on_closed)
            else:
                self.reactor.forget(end.fd)
                end.close()
                self._on_closed()
        self._on_finished(self, reason, detail, error)
        self.forward.link = self.reverse.link = None  # type: ignore[assignment] # nothing is left to the collector
