"""A link: two ends, and bytes moved between them.

Theory of operation. The reactor tells a flow that its source is ready. While the link is calm, both ends open and
nothing pending, the flow moves what is there and nothing follows from it: that is every small exchange. Otherwise the
link does two things, always in this order: `_serve` both flows, a bounded amount, and `settle` what follows from that.

Memory. While a sink has something pending its source is not read, so each direction holds at most one chunk, in the
sink: plaintext in a plain end, ciphertext in a TLS end. A chunk is START_CHUNK until a direction has moved PROVEN
bytes, more than the kernel's buffers of both sides swallow, so only a peer that really reads is ever given big chunks;
and at most BULK_LINKS of a worker's links use big chunks at a time. A peer that never reads costs START_CHUNK, its
encryption and the allocator's rounding: under 128 KiB (ladder: start-chunk).

Breaking. A side that is cut leaves the link at once, with its alert if there is one; the other stays, within
half_close_timeout, until it has what was genuine: what is pending is flushed, and a reset waits until the peer's
machine has acknowledged everything, since it would destroy what it overtakes. A side to which nothing can be sent any
more is read to its end, and so it turns out whether it had ended or was cut. What was wrong first is the `verdict`.
What the kernel has taken for a sink is what counts.

Ending. Every path leads to `finish`, once. How an end is told depends on what came for it, and on the reason:

    told       it has heard the other side's end already; close
    quiet      a timeout: close_notify and FIN, since nothing was moving and nothing is cut
    cut        anything else: no close_notify and a reset for a plaintext peer, so that nobody takes a stream that was
               cut for one that ended (RFC 8446 section 6.1)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

from tlstunnel._openssl import BULK_MIN, CHUNK, Scratch, TLSError
from tlstunnel.outcome import OUR_ERRORS, CloseReason, of_session, of_socket
from tlstunnel.relay.ends import PlainEnd
from tlstunnel.relay.halfclose import OVER, Direction, Event, after
from tlstunnel.relay.linger import Farewell, drop
from tlstunnel.relay.reactor import EPOLLIN, Reactor, try_all

START_CHUNK = 64 * 1024
PROVEN = 16 * 1024 * 1024
QUIET_S = 1.0
"""How long a link stands still before it gives back what its handshake, and bulk, left behind."""


_QUIET_REASONS = frozenset((CloseReason.IDLE_TIMEOUT, CloseReason.HALF_CLOSE_TIMEOUT))
LOST = Direction.LOST
_LIMIT_REASONS = _QUIET_REASONS | {CloseReason.MAX_LIFETIME, CloseReason.DRAINED}


class Limits(NamedTuple):
    """The timeouts of a service's links, in seconds; infinite for none. Shared by all its links."""

    idle_s: float
    half_close_s: float
    is_strict: bool


class Flow:
    """One direction of a link. Hears of the edges of its source."""

    __slots__ = ("cell", "chunk", "link", "moved", "other", "sink", "source", "state", "told_at")

    def __init__(self, link: Link, source: PlainEnd, sink: PlainEnd, cell: int) -> None:
        self.other = self  # the other direction, when there is one
        self.link, self.source, self.sink, self.cell = link, source, sink, cell
        self.moved = 0
        self.told_at = -1  # what the other direction had moved when this one's sink was told of the end
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
                if size > BULK_MIN:
                    link.note_bulk(self)
                size = active.send(size)
                self.moved += size
                link.cells[self.cell] += size
        except OSError as exc:
            link.note_broken(active, exc, is_sending=active is not source)
        except TLSError as exc:
            link.finish(CloseReason.INTERNAL_ERROR, str(exc), exc)  # encrypting asks nothing of the peer
        if fd >= 0 and (source.is_readable or self.sink.has_pending or source.at_eof):
            link.settle()

    def on_crash(self, error: BaseException) -> None:
        if self.link is not None:  # else the link has ended, in this very call
            self.link.on_crash(error)

    def abandon(self) -> None:
        if self.link is not None:
            self.link.abandon()

    def has_more(self) -> bool:
        """Whether something can be read now, for a sink that can take it or for nobody."""
        is_free = not self.sink.has_pending or self.state is LOST
        return self.source.is_readable and is_free and self.source in self.link.left

    def advance(self, *, is_last: bool) -> None:
        """Bring the direction's end as far as it can go now. The last direction's FIN is left to `close`."""
        sink = self.sink
        if self.state in OVER or self.state is Direction.FLOWING or sink.has_pending:
            return
        if self.state is Direction.ENDING and not sink.is_shut:
            try:
                sink.say_goodbye() if is_last else sink.shut()
            except OSError as exc:
                sink.note_reset(exc)  # it has been sent everything; that it is over it knows already
        if not sink.has_pending:
            self.note_flushed()

    def note_flushed(self) -> None:
        """The sink has everything, and has heard of the end if it was one."""
        if self.state is Direction.ENDING:
            self.told_at = self.other.moved
        self.state = after(self.state, Event.FLUSHED)


class Link:
    """Joins a client's end and a backend's end, until `finish`.

    Args:
        cells: where the live byte counts are kept; `forward_cell` and `reverse_cell` are this service's places there.
        ends_at: the monotonic time of max_lifetime.
        on_finished: called once, with the reason, a detail for people, and an error of ours that nobody was told of.
        on_closed: called once for each end, when its descriptor is closed.
    """

    __slots__ = (
        "_is_finished", "_is_reported", "_is_slim", "_limits", "_on_closed", "_on_finished", "_scratch", "_unsent",
        "backend", "cells", "client", "deadline", "ends_at", "forward", "is_calm", "is_open", "left", "reactor",
        "reverse", "stamp", "verdict",
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
        on_finished: Callable[[Link, CloseReason, str, BaseException | None], None],
        on_closed: Callable[[], None],
    ) -> None:
        self.reactor = reactor
        self.client = client
        self.backend = backend
        self._limits = limits
        self.cells = cells
        self._on_finished, self._on_closed = on_finished, on_closed
        self._is_finished = self._is_reported = self.is_calm = False
        self._is_slim = False  # the handshake leaves something to give back as well
        self._scratch = scratch
        self.ends_at = ends_at
        self.forward = Flow(self, client, backend, forward_cell)
        self.reverse = Flow(self, backend, client, reverse_cell)
        self.forward.other, self.reverse.other = self.reverse, self.forward
        self.is_open = True  # both directions flow
        self.verdict: tuple[CloseReason, str] | None = None
        self.left = [client, backend]  # the ends that have not been parted with
        self._unsent = 0
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
        self._serve(incoming)
        if end.has_pending:
            # It may have room now, and what the other end has left to give, or its end, brings no edge of its own.
            self._serve(incoming.other)
        self.settle()

    def on_deadline(self, now: float) -> None:
        if now >= self.ends_at:
            self.finish(CloseReason.MAX_LIFETIME)
            return
        if self._unsent and self._conclude():
            return  # the acknowledgement of what was sent brings no edge
        quiet_s = now - self.stamp
        if quiet_s >= (self._limits.idle_s if self.is_open else self._limits.half_close_s):
            self.finish(CloseReason.IDLE_TIMEOUT if self.is_open else CloseReason.HALF_CLOSE_TIMEOUT)
            return
        if not self._is_slim and quiet_s >= QUIET_S and self.verdict is None:
            self._slim()
            self.client.slim()
            self.backend.slim()
            self._scratch.has_slimmed = True
        self._aim()

    def on_crash(self, error: BaseException) -> None:
        if self._is_finished:
            self.abandon()  # it is the end that raised
        else:
            self.finish(CloseReason.INTERNAL_ERROR, type(error).__name__)

    def abandon(self) -> None:
        """Let go of what is left, without a word to anybody but `on_finished`."""
        self._is_finished, self.is_calm = True, False
        try_all(
            self._slim,
            lambda: self.reactor.release(self),
            lambda: drop(self.reactor, self.client, self.forward),
            lambda: drop(self.reactor, self.backend, self.reverse),
            lambda: self._report(CloseReason.INTERNAL_ERROR, "", None),
        )

    # Bytes.

    def _serve(self, flow: Flow) -> None:
        """Flush what is pending in the sink, then move at most one chunk."""
        if self._is_finished:
            return
        sink = flow.sink
        if sink.has_pending and sink.is_writable and flow.state not in OVER:
            try:
                taken = sink.flush()
            except OSError as exc:
                self.note_broken(sink, exc, is_sending=True)
                return
            self.stamp = self.reactor.now
            flow.moved += taken
            self.cells[flow.cell] += taken
        if flow.has_more():
            # What comes for nobody is read all the same: whoever is stuck in sending does not read.
            flow.on_ready(-1, 0, (lambda: flow.source.receive(START_CHUNK) and 0) if flow.state is LOST else None)

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
        """Half-close, break, finish or come back, as what was moved demands."""
        if self._is_finished:
            return
        client, backend = self.client, self.backend
        if client.at_eof or backend.at_eof or self.verdict is not None:
            self._close_down()
            if self._is_finished:
                return
        has_pending = client.has_pending or backend.has_pending
        self.is_calm = not (has_pending or client.at_eof or backend.at_eof or self.verdict)
        if self.forward.has_more() or self.reverse.has_more():
            self.reactor.again(self)

    def _close_down(self) -> None:
        """One side has ended or is broken: what follows for both."""
        for flow in (self.forward, self.reverse):
            if flow.state is Direction.FLOWING and flow.source.at_eof:
                self._hear_end(flow)
        client, backend = self.client, self.backend
        is_over = client.at_eof and backend.at_eof and not client.has_pending and not backend.has_pending
        self.forward.advance(is_last=is_over)
        self.reverse.advance(is_last=is_over)
        was_open, self.is_open = self.is_open, self.forward.state is self.reverse.state is Direction.FLOWING
        if self.forward.state in OVER and self.reverse.state in OVER:
            self._conclude()
        elif was_open:
            self._aim()

    def _hear_end(self, flow: Flow) -> None:
        """The source has nothing more to give: because it said so, or because it was cut."""
        source = flow.source
        is_client, verdict = source is self.client, self.verdict
        if source.failure is not None:
            verdict = of_session(source.failure.reasons, is_client=is_client), str(source.failure)
        elif source.is_truncated and self._limits.is_strict:
            verdict = verdict or (CloseReason.TRUNCATED_STRICT, "client" if is_client else "backend")
        elif source.is_torn:
            verdict = verdict or (CloseReason.TRUNCATED, "cut inside a TLS record")
        elif source.is_reset and not source.has_close_notify():
            verdict = verdict or of_socket(ConnectionResetError(), is_client=is_client)
        else:
            flow.state = after(flow.state, Event.EOF)
            return
        self.verdict, flow.state = verdict, after(flow.state, Event.CUT)
        told = flow.other
        if told.state not in OVER:
            told.state, source.has_pending = after(told.state, Event.GONE), False
        self._part(told, is_quiet=False)

    def _conclude(self) -> bool:
        """Both directions are over: end the link, once a reset would not destroy what was sent. Whether it ended."""
        unsent = 0
        for flow in (self.forward, self.reverse):
            end, is_closed = flow.sink, flow.state is Direction.CLOSED
            if end in self.left and not (end.is_reset or flow.state is LOST or (is_closed and end.at_eof)):
                unsent += end.unsent()
        if unsent != self._unsent:
            self._unsent, self.stamp = unsent, self.reactor.now
        if unsent:
            self.deadline = self.reactor.now
            return False
        is_truncated = self.client.is_truncated or self.backend.is_truncated
        reason, detail = self.verdict or (CloseReason.TRUNCATED if is_truncated else CloseReason.FINISHED, "")
        if reason is CloseReason.CLIENT_RESET and self.reverse.told_at == self.forward.moved:
            reason, detail = CloseReason.FINISHED, ""  # it has all that it came for, and has said nothing since
        self.finish(reason, detail)
        return True

    def _aim(self) -> None:
        """Set the deadline to the next moment at which something may be due."""
        due = self.stamp + (self._limits.idle_s if self.is_open else self._limits.half_close_s)
        if not self._is_slim and self.verdict is None:
            due = min(due, self.stamp + QUIET_S)
        self.deadline = self.reactor.now if self._unsent else min(due, self.ends_at)

    # The end.

    def note_broken(self, end: PlainEnd, error: OSError, *, is_sending: bool) -> None:
        """A socket failed: what was to be sent is lost, or nothing more will come."""
        if error.errno in OUR_ERRORS:
            self.finish(CloseReason.INTERNAL_ERROR, (error.strerror or type(error).__name__).lower(), error)
            return
        heard, told = (self.forward, self.reverse) if end is self.client else (self.reverse, self.forward)
        if is_sending:
            end.note_reset(error)
            end.has_pending, end.is_readable = False, True  # what it said before counts: without us it would be heard
            if end.is_shut:
                told.note_flushed()  # it has everything; only our goodbye was pending, and that it is over it knows
                return
            told.state = after(told.state, Event.GONE)
        else:
            end.is_readable, end.is_reset = False, True
            if end.at_eof or heard.state is not Direction.FLOWING:
                return  # it had said its last word; whether it still listens shows when it is spoken to
            end.at_eof = True
        self.verdict = self.verdict or of_socket(error, is_client=end is self.client)
        self.is_calm = False
        self.reactor.again(self)

    def finish(self, reason: CloseReason, detail: str = "", error: BaseException | None = None) -> None:
        """End the link: tell both peers what can be told, release both ends, report once. Idempotent."""
        if self._is_finished:
            return
        if reason in _LIMIT_REASONS:
            reason, detail = self.verdict or (reason, detail)  # a limit ends what the verdict began
        self._is_finished, self.is_calm = True, False
        self._slim()
        self.reactor.release(self)
        for told in (self.reverse, self.forward):
            self._part(told, is_quiet=reason in _QUIET_REASONS)
        self._report(reason, detail, error)
        for flow in (self.forward, self.reverse):
            flow.link = flow.other = None  # type: ignore[assignment] # nothing is left to the collector

    def _report(self, reason: CloseReason, detail: str, error: BaseException | None) -> None:
        if not self._is_reported:
            self._on_finished(self, reason, detail, error)
            self._is_reported = True

    def _part(self, told: Flow, *, is_quiet: bool) -> None:
        """Part with the end that this direction leads to, unless that is done."""
        end = told.sink
        if end not in self.left:
            return
        is_told = told.state is Direction.CLOSED
        is_done = is_told and end.at_eof and end.failure is None
        with contextlib.suppress(OSError, TLSError):
            if is_quiet and not (is_told or end.has_pending or end.is_shut):
                end.shut()
                is_told = True
            elif not (is_told or end.is_tls):
                end.reset_on_close()
        if not is_done and (is_told or end.is_tls):
            Farewell(self.reactor, end, self._on_closed)
        else:
            self.reactor.forget(end.fd)
            end.close()
            self._on_closed()
        self.left.remove(end)
