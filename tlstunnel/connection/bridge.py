"""Where trio and the relay meet: the only module that knows both.

The reactor sleeps inside trio: its epoll descriptor is readable when a turn would find something to do, so one task
waits for that and calls `turn`. Going through trio costs some 20 µs, as much as the rest of a small exchange, so after
a turn that served something the task lends the thread to the reactor once more: it waits in the reactor's own epoll
for LINGER_S, as long as trio has no business of its own (`_asked` is empty). Everything that wakes a worker while links
are busy is in that epoll or is a signal, which interrupts the wait; and every SLICE_S trio has its turn in any case
(ladder: linger-p50).

Whoever needs trio (a name to resolve, addresses to race) asks: `ask` runs an async function in a task and calls back.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from tlstunnel.relay.reactor import Handler, Reactor

LINGER_S = 0.003
SLICE_S = 0.05
SWEEP_S = 0.25
"""How often deadlines are looked at: timeouts are this exact."""

_Answer = TypeVar("_Answer")


class Bridge:
    """Runs a reactor inside trio."""

    def __init__(self, reactor: Reactor, after_turn: Callable[[], None]) -> None:
        self._reactor = reactor
        self._after_turn = after_turn
        self._nursery: trio.Nursery | None = None
        self._asked = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Turn the reactor until cancelled. Cancellation leaves every link as it is."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._sweep)
            task_status.started()
            await self._turn()

    def ask(
        self,
        work: Callable[[], Awaitable[_Answer]],
        handler: Handler,
        answer: Callable[[_Answer | BaseException], None],
    ) -> None:
        """Run `work` in a task of its own and give what it returns, or whatever it raises, to `answer` of a handler."""
        assert self._nursery is not None  # noqa: S101 - nobody asks before `run`
        self._nursery.start_soon(self._work, work, handler, answer)
        self._asked += 1

    async def _work(
        self,
        work: Callable[[], Awaitable[_Answer]],
        handler: Handler,
        answer: Callable[[_Answer | BaseException], None],
    ) -> None:
        try:
            result: _Answer | BaseException = await work()
        except Exception as exc:  # noqa: BLE001 - whose work it was is told, and nobody else
            result = exc
        except BaseException as exc:
            if _is_trios(exc):
                raise
            result = exc
        finally:
            self._asked -= 1
        self._reactor.guard(handler, answer, result)
        del result  # its traceback would keep it, and all that was held there, for the collector

    async def _turn(self) -> None:
        reactor = self._reactor
        fd = reactor.fileno()
        while True:
            if reactor.is_busy:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(fd)
            turn, clock = reactor.turn, time.monotonic
            until = clock() + SLICE_S
            while turn(0.0 if self._asked else LINGER_S) and clock() < until:
                pass
            try:
                self._after_turn()
            except BaseException as exc:  # noqa: BLE001 - lines may be lost, links not
                reactor.note(exc)

    async def _sweep(self) -> None:
        reactor = self._reactor
        while True:
            # Nobody held is nothing to time out: an idle worker sleeps for good.
            if not reactor.held:
                await self._until_held()
            await trio.sleep(SWEEP_S)
            reactor.sweep()

    async def _until_held(self) -> None:
        woken = trio.Event()
        self._reactor.on_first_held = woken.set
        await woken.wait()


def _is_trios(error: BaseException) -> bool:
    """Whether an exception is how trio or a signal ends a task, and not an error."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_trios, error.exceptions))
    return isinstance(error, trio.Cancelled | KeyboardInterrupt | GeneratorExit)
