"""TLS sessions with targets, to resume: at most one for each target.

A server sends tickets after the handshake, at any time it likes (RFC 8446 section 4.6.1), so the newest one is had from
a connection as late as possible: when a new connection to the same target wants it, or when the connection ends. Each
is offered once, because a ticket used twice would link connections for whoever watches (RFC 8446 appendix C.4); the
connection that used it brings the next one. What was verified under other trust than today's is never offered, and
neither is a session with a certificate that has expired since: the handshake that resumes it would not look at dates.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tlstunnel._openssl import Engine, Scratch
from tlstunnel.address import Target
from tlstunnel.relay.ends import TLSEnd


class Sessions:
    """The sessions of one service in one worker."""

    __slots__ = ("_holders", "_kept", "_until", "era")

    def __init__(self) -> None:
        self._kept: dict[Target, Any] = {}
        self._holders: dict[Target, Engine] = {}
        self._until: dict[Target, float] = {}
        self.era = 0
        """Grows with every change of trust."""

    def take(self, target: Target) -> Any:
        """A session to offer to this target, or `None`."""
        session = self._kept.pop(target, None)
        if session is None:
            holder = self._holders.pop(target, None)
            session = None if holder is None else holder.session()
        return session if time.time() <= self._until.get(target, 0.0) else None

    def hold(self, target: Target, engine: Engine, era: int, until: float) -> None:
        """This session was verified, in this era, and may get tickets from now on. The target's certificate is good
        `until` then, in Unix time."""
        if era == self.era:
            self._holders[target], self._until[target] = engine, until

    def keep(self, target: Target, engine: Engine) -> None:
        """This session ends: keep its newest ticket, unless another connection has used it or brings a newer one."""
        if self._holders.get(target) is engine:
            del self._holders[target]
            session = engine.session()
            if session is not None:
                self._kept[target] = session

    def forget(self) -> None:
        """Trust has changed."""
        self.era += 1
        self._kept.clear()
        self._holders.clear()


class TargetEnd(TLSEnd):
    """A target's end in TLS, which leaves its newest ticket behind when it is closed."""

    __slots__ = ("_era", "_sessions", "_target")

    def __init__(
        self,
        sock: Any,
        scratch: Scratch,
        watch_room: Callable[[int], None],
        engine: Engine,
        sessions: Sessions,
        target: Target,
    ) -> None:
        super().__init__(sock, scratch, watch_room, engine, is_server=False)
        self._sessions, self._target, self._era = sessions, target, sessions.era

    def hold_tickets(self, until: float) -> None:
        """The target is who it should be, by a certificate that expires then: its tickets are worth having."""
        self._sessions.hold(self._target, self.engine, self._era, until)

    def shown(self) -> bytes | None:
        """The certificate (DER) that the target has shown, verified or not."""
        return self.engine.shown_certificate()

    def close(self) -> None:
        try:
            self._sessions.keep(self._target, self.engine)
        finally:
            super().close()
