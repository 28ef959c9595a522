"""A worker process: accepts on the sockets it was given, relays, obeys the supervisor, ends when it has drained.

It reads no file and opens no listening socket: everything comes in the `Plan`. Its states go one way:

    STARTING --listening--> READY --Drain, or the supervisor is gone--> DRAINING --nothing open--> ended

Two nurseries: the inner one accepts and is cancelled to drain; the outer one carries the reactor and stays until the
last connection has ended or time is up.
"""

from __future__ import annotations

import gc
import signal
import socket
import traceback
from dataclasses import dataclass
from enum import Enum

import trio

from tlstunnel.config.model import Config
from tlstunnel.observe.board import Row
from tlstunnel.observe.listing import answer
from tlstunnel.observe.log import Log
from tlstunnel.observe.observer import Observer
from tlstunnel.observe.schema import Schema
from tlstunnel.relay.farewell import LINGER_S
from tlstunnel.relay.reactor import Reactor
from tlstunnel.server.accept import Acceptor
from tlstunnel.server.bridge import Bridge, seconds
from tlstunnel.server.channel import (
    MAX_ORDER,
    Drain,
    Order,
    Ping,
    Renew,
    Reopen,
    Staple,
    Unframer,
    parse_order,
    report_bytes,
)
from tlstunnel.server.runtime import ServiceRuntime, Worker, share
from tlstunnel.tls.store import ServiceContexts

EXIT_CUT = 1
"""Links had to be cut at the end of the drain."""
_DRAIN_LOOK_S = 0.02
EXIT_BOOT = 3
"""The worker could not begin; restarting it would not help."""


class State(Enum):
    """Where in its life a worker is."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All a worker needs."""

    config: Config
    contexts: tuple[ServiceContexts, ...]
    sockets: dict[str, tuple[socket.socket, ...]]
    schema: Schema
    row: Row
    log: Log
    channel: socket.socket
    listing: socket.socket | None
    """Where the admin process asks for open connections."""
    slot: int
    slots: int


def main(plan: Plan) -> int:
    """Run until drained; the exit status."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a terminal sends them to all of us; the supervisor decides
    gc.set_threshold(50_000, 20, 100)
    gc.enable()  # disabled in the supervisor, see children.fork
    return trio.run(_Run(plan).run)


class _Run:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._log = plan.log
        self._log.batch()
        self._log.count_on(plan.row, plan.schema.process)
        self._reactor = Reactor()
        self._bridge = Bridge(self._reactor, self._log.flush)
        observer = Observer(plan.schema, plan.row, self._log)
        limit = share(plan.config.process.max_connections, plan.slots)
        self._worker = Worker(self._reactor, self._bridge, observer, self._on_crash, limit)
        self._state = State.STARTING
        self._drain_scope = trio.CancelScope()
        self._is_hastened = False
        self._runtimes: list[ServiceRuntime] = []
        self._channel = trio.socket.from_stdlib_socket(plan.channel)

    async def run(self) -> int:
        plan = self._plan
        cut = 0
        async with trio.open_nursery() as nursery:
            await nursery.start(self._bridge.run)
            nursery.start_soon(self._tick)
            if plan.listing is not None:
                nursery.start_soon(self._answer, plan.listing)
            with self._drain_scope:
                acceptors = self._accept()
                self._state = State.READY
                await self._report("ready")
                await self._obey()
            self._state = State.DRAINING
            for acceptor in acceptors:
                acceptor.close()
            plan.row.cells[plan.schema.process.draining] = 1
            nursery.start_soon(self._obey)
            cut = await self._drain()
            nursery.cancel_scope.cancel()
        self._log.flush()
        await self._report("drained", cut=cut)
        return EXIT_CUT if cut else 0

    def _accept(self) -> list[Acceptor]:
        plan = self._plan
        acceptors = []
        for index, service in enumerate(plan.config.services):
            runtime = ServiceRuntime(self._worker, index, service, plan.contexts[index], plan.slots)
            self._runtimes.append(runtime)
            acceptors += [Acceptor(runtime, sock, self._on_pause) for sock in plan.sockets[service.name]]
        return acceptors

    async def _obey(self) -> None:
        """Do what the supervisor says. Its end is the order to drain: nobody would replace us."""
        unframer = Unframer(MAX_ORDER)
        while True:
            data = await self._channel.recv(65536)
            if not data:
                self._begin_drain()
                await trio.sleep_forever()
            for payload in unframer.feed(data):
                await self._do(parse_order(payload))

    async def _do(self, order: Order) -> None:
        if isinstance(order, Ping):
            await self._report("pong", number=order.number, open=len(self._worker.open_connections))
        elif isinstance(order, Drain):
            self._begin_drain(is_now=order.is_now)
        elif isinstance(order, Reopen):
            self._log.reopen()
        elif isinstance(order, Renew):
            await self._renew(order)
        elif isinstance(order, Staple):
            for runtime, staples in zip(self._runtimes, order.staples, strict=True):
                if staples is not None:
                    runtime.contexts.staple(staples)

    async def _renew(self, order: Renew) -> None:
        for runtime, material in zip(self._runtimes, order.materials, strict=True):
            runtime.renew(material)
        await self._report("renewed")

    def _begin_drain(self, *, is_now: bool = False) -> None:
        self._is_hastened = self._is_hastened or is_now
        self._drain_scope.cancel()

    async def _drain(self) -> int:
        """Wait until nothing is open or time is up, service by service; how many connections had to be cut."""
        worker, reactor = self._worker, self._reactor
        begun = trio.current_time()
        cut = 0
        while worker.open_connections:
            now = trio.current_time()
            for connection in list(worker.open_connections):
                drain_s = seconds(connection.runtime.service.timeouts.drain_s)
                if self._is_hastened or now >= begun + drain_s:
                    connection.drain()
                    cut += 1
            await trio.sleep(_DRAIN_LOOK_S)
        with trio.move_on_after(LINGER_S + 0.5):
            while reactor.held:
                await trio.sleep(_DRAIN_LOOK_S)
        return cut

    async def _tick(self) -> None:
        while True:
            await trio.sleep(1.0)
            self._log.tick()

    async def _answer(self, listing: socket.socket) -> None:
        """Answer the admin process's questions about open connections."""
        while True:
            await trio.lowlevel.wait_readable(listing)
            answer(listing, self._worker.observer.open.values())

    async def _report(self, kind: str, **values: object) -> None:
        data = report_bytes(kind, slot=self._plan.slot, **values)
        try:
            while data:
                data = data[await self._channel.send(data) :]
        except OSError:
            self._begin_drain()  # the supervisor is gone

    def _on_pause(self, service: str, reason: str) -> None:
        text = f"{service}: not accepting for now: out of {reason}"
        if reason == "max_connections":
            text = f"{service}: not accepting for now: max_connections are open"
        self._log.occasional("warning", "accept", text, service=service, reason=reason)

    def _on_crash(self, error: Exception) -> None:
        trace = "".join(traceback.format_exception(error))
        self._log.message("error", "crash", "an error of ours ended a connection; please report it", traceback=trace)
