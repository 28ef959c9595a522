"""A generation: one configuration with its contexts, its listeners and the workers that serve it.

A change of certificates leaves the generation as it is; any other change of the configuration makes the next one, whose
workers take over the same sockets, while the old one's drain.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field

from tlstunnel.config.model import Config
from tlstunnel.observe import listing
from tlstunnel.observe.board import Board, Row
from tlstunnel.observe.log import Log
from tlstunnel.observe.schema import Schema
from tlstunnel.observe.state import CertificateState, ServiceState, StateBlob
from tlstunnel.server import channel, worker
from tlstunnel.supervisor import privileges
from tlstunnel.supervisor.children import Child, fork
from tlstunnel.supervisor.sockets import Listeners
from tlstunnel.tls.inventory import Inventory
from tlstunnel.tls.store import Material

MAX_ROWS = 512
"""Workers that may live at the same time, those of old generations included. Rows nobody used cost no memory."""


class Rows:
    """Hands out the board's rows, one for each living worker, and the worker's channel to the admin process with it.

    Two workers must never share a row, so a replacement of a slot whose old worker still drains gets another.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._free: list[int] = []
        self._next = 1
        self.admin_ends: dict[int, socket.socket] = {}
        self.worker_ends: dict[int, socket.socket] = {}

    def take(self) -> Row:
        """A row nobody uses, the lowest first."""
        if self._free:
            index = min(self._free)
            self._free.remove(index)
        else:
            index = self._next
            self._next += 1
        return self._board.row(index)

    def open_channels(self, count: int) -> None:
        """Make the listing channels of the first rows, before the admin process is forked."""
        for index in range(1, count + 1):
            if index not in self.admin_ends:
                self.admin_ends[index], self.worker_ends[index] = listing.channel_pair()

    def give_back(self, row: Row) -> None:
        """Its worker has ended: its counters stay, its gauges describe nothing any more."""
        row.clear_gauges()
        self._free.append(row.index)


@dataclass(slots=True, eq=False)
class Generation:
    """What a worker of this configuration is forked with."""

    number: int
    config: Config
    inventory: Inventory
    loaded_at: float
    listeners: Listeners
    schema: Schema
    identity: privileges.Identity | None
    workers: dict[int, Child] = field(default_factory=dict)
    """By slot."""

    @property
    def slots(self) -> int:
        """How many workers it wants."""
        return self.listeners.slots

    def start_worker(self, slot: int, rows: Rows, log: Log, others: list[Child], previous: Listeners | None) -> Child:
        """Fork the worker of a slot.

        Args:
            others: every other living worker, whose channels the new one must not keep.
            previous: the listeners of the generation that is being replaced, if one is.
        """
        row = rows.take()
        ours, theirs = channel.pair()
        inherited = [child.channel for child in others]

        def body() -> int:
            ours.close()
            for sock in inherited:
                sock.close()
            listing_end = rows.worker_ends.get(row.index)
            for index, end in (*rows.admin_ends.items(), *rows.worker_ends.items()):
                if end is not listing_end or index != row.index:
                    end.close()
            sockets = self.listeners.keep_slot(slot, but=previous)
            self._become()
            return worker.main(
                worker.Plan(
                    config=self.config,
                    contexts=self.inventory.contexts,
                    sockets=sockets,
                    schema=self.schema,
                    row=row,
                    log=log,
                    channel=theirs,
                    listing=listing_end,
                    slot=slot,
                    slots=self.slots,
                )
            )

        pid = fork(body)
        theirs.close()
        child = Child(pid, slot, self.number, row, ours)
        self.workers[slot] = child
        return child

    def _become(self) -> None:
        if self.identity is not None:
            privileges.drop(self.identity)
        else:
            privileges.shed()

    def start_admin(self, board: Board, state: StateBlob, rows: Rows, log: Log, others: list[Child]) -> int:
        """Fork the admin process; its pid."""
        inherited = [child.channel for child in others]

        def body() -> int:
            # Imported here: no other process pays for the exposition and HTTP.
            from tlstunnel.observe.admin.process import run_admin  # noqa: PLC0415
            from tlstunnel.observe.admin.routes import AdminSources  # noqa: PLC0415

            for sock in inherited:
                sock.close()
            for end in rows.worker_ends.values():
                end.close()
            sockets = self.listeners.keep_admin()
            self._become()
            sources = AdminSources(
                board=board,
                schema=self.schema,
                state=state,
                channels=dict(rows.admin_ends),
                log=log,
                supervisor_pid=os.getppid(),
            )
            run_admin(sources, sockets)
            return 0

        return fork(body)

    # What there is to show.

    def service_states(self) -> tuple[ServiceState, ...]:
        """The services, for the admin endpoint."""
        return tuple(
            ServiceState(
                name=service.name,
                mode=service.mode.value,
                listeners=tuple(listener.bound for listener in self.listeners.services[service.name]),
                targets=tuple(str(target) for target in service.targets),
            )
            for service in self.config.services
        )

    def certificate_states(self) -> tuple[CertificateState, ...]:
        """The certificates that are loaded, for the metrics and for people."""
        states: list[CertificateState] = []
        for service, material in zip(self.config.services, self.inventory.materials, strict=True):
            states += _certificates(service.name, material, self.loaded_at)
        return tuple(states)

    def bound(self) -> dict[str, tuple[str, ...]]:
        """The addresses each service listens on, with real ports."""
        return {name: tuple(each.bound for each in listeners) for name, listeners in self.listeners.services.items()}

    def ready_lines(self) -> list[str]:
        """One line for each listener, as the contract words it."""
        lines = []
        for service in self.config.services:
            targets = ", ".join(str(target) for target in service.targets)
            for listener in self.listeners.services[service.name]:
                lines.append(f"ready: {service.name} listening on {listener.bound} -> {targets}")
        return lines


def _certificates(service: str, material: Material, loaded_at: float) -> list[CertificateState]:
    found = []
    credentials = [*material.credentials, *(credential for each in material.sni for credential in each)]
    if material.backend_credential is not None:
        credentials.append(material.backend_credential)
    for credential in credentials:
        found.append(
            CertificateState(
                service=service,
                file=credential.source,
                subject=credential.subject,
                not_after=credential.not_after.timestamp(),
                loaded_at=loaded_at,
                names=credential.names[:8],
            )
        )
    for bundle in (material.client_ca, material.backend_ca):
        # The system's hundred roots are the system's business; a file of a few is the operator's.
        if bundle is None or len(bundle.subjects) > 20:
            continue
        for subject, expiry in zip(bundle.subjects, bundle.expiries, strict=True):
            found.append(
                CertificateState(
                    service=service,
                    file=bundle.source,
                    subject=subject,
                    not_after=expiry.timestamp(),
                    loaded_at=loaded_at,
                    role="ca",
                )
            )
    for crl in (*material.crls, *material.backend_crls):
        if crl.next_update is not None:
            found.append(
                CertificateState(
                    service=service,
                    file=crl.source,
                    subject=crl.issuer,
                    not_after=crl.next_update.timestamp(),
                    loaded_at=loaded_at,
                    role="crl",
                )
            )
    return found
