"""What the parts of the supervisor share: how things stand, and what is the supervisor's own."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from tlstunnel.daemon.listen.activation import Inherited
from tlstunnel.daemon.listen.listeners import Listeners
from tlstunnel.daemon.processes.children import Child
from tlstunnel.daemon.processes.events import Signals, Timers
from tlstunnel.daemon.processes.generation import Generation
from tlstunnel.daemon.processes.publish import Publisher
from tlstunnel.daemon.processes.rows import Rows
from tlstunnel.daemon.system.privileges import Identity
from tlstunnel.daemon.system.sdnotify import Notifier
from tlstunnel.observe.counters import Row
from tlstunnel.observe.log import Log
from tlstunnel.x509.passphrase import PassphraseSource


@dataclass(slots=True, kw_only=True, eq=False)
class Daemon:
    """One running daemon, as its supervisor sees it."""

    generation: Generation
    """The one that serves."""
    arriving: Generation | None = None
    """The one that has been forked and is not ready yet: at start the first, at a reload the next."""
    phase: str = "starting"
    """"starting", "ready", "draining" or "stopped": one way only."""
    children: dict[int, Child] = field(default_factory=dict)
    """Living workers of all generations, by pid."""
    admin_pid: int | None = None
    lost_lines: int = 0
    """Log lines of workers that were lost, as far as the log did not take the line that tells of it."""

    inherited: Inherited
    identity: Identity | None
    """Who workers become; None without a change."""
    passphrases: PassphraseSource
    rows: Rows
    row: Row
    """The supervisor's own counters."""
    publisher: Publisher
    notifier: Notifier
    signals: Signals
    timers: Timers = field(default_factory=Timers)

    @property
    def log(self) -> Log:
        """The log of the configuration in use."""
        return self.generation.log

    @property
    def owner(self) -> tuple[int, int] | None:
        """Whose the files of unix sockets are to be."""
        return None if self.identity is None else (self.identity.uid, self.identity.gid)

    def publish(self) -> None:
        """Publish how things stand, for the admin process and the metrics."""
        self.publisher.publish(self.generation, self.children.values(), phase=self.phase, admin_pid=self.admin_pid)

    def status_text(self) -> str:
        """One line for the service manager."""
        return self.publisher.status_text(self.generation, self.children.values())

    def other_listeners(self, generation: Generation) -> Listeners | None:
        """Those of the generation that arrives or leaves beside this one; children of this one must close them."""
        for each in (self.generation, self.arriving):
            if each is not None and each is not generation:
                return each.listeners
        return None

    def close_in_child(self, listing: socket.socket | None) -> None:
        """In a freshly forked worker: close what is the supervisor's own, or another worker's.

        Args:
            listing: its own end of its listing channel.
        """
        self.signals.close()
        self.notifier.close()
        self.passphrases.close_in_child()
        for child in self.children.values():
            child.channel.close()
        self.rows.close_in_child(listing)
