"""The last words to a peer, heard.

Closing a socket while bytes from the peer lie unread in it sends a reset, and a reset destroys what the peer has not
read yet: the alert that would have told it why, or the end of its data. So after anything but the peer's own EOF we
flush what is queued, shut our side down, and read and discard until the peer closes or a second has passed.
"""

from __future__ import annotations

from collections.abc import Callable

from tlstunnel.relay.ends import PlainEnd
from tlstunnel.relay.reactor import Handler, Reactor, try_all

LINGER_S = 1.0


class Farewell:
    """Ends one end in the background. Owns the end from now on."""

    __slots__ = ("_end", "_is_said", "_on_closed", "_reactor", "deadline")

    def __init__(self, reactor: Reactor, end: PlainEnd, on_closed: Callable[[], None]) -> None:
        self._reactor = reactor
        self._end = end
        self._on_closed = on_closed
        self._is_said = False
        self.deadline = reactor.now + LINGER_S
        reactor.hold(self)
        reactor.farewells += 1
        reactor.hand_over(end.fd, self)
        end.is_readable = end.is_writable = True  # look once, whatever the last edges said
        reactor.guard(self, self.on_ready, -1, 0)

    def on_ready(self, fd: int, events: int) -> None:
        end = self._end
        if end is None:
            return
        if fd >= 0:
            end.note(events)
        try:
            if not self._is_said and end.is_writable:
                end.flush()
                if not end.has_pending:
                    self._is_said = True
                    if not end.is_shut:
                        end.say_fin()
            rounds = 4
            while end.is_readable and rounds:
                rounds -= 1
                if not end.discard():
                    self._close()
                    return
            if end.is_readable:
                self._reactor.again(self)
        except OSError:
            self._close()  # a peer that reset has stopped listening

    def on_crash(self, error: BaseException) -> None:
        self._close()

    def abandon(self) -> None:
        end, self._end = self._end, None  # type: ignore[assignment]
        self._reactor.release(self)
        if end is not None:
            self._reactor.farewells -= 1
            try_all(lambda: drop(self._reactor, end, self))

    def on_deadline(self, now: float) -> None:
        self._close()

    def _close(self) -> None:
        end = self._end
        if end is not None:
            self._reactor.release(self)
            if not end.is_closed:  # whoever made us could not go on, or we could not
                self._reactor.forget(end.fd)
                end.close()
            self._end = None  # type: ignore[assignment]
            self._reactor.farewells -= 1
            self._on_closed()


def drop(reactor: Reactor, end: PlainEnd, owner: Handler) -> None:
    """Close an end that its owner has not handed on: the last resort, which raises nothing."""
    if not end.is_closed and not reactor.is_others(end.fd, owner):
        reactor.forget(end.fd)
        try_all(end.close)
        if not end.is_closed:
            PlainEnd.close(end)
