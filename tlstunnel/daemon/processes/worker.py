"""A worker process: accepts on the sockets it was given, relays, obeys the supervisor, ends when it has drained.

It reads no file and opens no listening socket: everything comes in the `Plan`. Its states go one way:

    STARTING --listening--> READY --Drain, or the supervisor is gone--> DRAINING --nothing open--> ended

One nursery carries everything and stays until the last connection has ended or its time is up: the reactor, the
channel (obeyed in every state, for a second order may hasten the drain), the listing, the clock of the log. Once
nothing is open, the log's reader has ENDING_S to take the last lines.

When the supervisor is gone, nobody would replace us, renew our keys or tell us to stop. The worker then drains as if it
had been told to: listening sockets are closed at once, so that a new daemon can have the ports, and links have their
drain_timeout. SIGTERM, which is the supervisor's business until then, ends such an orphan at once.
"""

from __future__ import annotations

import signal
import socket
import traceback
from dataclasses import dataclass
from enum import Enum

import trio

from tlstunnel import _openssl
from tlstunnel.clock import PatientClock
from tlstunnel.config.model import Config
from tlstunnel.connection.accept import Acceptor
from tlstunnel.connection.bridge import Bridge
from tlstunnel.connection.ledger import Ledger
from tlstunnel.connection.resolve import Names
from tlstunnel.connection.runtime import ServiceRuntime, Worker
from tlstunnel.daemon.processes.messages import (
    MAX_ORDER,
    Drain,
    Drained,
    Order,
    Ping,
    Pong,
    Ready,
    Renew,
    Renewed,
    Reopen,
    Report,
    Staple,
    Unframer,
    parse_order,
    report_bytes,
)
from tlstunnel.daemon.system import memory
from tlstunnel.observe.counters import Row
from tlstunnel.observe.listing import answer
from tlstunnel.observe.log import Log
from tlstunnel.observe.observer import Observer
from tlstunnel.observe.series import Series
from tlstunnel.relay.linger import LINGER_S
from tlstunnel.relay.reactor import Reactor
from tlstunnel.tls.store import ServiceContexts

EXIT_CUT = 1
"""Links had to be cut at the end of the drain."""
EXIT_BOOT = 3
"""The worker could not begin."""
_DRAIN_LOOK_S = 0.02
"""How often a draining worker looks whether it is done: nobody waits for it, a human would not notice."""


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
    series: Series
    row: Row
    log: Log
    channel: socket.socket
    listing: socket.socket | None
    """Where the admin process asks for open connections."""
    ledger: Ledger
    """What connections are counted by, over all workers."""
    capacity: int
    """How many connections there are descriptors for."""


def main(plan: Plan) -> int:
    """Run until drained; the exit status."""
    return trio.run(_Run(plan).run, clock=PatientClock())


class _Run:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._log = plan.log
        self._log.begin_in_child(batched=True)
        self._log.count_on(plan.row, plan.series.process)
        self._reactor = Reactor()
        self._bridge = Bridge(self._reactor, self._log.flush)
        observer = Observer(plan.series, plan.row, self._log)
        self._worker = Worker(
            self._reactor,
            self._bridge,
            observer,
            plan.ledger,
            max_connections=plan.config.process.max_connections,
            capacity=plan.capacity,
        )
        self._reactor.on_error = self._on_error
        _openssl.tell_errors_to(self._on_error)
        self._state = State.STARTING
        self._is_leaving = trio.Event()
        self._is_hastened = trio.Event()
        self._runtimes: list[ServiceRuntime] = []

    async def run(self) -> int:
        plan = self._plan
        trio.socket.set_custom_hostname_resolver(Names())
        async with trio.open_nursery() as nursery:
            await nursery.start(self._bridge.run)
            nursery.start_soon(self._tick)
            if plan.listing is not None:
                nursery.start_soon(self._answer, plan.listing)
            acceptors = self._accept()
            self._state = State.READY
            nursery.start_soon(self._obey)
            self._report(Ready())
            await self._is_leaving.wait()
            self._state = State.DRAINING
            for acceptor in acceptors:
                acceptor.close()
            cut = await self._drain()
            nursery.cancel_scope.cancel()
        self._log.finish()
        self._report(Drained(cut))
        return EXIT_CUT if cut else 0

    def _accept(self) -> list[Acceptor]:
        plan = self._plan
        acceptors = []
        for index, service in enumerate(plan.config.services):
            runtime = ServiceRuntime(self._worker, index, service, plan.contexts[index])
            self._runtimes.append(runtime)
            acceptors += [Acceptor(runtime, sock, self._on_pause) for sock in plan.sockets[service.name]]
        return acceptors

    async def _obey(self) -> None:
        """Carry out the supervisor's orders, until it is gone."""
        channel = trio.socket.from_stdlib_socket(self._plan.channel)
        unframer = Unframer(MAX_ORDER)
        try:
            while data := await channel.recv(65536):
                for payload in unframer.feed(data):
                    self._do(parse_order(payload))
        except ConnectionError:
            pass  # it died with reports of ours unread; the end of a channel all the same
        self._log.message("error", "orphan", "the supervisor is gone: accepting nothing more, finishing what is open")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._is_leaving.set()

    def _do(self, order: Order) -> None:
        if isinstance(order, Ping):
            self._report(Pong())
        elif isinstance(order, Drain):
            self._is_leaving.set()
            if order.is_now:
                self._is_hastened.set()
        elif isinstance(order, Reopen):
            self._log.reopen()
        elif isinstance(order, Renew):
            for runtime, material in zip(self._runtimes, order.materials, strict=True):
                runtime.renew(material)
            self._report(Renewed())
        elif isinstance(order, Staple):
            for runtime, staples in zip(self._runtimes, order.staples, strict=True):
                if staples is not None:
                    runtime.contexts.staple(staples)

    async def _drain(self) -> int:
        """Wait until nothing is open or time is up, service by service; how many connections had to be cut."""
        worker, reactor, hastened = self._worker, self._reactor, self._is_hastened
        counters, number = self._plan.row.counters, self._plan.series.process.cut
        begun = trio.current_time()
        ends = {runtime: begun + runtime.service.timeouts.drain_s for runtime in self._runtimes}
        while worker.open_connections:
            now = trio.current_time()
            late = {runtime for runtime, end in ends.items() if now >= end or hastened.is_set()}
            if late:
                for connection in [each for each in worker.open_connections if each.runtime in late]:
                    reactor.guard(connection, connection.drain)
                    counters[number] += 1
            await trio.sleep(_DRAIN_LOOK_S)
        with trio.move_on_after(LINGER_S + 0.5):
            while reactor.held:
                await trio.sleep(_DRAIN_LOOK_S)
        return counters[number]

    async def _tick(self) -> None:
        while True:
            await trio.sleep(1.0)
            try:
                self._keep_house()
            except BaseException as exc:  # noqa: BLE001 - no reason to cut links
                self._reactor.note(exc)

    def _keep_house(self) -> None:
        self._log.tick()
        scratch = self._worker.scratch
        if scratch.has_slimmed:
            scratch.has_slimmed = False
            scratch.give_back()
            memory.trim_heap()

    async def _answer(self, listing: socket.socket) -> None:
        """Answer the admin process's questions about open connections."""
        while True:
            await trio.lowlevel.wait_readable(listing)
            try:
                answer(listing, self._worker.observer.open.values())
            except BaseException as exc:  # noqa: BLE001 - the request gets no answer, and the connections go on
                self._reactor.note(exc)

    def _report(self, report: Report) -> None:
        """Send the supervisor a report. It reads all the time; one without room, a pong among thousands, is lost."""
        try:
            self._plan.channel.send(report_bytes(report), socket.MSG_DONTWAIT)
        except OSError:
            return  # if it is gone, `_obey` learns of it

    def _on_pause(self, service: str, reason: str) -> None:
        text = f"{service}: not accepting for now: out of {reason}"
        if reason == "max_connections":
            text = f"{service}: not accepting for now: max_connections are open"
        self._log.occasional("warning", "accept", text, service=service, reason=reason)

    def _on_error(self, error: BaseException) -> None:
        trace = "".join(traceback.format_exception(error))
        self._log.message("error", "crash", "an error of ours ended a connection; please report it", traceback=trace)
