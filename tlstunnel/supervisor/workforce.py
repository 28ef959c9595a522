"""The workers of all generations: forked, heard, reaped, replaced.

A worker that dies has its gauges cleared and its slot filled again: at once the first time, with back-off when it dies
young again. A worker that cannot even begin says why; at start that ends the start, later it is one more crash.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from tlstunnel.observe.log import Log
from tlstunnel.server.channel import Order, Ping
from tlstunnel.supervisor.children import Child
from tlstunnel.supervisor.generation import Generation, Rows
from tlstunnel.supervisor.sockets import Listeners

STEADY_S = 10.0
"""A worker that lived this long is replaced at once when it dies; others with back-off."""
FIRST_BACKOFF_S = 0.25
MAX_BACKOFF_S = 30.0


class Workforce:
    """Every living worker, by pid.

    Args:
        on_end: called with each worker that has ended and been buried, and how it ended.
    """

    def __init__(self, rows: Rows, log: Log, on_end: Callable[[Child, str], None]) -> None:
        self._rows, self._log, self._on_end = rows, log, on_end
        self.children: dict[int, Child] = {}
        self._crashes: dict[int, int] = {}  # by slot, in a row

    def start(self, generation: Generation, slot: int, previous: Listeners | None = None) -> Child:
        """Fork the worker of a slot."""
        self._log.flush()
        child = generation.start_worker(slot, self._rows, self._log, list(self.children.values()), previous)
        self.children[child.pid] = child
        return child

    def tell(self, order: Order, children: list[Child] | None = None) -> None:
        """Give all of them, or these, an order."""
        for child in list(self.children.values()) if children is None else children:
            child.order(order)

    def hear(self, child: Child) -> None:
        """Take in what a worker has said."""
        for report in child.reports():
            kind = report["kind"]
            if kind == "ready":
                child.is_ready = True
            elif kind == "pong":
                child.ponged_at = time.monotonic()
            elif kind == "drained":
                child.cut = int(report.get("cut", 0))
            elif kind == "failed":
                child.failure = str(report.get("text", ""))[:500]

    def reap(self) -> list[tuple[int, int]]:
        """Bury the workers that have ended. Returns other children that have: pid and wait status."""
        others: list[tuple[int, int]] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return others
            if pid == 0:
                return others
            child = self.children.pop(pid, None)
            if child is None:
                others.append((pid, status))
                continue
            self.hear(child)
            child.channel.close()
            self._rows.give_back(child.row)
            self._on_end(child, how_it_ended(status))

    def backoff(self, child: Child) -> float:
        """Seconds to wait before the slot of a worker that ended unexpectedly is filled again."""
        crashes = 0 if time.monotonic() - child.started > STEADY_S else self._crashes.get(child.slot, 0)
        self._crashes[child.slot] = crashes + 1
        return 0.0 if crashes == 0 else min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0**crashes)

    def do_all_answer(self, children: list[Child], within_s: float) -> bool:
        """Whether each of these has answered a ping lately. Pings them again."""
        now = time.monotonic()
        answered = all(now - child.ponged_at < within_s for child in children)
        self.tell(Ping(int(now)), children)
        return answered

    def kill(self) -> None:
        """End all of them at once and wait until they are gone."""
        for child in self.children.values():
            child.kill()
        for pid in list(self.children):
            os.waitpid(pid, 0)
            self.children.pop(pid).channel.close()


def how_it_ended(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"
