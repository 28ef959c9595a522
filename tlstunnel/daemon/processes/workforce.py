"""The workers of all generations: forked, listened to, reaped, replaced.

A worker that dies has its gauges cleared and its slot filled again: at once the first time, with back-off when it dies
young again, and so for ever: the machine that has no memory or no descriptor now may have some later.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable

from tlstunnel.daemon.processes import lost_lines, messages, worker
from tlstunnel.daemon.processes.children import Child, fork
from tlstunnel.daemon.processes.generation import Generation
from tlstunnel.daemon.processes.messages import Drain, Drained, Failed, Order, Ping, Pong, Ready, Report, report_bytes
from tlstunnel.daemon.processes.publish import open_now
from tlstunnel.daemon.processes.state import Daemon
from tlstunnel.daemon.processes.worker import EXIT_BOOT
from tlstunnel.daemon.system import privileges
from tlstunnel.errors import StartupError, TunnelError, words_of

STEADY_S = 10.0
"""A worker that lived this long is replaced at once when it dies; others with back-off."""
FIRST_BACKOFF_S = 0.25
MAX_BACKOFF_S = 30.0
MISSING_S = 1.0
"""Between attempts to fork a worker that the machine has no room for."""
GRACE_S = 5.0
"""How long after the end of its drain a worker may live: it lingers for a second, so that peers get its last bytes,
and the machine may be slow.
One that hangs must not keep a daemon from stopping."""


class Workforce:
    """Every living worker.

    Args:
        on_report: called with a worker's reports that are not the workforce's own business.
        on_end: called with each worker that has ended and been reaped, and how it ended.
    """

    def __init__(
        self, daemon: Daemon, on_report: Callable[[Child, Report], None], on_end: Callable[[Child, str], None]
    ) -> None:
        self._daemon, self._on_report, self._on_end = daemon, on_report, on_end
        self._crashes: dict[int, int] = {}  # by slot, in a row

    def start(self, generation: Generation, slot: int) -> Child:
        """Fork the worker of a slot.

        Raises:
            StartupError: the machine has no room for it.
        """
        daemon = self._daemon
        generation.log.flush()
        row = daemon.rows.acquire()
        try:
            ours, theirs = messages.pair()
        except OSError as exc:
            daemon.rows.release(row)
            raise StartupError(f"cannot start a worker: {words_of(exc)}") from exc
        others = daemon.other_listeners(generation)
        listing = daemon.rows.worker_ends.get(row.index)

        def body() -> int:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            generation.log.begin_in_child()
            try:
                ours.close()
                daemon.close_in_child(listing)
                sockets = generation.listeners.keep_slot(slot, but=others)
                privileges.become(daemon.identity)
                return worker.main(
                    worker.Plan(
                        config=generation.config,
                        contexts=generation.inventory.contexts,
                        sockets=sockets,
                        series=generation.series,
                        row=row,
                        log=generation.log,
                        channel=theirs,
                        listing=listing,
                        ledger=daemon.rows.ledger,
                        capacity=generation.capacity,
                    )
                )
            except Exception as exc:  # noqa: BLE001 - whatever it is, the supervisor gets it and logs it
                if not isinstance(exc, TunnelError | OSError):
                    trace = "".join(traceback.format_exception(exc))
                    text = "an error of ours ended a worker; please report it"
                    generation.log.message("error", "crash", text, traceback=trace)
                generation.log.finish()
                theirs.setblocking(False)
                theirs.sendall(report_bytes(Failed(messages.one_line(str(exc) or type(exc).__name__))))
                return EXIT_BOOT

        try:
            pid = fork(body)
        except StartupError:
            daemon.rows.release(row)
            ours.close()
            raise
        finally:
            theirs.close()
        child = Child(pid, slot, generation.number, row, ours)
        generation.workers[slot] = child
        daemon.children[pid] = child
        return child

    def send(self, order: Order, children: list[Child] | None = None) -> None:
        """Send an order to all of them, or to these."""
        for child in list(self._daemon.children.values()) if children is None else children:
            child.send(order)

    def read_reports(self, child: Child) -> None:
        """Read what a living worker has reported, and end one that nobody can talk with any more."""
        self._handle_reports(child)
        if child.is_silent and child.cut is None:
            child.kill()

    def _handle_reports(self, child: Child) -> None:
        for report in child.reports():
            if isinstance(report, Pong):
                child.ponged_at = time.monotonic()
                did_answer, child.unanswered = child.answers, 0
                if not did_answer:
                    self._daemon.publish()
            elif isinstance(report, Drained):
                child.cut = report.cut
            elif isinstance(report, Failed):
                child.failure = report.reason
            else:
                if isinstance(report, Ready):
                    child.is_ready, child.unanswered = True, 0
                    self._daemon.publish()
                self._on_report(child, report)

    def reap(self) -> list[tuple[int, int]]:
        """Reap the workers that have ended. Returns other children that have: pid and wait status."""
        daemon = self._daemon
        others: list[tuple[int, int]] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return others
            if pid == 0:
                return others
            child = daemon.children.pop(pid, None)
            if child is None:
                others.append((pid, status))
                continue
            daemon.timers.cancel(f"end {pid}")
            self._handle_reports(child)
            child.channel.close()
            if child.cut is None:
                # It was killed without a report: what it had not cut itself was cut by that.
                cut = child.row.counters[daemon.generation.series.process.cut]
                child.cut = cut + open_now(daemon.generation, [child])
            lost_lines.report_worker(daemon, child)
            daemon.rows.release(child.row)
            self._on_end(child, child.failure or how_it_ended(status))

    def refill(self, child: Child, how: str) -> None:
        """A worker has ended: if it was one that serves, log it and fill its slot again."""
        daemon, generation = self._daemon, self._daemon.generation
        if generation.workers.get(child.slot) is not child:
            return
        del generation.workers[child.slot]
        if daemon.phase != "ready":
            return
        daemon.row.counters[generation.series.process.worker_restarts] += 1
        delay_s = self._backoff(child)
        when = f"in {delay_s:g} s" if delay_s else "now"
        text = f"worker {child.pid} ended unexpectedly ({how}); its replacement starts {when}"
        daemon.log.message("error", "worker", text, pid=child.pid)
        self._fill_later(child.slot, delay_s)

    def _backoff(self, child: Child) -> float:
        """Seconds to wait before the slot of this worker is filled again."""
        crashes = 0 if time.monotonic() - child.started > STEADY_S else self._crashes.get(child.slot, 0)
        self._crashes[child.slot] = crashes + 1
        return 0.0 if crashes == 0 else min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0**crashes)

    def _fill_later(self, slot: int, delay_s: float) -> None:
        self._daemon.timers.after(delay_s, f"worker {slot}", lambda: self._fill(slot))

    def _fill(self, slot: int) -> None:
        daemon, generation = self._daemon, self._daemon.generation
        # A reload may have filled the slot, or left it out.
        if daemon.phase != "ready" or slot >= generation.slots or slot in generation.workers:
            return
        try:
            self.start(generation, slot)
        except StartupError as exc:
            daemon.log.message("error", "worker", f"a worker is missing: {exc}")
            self._fill_later(slot, MISSING_S)
        daemon.publish()

    def drain(self, generation: Generation) -> None:
        """Have a generation's workers finish and end, within their drain_timeout or by force soon after."""
        leaving = [child for child in self._daemon.children.values() if child.generation == generation.number]
        for child in leaving:
            child.is_draining = True
            self._end_within(generation.drain_s + GRACE_S, child)
        self.send(Drain(), leaving)

    def hasten(self) -> None:
        """Cut what is still open everywhere, now."""
        self.send(Drain(is_now=True))
        for child in self._daemon.children.values():
            self._end_within(GRACE_S, child)

    def do_all_answer(self, within_s: float) -> bool:
        """Whether each worker that has begun answered a ping lately. Pings them again."""
        now = time.monotonic()
        begun = [child for child in self._daemon.children.values() if child.is_ready]
        answered = all(now - child.ponged_at < within_s for child in begun)
        self.send(Ping(), begun)
        return answered

    def _end_within(self, delay_s: float, child: Child) -> None:
        def end() -> None:
            text = f"worker {child.pid} has not ended by the end of its drain and is killed"
            self._daemon.log.message("error", "worker", text, pid=child.pid)
            child.kill()

        self._daemon.timers.after(delay_s, f"end {child.pid}", end)


def how_it_ended(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"killed by {signal.Signals(number).name}" if number in set(signal.Signals) else f"killed by {number}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"
