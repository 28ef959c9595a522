"""A generation: one configuration with its contexts, its listeners and the workers that serve it.

A change of certificates leaves the generation as it is; any other change of the configuration makes the next one, whose
workers take over the same sockets, while the old one's drain.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field

from tlstunnel.config.model import Config
from tlstunnel.daemon.listen.listeners import Listeners
from tlstunnel.daemon.processes.children import Child
from tlstunnel.observe.log import Log
from tlstunnel.observe.series import Series, targets_of
from tlstunnel.tls.inventory import Inventory


@dataclass(slots=True, eq=False)
class Generation:
    """A configuration, with all that its workers are forked with, and these workers."""

    number: int
    """Counts from 1."""
    config: Config
    inventory: Inventory
    loaded_at: float
    """Unix time at which the material was read."""
    listeners: Listeners
    series: Series
    log: Log
    capacity: int
    """How many connections each worker has descriptors for."""
    workers: dict[int, Child] = field(default_factory=dict)
    """By slot."""

    @property
    def slots(self) -> int:
        """How many workers it wants."""
        return self.listeners.slots

    @property
    def drain_s(self) -> float:
        """How long its workers may take to drain; infinite without a limit."""
        return max(service.timeouts.drain_s for service in self.config.services)

    def bound(self) -> dict[str, tuple[str, ...]]:
        """The addresses each service listens on, with real ports."""
        return {name: tuple(each.bound for each in listeners) for name, listeners in self.listeners.services.items()}

    def announce(self) -> None:
        """Write to stderr where it listens. An error there (a full disk) changes nothing."""
        with contextlib.suppress(OSError):
            os.write(2, "".join(f"{line}\n" for line in self.ready_lines()).encode())

    def ready_lines(self) -> list[str]:
        """One line for each listener, as the contract words it."""
        lines = []
        for service in self.config.services:
            targets = ", ".join(targets_of(service))
            for listener in self.listeners.services[service.name]:
                lines.append(f"ready: {service.name} listening on {listener.bound} -> {targets}")
        return lines
