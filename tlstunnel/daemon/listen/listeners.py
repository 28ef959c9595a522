"""Every listening socket of a configuration, and who has which: a slot, the admin process, the supervisor.

A listening socket lives as long as any process has it open, and connections queued on a socket that nobody accepts
from wait for ever. Hence `keep_slot`: a worker holds its own slot's sockets and no others. And hence `Listener.end`
does not leave it to the last process that closes: shutdown(2) ends the listening for all of them at once, so an address
is free the moment the supervisor lets go of it, however busy or stuck the workers are that still have its socket.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Set
from dataclasses import dataclass

from tlstunnel.address import Listen, SystemdAddress
from tlstunnel.daemon.listen.binding import Endpoint, close_all
from tlstunnel.daemon.listen.unix import UnixFile


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """One bound address and its sockets."""

    owner: str
    """Whose it is, for messages: `service NAME`, or `admin`."""
    listen: Listen
    """As configured; a name, or a service's several addresses, become several listeners."""
    bound: str
    """As bound, for people and the ready line: with the port that 0 became. `:8443` is every interface."""
    sockets: tuple[socket.socket, ...]
    """Non-blocking. One per slot for TCP; one for all slots for a unix socket and for what systemd passed in."""
    is_shared: bool
    """Whether every slot accepts from every one of the sockets."""
    key: tuple[object, ...]
    """What makes it the same listener after a reload."""
    endpoint: Endpoint | None = None
    file: UnixFile | None = None
    mode: int = 0
    """What the permissions of the file are to be."""

    @property
    def is_ours(self) -> bool:
        """Whether we bound it, and so may unlink and must close it; False for what systemd passed in."""
        return not isinstance(self.listen, SystemdAddress)

    def for_slot(self, slot: int, slots: int) -> tuple[socket.socket, ...]:
        """The sockets that the worker of this slot accepts from."""
        return self.sockets if self.is_shared else self.sockets[slot::slots]

    def end(self, but: Set[socket.socket] = frozenset()) -> None:
        """In the supervisor: stop listening on its sockets, but those, and close them; unlink the path if it was ours.

        What systemd passed in goes on listening: it is closed here, and nothing more.
        """
        leaving = [sock for sock in self.sockets if sock not in but]
        for sock in leaving:
            if self.is_ours:
                stop_listening(sock)
            sock.close()
        if self.file is not None and len(leaving) == len(self.sockets):
            self.file.unlink()


@dataclass(frozen=True, slots=True, eq=False)
class Listeners:
    """All listeners of one configuration, by service name, and the admin endpoint's."""

    services: dict[str, tuple[Listener, ...]]
    admin: tuple[Listener, ...]
    slots: int
    warnings: tuple[str, ...] = ()
    """What to log: addresses of a name that were left out."""

    def __iter__(self) -> Iterator[Listener]:
        for listeners in self.services.values():
            yield from listeners
        yield from self.admin

    def for_slot(self, slot: int) -> dict[str, tuple[socket.socket, ...]]:
        """Service name to the sockets that the worker of this slot accepts from."""
        return {
            name: tuple(sock for listener in listeners for sock in listener.for_slot(slot, self.slots))
            for name, listeners in self.services.items()
        }

    def keep_slot(self, slot: int, *, but: Listeners | None = None) -> dict[str, tuple[socket.socket, ...]]:
        """In a freshly forked worker: close every other socket, and those of `but` (the generation being replaced).

        Returns what `for_slot` does. Never unlinks: the files are the supervisor's.
        """
        kept = self.for_slot(slot)
        self._close_all_but({sock for sockets in kept.values() for sock in sockets}, but)
        return kept

    def retire(self, previous: Listeners) -> None:
        """In the supervisor: stop listening on, close and unlink what `previous` has and these have not.

        A unix socket that both have is given the permissions it is to have now.
        """
        mine = {sock for listener in self for sock in listener.sockets}
        modes = {listener.key: listener.mode for listener in previous}
        for listener in previous:
            if listener.is_ours:
                listener.end(but=mine)
        for listener in self:
            if listener.file is not None and modes.get(listener.key, listener.mode) != listener.mode:
                listener.file.set_mode(listener.mode)

    def close(self) -> None:
        """In the supervisor, when nothing came of it: close everything, and unlink the unix sockets that we made."""
        self.close_services()
        self.close_admin()

    def close_services(self) -> None:
        """In the supervisor, to drain: stop listening for clients; the admin endpoint stays."""
        for listeners in self.services.values():
            for listener in listeners:
                listener.end()

    def close_admin(self) -> None:
        """In the supervisor, at the very end. A path is unlinked once only: another daemon may have it by now."""
        for listener in self.admin:
            listener.end()

    def _close_all_but(self, kept: set[socket.socket], but: Listeners | None) -> None:
        for listener in (*self, *(but or ())):
            close_all([sock for sock in listener.sockets if sock not in kept])


def stop_listening(sock: socket.socket) -> None:
    """Nobody can connect any more, even if another process holds this socket. Connections in its queue are reset."""
    with contextlib.suppress(OSError):  # it does not listen
        sock.shutdown(socket.SHUT_RDWR)
