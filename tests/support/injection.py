"""A worker in this process, in a thread, at one of whose calls an exception is raised.

    with injection.running(config) as worker:
        worker.listen_on("web")                        # its port
        sites = worker.record(lambda: talk(port))      # every call that serves what `talk` does
        ...
    with injection.running(config) as worker:
        worker.inject(sites[7], MemoryError, lambda: talk(port))

A site is a call from our own code, of a function of ours or of one in C, while something is done for a connection: in a
turn or a sweep of the reactor, or in a task of trio's for one. The exception comes out of the call in place of its
result, and only once. What belongs to the loops themselves is left out: they serve nobody.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import trio

import tlstunnel
from tests.support.logs import ListSink, log_on
from tlstunnel.config.load import load_file
from tlstunnel.connection import bridge
from tlstunnel.connection.ledger import Ledger
from tlstunnel.daemon.processes import messages, worker
from tlstunnel.observe.counters import Counters
from tlstunnel.observe.series import series_for
from tlstunnel.relay import linger, reactor
from tlstunnel.tls.inventory import Inventory, take
from tlstunnel.x509.passphrase import PassphraseSource

PACKAGE = str(Path(tlstunnel.__file__).parent)
PATIENCE_S = 8.0
Site = tuple[str, str, int]
"""What is called, and from where: a function and a line."""


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    """The code, and that of the comprehensions in it, which are calls of their own (all before Python 3.12)."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_inner(constant)


_LOOPS: set[CodeType] = {
    code
    for function in (
        reactor.Reactor.turn,
        reactor.Reactor.sweep,
        reactor.Reactor.contain,
        reactor.Reactor.guard,
        reactor.Reactor.note,
        reactor.Reactor.is_busy.fget,  # type: ignore[attr-defined]
        reactor.try_all,
        linger.drop,
        bridge.Bridge._turn,
        bridge.Bridge._sweep,
        bridge.Bridge._work,
        bridge._is_trios,
    )
    for code in _with_inner(function.__code__)
}
_ENTRIES: set[CodeType] = {
    reactor.Reactor.turn.__code__, reactor.Reactor.sweep.__code__, bridge.Bridge._work.__code__,
    bridge.Bridge._turn.__code__,
}  # fmt: skip


class Injector:
    """The profile function of the worker's thread."""

    def __init__(self) -> None:
        self.is_armed = False
        self.sites: dict[Site, None] = {}
        self.at: Site | None = None
        self.make: Callable[[], BaseException] = ValueError
        self.has_raised = False
        self.spares: tuple[object, ...] = ()
        """Whoever is not to be hit."""

    def __call__(self, frame: FrameType, event: str, called: Any) -> None:
        if not self.is_armed:
            return
        if event == "call":
            caller, name = frame.f_back, frame.f_code.co_qualname
            if caller is None or frame.f_code in _LOOPS or not frame.f_code.co_filename.startswith(PACKAGE):
                return
        elif event == "c_call":
            caller, name = frame, called.__qualname__
        else:
            return
        if not caller.f_code.co_filename.startswith(PACKAGE) and event == "c_call":
            return
        if event == "c_call" and caller.f_code in _LOOPS:
            return
        if not self._serves_somebody(caller):
            return
        site = (name, caller.f_code.co_qualname, caller.f_lineno or 0)
        if self.at is None:
            self.sites[site] = None
        elif site == self.at and not self.has_raised:
            self.has_raised, self.is_armed = True, False
            raise self.make()  # not kept: its traceback holds what its frames held

    def _serves_somebody(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if any(frame.f_locals.get(name) in self.spares for name in ("self", "held")):
                return False
            if frame.f_code in _ENTRIES:
                return True
            frame = frame.f_back
        return False


@dataclass
class State:
    """What a worker holds while nothing goes on."""

    open: int
    places: int
    active: int
    records: int
    held: int
    handlers: int
    descriptors: int = field(compare=False)
    farewells: int
    per_address: int

    def is_as(self, before: State) -> bool:
        """Whether nothing was kept since then. What the test's own backends close late was open before."""
        return self == before and self.descriptors <= before.descriptors


@dataclass
class Running:
    """A worker that runs in a thread."""

    run: Any
    sockets: dict[str, tuple[socket.socket, ...]]
    row: Any
    series: Any
    sink: ListSink
    injector: Injector
    is_over: threading.Event = field(default_factory=threading.Event)
    token: Any = None
    """Of the worker's trio."""

    def port(self, service: str) -> int:
        """Where a service listens."""
        return int(self.sockets[service][0].getsockname()[1])

    def state(self) -> State:
        """What it holds now."""
        run = self.run
        worker = run._worker
        return State(
            open=len(worker.open_connections),
            places=sum(self.row.counters[runtime._taken] for runtime in run._runtimes),
            active=sum(self.row.counters[each.active] for each in self.series.services),
            records=len(run._worker.observer.open),
            held=len(run._reactor.held),
            handlers=len(run._reactor._handlers),
            descriptors=len(list(Path("/proc/self/fd").iterdir())),
            farewells=run._reactor.farewells,
            per_address=max((worker.ledger.count(place) for place in self.places()), default=0),
        )

    def places(self) -> list[int]:
        """Where the open connections' addresses are counted."""
        found = [each._place for each in list(self.run._worker.open_connections)]
        return [place for place in found if place is not None]

    def record(self, act: Callable[[], object]) -> list[Site]:
        """Every site that is passed while something is done."""
        self.injector.sites.clear()
        self.injector.at = None
        self._arm()
        act()
        self.injector.is_armed = False
        return list(self.injector.sites)

    def _arm(self) -> None:
        """Watch the worker's thread, which stops by itself when something is raised from there."""
        is_set = threading.Event()

        def arm() -> None:
            sys.setprofile(self.injector)
            is_set.set()

        self.token.run_sync_soon(arm)
        assert is_set.wait(PATIENCE_S)
        self.injector.is_armed = True

    def inject(self, site: Site, make: Callable[[], BaseException], act: Callable[[], object]) -> bool:
        """Raise at this site while something is done; whether it was passed."""
        self.injector.at, self.injector.make, self.injector.has_raised = site, make, False
        self._arm()
        act()
        self.injector.is_armed = False
        return self.injector.has_raised


class Inventories:
    """The TLS material of configurations, made once."""

    def __init__(self) -> None:
        self._made: dict[Path, Inventory] = {}

    def of(self, path: Path) -> Inventory:
        if path not in self._made:
            self._made[path] = take(load_file(path), PassphraseSource({}))
        return self._made[path]


INVENTORIES = Inventories()


@contextmanager
def running(path: Path) -> Iterator[Running]:
    """A worker for the services of a configuration file, each on a port of its own, until the block is left."""
    config = load_file(path)
    series = series_for(config)
    counters = Counters(series.layout, 1)
    row, ledger = counters.row(0), Ledger(counters)
    sink = ListSink()
    log = log_on(sink, form="json")
    sockets = {service.name: (socket.create_server(("127.0.0.1", 0)),) for service in config.services}
    ours, theirs = messages.pair()
    plan = worker.Plan(
        config=config, contexts=INVENTORIES.of(path).contexts, sockets=dict(sockets), series=series, row=row, log=log,
        channel=theirs, listing=None, ledger=ledger, capacity=1000,
    )  # fmt: skip
    run = worker._Run(plan)
    injector = Injector()
    held = Running(run, sockets, row, series, sink, injector)
    ended: list[object] = []

    async def begin() -> int:
        held.token = trio.lowlevel.current_trio_token()
        return await run.run()

    def body() -> None:
        try:
            ended.append(trio.run(begin))
        except BaseException as exc:  # noqa: BLE001 - the test looks at it
            ended.append(exc)
        finally:
            held.is_over.set()

    thread = threading.Thread(target=body, daemon=True, name="worker")
    thread.start()
    reports = messages.Unframer(messages.MAX_REPORT)
    ours.settimeout(PATIENCE_S)
    assert reports.feed(ours.recv(4096)), "it did not begin"
    try:
        yield held
        assert not held.is_over.is_set(), f"the worker has ended: {ended}"
        ours.sendall(messages.order_bytes(messages.Drain(is_now=True)))
        thread.join(PATIENCE_S)
        assert ended in ([0], [1]), f"the worker ended so: {ended}"
    finally:
        injector.is_armed = False
        with contextlib.suppress(OSError):
            ours.close()
        thread.join(PATIENCE_S)
        theirs.close()
        for (sock,) in sockets.values():
            sock.close()
        os.close(ledger.told)
