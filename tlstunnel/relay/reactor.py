"""The reactor: one private epoll that wakes the links of a worker.

Theory of operation. A pair of trio tasks for each connection costs twice what the TLS does, so the data plane has an
event loop of its own. An epoll descriptor is itself readable when something it watches is ready: one trio task waits
for that and then calls `turn()`, which serves everything that is ready and returns. The reactor knows nothing of trio.

Descriptors are registered once, edge-triggered (`watch`); what the edges said is kept as state in the ends
(`is_readable`, `is_writable`). A mask only ever grows: a socket that once did not take everything is from then on also
watched for room (`watch_room`), which most never are, and so are spared the edge that says they have room at the start.
The price of edges: whoever stops before the kernel said EAGAIN, or gave less than was asked for, has to come back by
itself (`again`). Such a link is served once in each turn, after everything that the kernel reported, so a bulk flow
delays a small exchange by one chunk at most.

Deadlines are attributes, not timers: a sweep tells whoever is held and has one in the past. Activity is a store. What
had arrived before the sweep looked at the clock is served before anybody is told, so that a process that was stopped
does not call those silent whose bytes were waiting.

An event can be stale: its descriptor was closed, perhaps reused, earlier in the batch. To handlers that is EAGAIN.

Whatever a handler raises ends that handler and nothing else (`contain`): an error of ours, of whatever type, also in
the very code that ends a connection. What passes is KeyboardInterrupt, which is a signal and nobody's error.
"""

from __future__ import annotations

import select
import time
from collections import OrderedDict
from collections.abc import Callable
from types import MethodType
from typing import Any, Protocol, cast

EPOLLIN = select.EPOLLIN
EDGES = select.EPOLLIN | select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLET
EDGES_AND_ROOM = EDGES | select.EPOLLOUT
READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
WRITABLE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
HUNG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR | select.EPOLLPRI

MAX_EVENTS = 256
"""Events taken in one turn, so that a turn has an end whatever the load."""


class Handler(Protocol):
    """Whoever is told that a descriptor is ready."""

    def on_ready(self, fd: int, events: int) -> None:
        """The descriptor had these edges. `fd` is -1 when the handler itself asked for another turn."""

    def on_crash(self, error: BaseException) -> None:
        """A call of ours raised. End, release, report; or go on with that, where it was the end that raised."""

    def abandon(self) -> None:
        """`on_crash` raised as well. Let go of everything that is left; raises nothing."""


class Held(Handler, Protocol):
    """Whoever has a deadline."""

    deadline: float

    def on_deadline(self, now: float) -> None:
        """The deadline has passed: move it, or end."""


def _nobody_is_told(_error: BaseException) -> None:
    """Until somebody keeps a log."""


def try_all(*steps: Callable[[], object]) -> None:
    """Take every step, whatever the others raise: for what must be done although something has failed already."""
    for step in steps:
        try:
            step()
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001, S112 - no log, or no memory, is left to tell it: go on
            continue


class Reactor:
    """The event loop of one worker. `now` is the monotonic clock, read once a turn."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        # Bound in advance: CPython looks a method up slowly where handlers of several types meet (PEP 659).
        self._handlers: dict[int, MethodType] = {}
        self._again: OrderedDict[Handler, None] = OrderedDict()
        self.held: set[Held] = set()
        self.farewells = 0
        """Ends whose links are gone and whose descriptors are not, see `farewell`."""
        self.on_first_held: Callable[[], None] | None = None
        self.on_error: Callable[[BaseException], None] = _nobody_is_told
        """Told of every error that `contain` ends, once; what it raises itself is lost."""
        self.now = time.monotonic()

    def fileno(self) -> int:
        """Readable when a turn would find something to do."""
        return self._epoll.fileno()

    def watch(self, fd: int, handler: Handler, events: int = EDGES) -> None:
        """Report the descriptor's edges to the handler until it is forgotten."""
        self.hand_over(fd, handler)
        self._epoll.register(fd, events)

    def watch_room(self, fd: int) -> None:
        """From now on report room in the socket's send buffer too; at once if there is some."""
        self._epoll.modify(fd, EDGES_AND_ROOM)

    def hand_over(self, fd: int, handler: Handler) -> None:
        """Another handler takes over a watched descriptor."""
        self._handlers[fd] = handler.on_ready  # type: ignore[assignment]

    def forget(self, fd: int) -> None:
        """The descriptor is about to be closed, which takes it out of the epoll."""
        self._handlers.pop(fd, None)

    def is_others(self, fd: int, handler: Handler) -> bool:
        """Whether somebody else than this handler is told of a descriptor."""
        on_ready = self._handlers.get(fd)
        return on_ready is not None and on_ready.__self__ is not handler

    def pause(self, fd: int) -> None:
        """Stop watching a descriptor that stays open."""
        self._epoll.unregister(fd)
        self._handlers.pop(fd)

    def again(self, handler: Handler) -> None:
        """Serve the handler in the next turn, whether or not the kernel reports it."""
        self._again[handler] = None  # once, however often it asks

    def hold(self, held: Held) -> None:
        """Watch over somebody's deadline until they are released."""
        self.held.add(held)
        if self.on_first_held is not None:
            self.on_first_held()
            self.on_first_held = None

    def release(self, held: Held) -> None:
        """The deadline does not matter any more."""
        self.held.discard(held)

    def turn(self, wait_s: float = 0.0) -> int:
        """Serve what is ready, waiting for it at most `wait_s`. Returns how much was served; 0 is: nothing to do."""
        again = self._again
        events = self._epoll.poll(0 if again else wait_s, MAX_EVENTS)
        self.now = time.monotonic()
        get = self._handlers.get
        for fd, event in events:
            on_ready = get(fd)
            if on_ready is not None:
                try:
                    on_ready(fd, event)
                except BaseException as exc:  # noqa: BLE001 - see `contain`
                    self.contain(cast(Handler, on_ready.__self__), exc)
        served = len(events)
        if again:
            handler, _ = again.popitem(last=False)
            served += 1
            try:
                handler.on_ready(-1, 0)
            except BaseException as exc:  # noqa: BLE001 - see `contain`
                self.contain(handler, exc)
        return served

    def contain(self, handler: Handler, error: BaseException) -> None:
        """End a handler for which a call of ours raised: the one place where errors of ours end.

        Raises:
            KeyboardInterrupt: that was it.
        """
        self.note(error)
        try:
            handler.on_crash(error)
        except BaseException as second:  # noqa: BLE001 - as everywhere here
            self.note(second)
            handler.abandon()

    def note(self, error: BaseException) -> None:
        """Tell of an error of ours that ends nothing, or of which somebody else takes care.

        Raises:
            KeyboardInterrupt: that was it.
        """
        if isinstance(error, KeyboardInterrupt):
            raise error
        try_all(lambda: self.on_error(error))

    def guard(self, handler: Handler, call: Callable[..., object], *args: Any) -> None:
        """Call something for a handler that is not called by the reactor itself."""
        try:
            call(*args)
        except BaseException as exc:  # noqa: BLE001 - see `contain`
            self.contain(handler, exc)

    @property
    def is_busy(self) -> bool:
        """Whether somebody asked for another turn."""
        return bool(self._again)

    def sweep(self) -> None:
        """Tell everybody held whose deadline has passed and who has nothing waiting."""
        now = self.now = time.monotonic()
        if not any(held.deadline <= now for held in self.held):
            return
        # Enough for all that is ready and, one in a turn, for all who asked to come again; a flood is not waited out.
        for _ in range(1 + len(self._handlers) // MAX_EVENTS + len(self._again)):
            if not self.turn():
                break
        for held in [held for held in self.held if held.deadline <= now]:
            try:
                held.on_deadline(now)
            except BaseException as exc:  # noqa: BLE001 - see `contain`
                self.contain(held, exc)

    def close(self) -> None:
        """Close the epoll. What was watched is the handlers' own to close."""
        self._epoll.close()
