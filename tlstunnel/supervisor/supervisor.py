"""The supervisor: binds, reads keys, forks workers, replaces them, reloads, drains. Relays and parses nothing.

Theory of operation. One loop over poll(2): signals (through a wakeup descriptor), the workers' channels, and a few
times at which something is due. There are no threads and no event loop that a fork could break. Handlers only note a
signal; the loop acts on it. What the loop holds is listed in `__init__`; everything else follows from it.

    start       read and judge - listen - fork the admin process and the workers - wait until every worker is ready
    a worker dies                its slot is filled again (workforce)
    SIGHUP, or the poll          `reload.load`, then either new material for living workers, or a new generation:
                                 forked first, the old one drains only when every new worker is ready
    SIGTERM                      stop listening, drain, end; a second one hastens

Nothing leaves draining except the end. A reload that fails changes nothing, says why, and counts.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

from tlstunnel._version import VERSION
from tlstunnel.config.model import Config
from tlstunnel.errors import StartupError, TunnelError
from tlstunnel.observe.board import SUPERVISOR_ROW, Board
from tlstunnel.observe.log import open_log
from tlstunnel.observe.schema import schema_for
from tlstunnel.observe.state import ReloadState
from tlstunnel.server.channel import Drain, Renew, Reopen
from tlstunnel.supervisor import privileges, reload
from tlstunnel.supervisor.activation import take_inherited
from tlstunnel.supervisor.children import Child, signal_process
from tlstunnel.supervisor.generation import MAX_ROWS, Generation, Rows
from tlstunnel.supervisor.limits import descriptor_budget, raise_descriptor_limit, usable_cores
from tlstunnel.supervisor.sdnotify import Notifier
from tlstunnel.supervisor.showing import Showing
from tlstunnel.supervisor.sockets import open_listeners
from tlstunnel.supervisor.workforce import Workforce, how_it_ended
from tlstunnel.tls import inventory, portable
from tlstunnel.tls.passphrase import PassphraseSource

BOOT_S = 20.0
"""How long a worker may take to begin."""
EXTEND_S = 15.0
STATUS_S = 5.0


OnReady = Callable[[dict[str, tuple[str, ...]]], None]
OnChildEnd = Callable[[int, int], None]


def run(config: Config, *, on_ready: OnReady | None = None, on_child_end: OnChildEnd | None = None) -> int:
    """Run a configuration until it is told to stop; the exit status.

    Args:
        on_ready: called once when every worker is, with the bound addresses of each service.
        on_child_end: called with pid and exit status of a child that is not the supervisor's own, if the caller forked
            one (the supervisor reaps them all).

    Raises:
        TunnelError: it could not start. Nothing is left behind.
    """
    notifier = Notifier.from_environment()
    try:
        return _Supervisor(config, notifier, on_ready, on_child_end).run()
    except TunnelError as exc:
        notifier.failed(str(exc).splitlines()[0])
        raise
    finally:
        notifier.close()


class _Supervisor:
    def __init__(
        self, config: Config, notifier: Notifier, on_ready: OnReady | None, on_child_end: OnChildEnd | None
    ) -> None:
        self._notifier, self._on_ready, self._on_child_end = notifier, on_ready, on_child_end
        self._passphrases = PassphraseSource.of_this_process()
        inherited = take_inherited()
        material = inventory.take(config, self._passphrases)
        self._identity = privileges.resolve_identity(config.process.user, config.process.group)
        self._owner = None if self._identity is None else (self._identity.uid, self._identity.gid)
        slots = config.process.workers or usable_cores()
        limit = raise_descriptor_limit()
        listeners = open_listeners(config, slots, inherited=inherited, owner=self._owner)
        try:
            self._budget = descriptor_budget(config, limit=limit, listeners=len(list(listeners)), workers=slots)
            self._log = open_log(config.log)
        except TunnelError:
            listeners.close()
            raise
        schema = schema_for(config)
        self._board = Board(schema.layout, MAX_ROWS)
        self._row = self._board.row(SUPERVISOR_ROW)
        self._rows = Rows(self._board)
        self._generation = Generation(1, config, material, time.time(), listeners, schema, self._identity)
        self._workforce = Workforce(self._rows, self._log, self._on_worker_end)
        self._showing = Showing(self._board, self._row)
        self._admin_pid: int | None = None
        self._poll = reload.Poll(config)
        self._due: dict[str, float] = {}  # what to do, and when (monotonic)
        self._signals: list[int] = []
        self._wakeup, self._wakeup_write = socket.socketpair()
        self._phase = "starting"
        self._cut = 0

    # Life.

    def run(self) -> int:
        generation = self._generation
        self._catch_signals()
        try:
            for warning in (*portable.warnings(), *generation.inventory.warnings, *generation.listeners.warnings):
                self._log.message("warning", "config", warning)
            self._log.message("info", "start", f"tlstunnel {VERSION}: {self._budget}")
            self._start_admin()
            self._start_workers(generation, None)
        except TunnelError:
            self._workforce.kill()
            self._stop_admin()
            generation.listeners.close()
            raise
        sys.stderr.write("".join(f"{line}\n" for line in generation.ready_lines()))
        sys.stderr.flush()
        self._row.floats[generation.schema.process.last_reload_success] = time.time()
        if self._phase == "starting":
            self._phase = "ready"
        self._show()
        self._notifier.ready(self._showing.status_text(generation))
        if self._on_ready is not None:
            self._on_ready(generation.bound())
        self._schedule()
        while self._phase != "draining" or self._workforce.children:
            self._step()
        self._phase = "stopped"
        self._show()
        self._stop_admin()
        text = f"stopped; {self._cut} connections were cut at the end of the drain" if self._cut else "stopped"
        self._log.message("warning" if self._cut else "info", "stop", text)
        self._notifier.barrier()
        return 1 if self._cut else 0

    def _step(self) -> None:
        """Wait for the next thing to happen, and do what it asks for."""
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        by_fd = {child.channel.fileno(): child for child in self._workforce.children.values()}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        now = time.monotonic()
        wait_s = max(0.0, min(self._due.values(), default=now + 3600) - now)
        for fd, _ in poll.poll(wait_s * 1000 + 1):
            if fd in by_fd:
                self._workforce.hear(by_fd[fd])
            else:
                with contextlib.suppress(BlockingIOError):
                    self._wakeup.recv(4096)
        for pid, status in self._workforce.reap():
            if pid == self._admin_pid:
                self._on_admin_end(how_it_ended(status))
            elif self._on_child_end is not None:
                self._on_child_end(pid, os.waitstatus_to_exitcode(status))
        while self._signals:
            self._obey(self._signals.pop(0))
        now = time.monotonic()
        for what in [what for what, when in self._due.items() if when <= now]:
            self._due.pop(what, None)
            self._do(what)

    def _catch_signals(self) -> None:
        self._wakeup.setblocking(False)
        self._wakeup_write.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda number, _frame: self._signals.append(number))
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake the loop

    def _obey(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._drain()
        elif number == signal.SIGHUP and self._phase == "ready":
            self._reload()
        elif number == signal.SIGUSR1:
            self._log.reopen()
            self._workforce.tell(Reopen())
            if self._admin_pid is not None:
                signal_process(self._admin_pid, signal.SIGUSR1)

    def _do(self, what: str) -> None:
        """Something is due. While draining only what concerns the drain still is."""
        now = time.monotonic()
        generation = self._generation
        if what == "log":
            self._log.tick()
            self._due["log"] = now + 1.0
        elif what == "status":
            self._notifier.status(self._showing.status_text(generation))
            self._due["status"] = now + STATUS_S
        elif what == "watchdog":
            # A loop that is stuck must show: the manager hears from us only while every worker answers.
            every_s = (self._notifier.watchdog_s or 0.0) / 4
            if self._workforce.do_all_answer(list(generation.workers.values()), 2 * every_s):
                self._notifier.watchdog()
            self._due["watchdog"] = now + every_s
        elif what == "extend":
            self._notifier.extend_timeout(2 * EXTEND_S)
            self._due["extend"] = now + EXTEND_S
        elif self._phase != "ready":
            return
        elif what == "admin":
            self._start_admin()
        elif what == "poll":
            if self._poll.look():
                self._reload()
            self._schedule_poll()
        elif what.startswith("worker "):
            slot = int(what.split()[1])
            if slot < generation.slots and slot not in generation.workers:
                self._workforce.start(generation, slot)
                self._show()

    def _schedule(self) -> None:
        now = time.monotonic()
        self._due["log"] = now + 1.0
        if self._notifier.is_active:
            self._due["status"] = now + STATUS_S
            if self._notifier.watchdog_s:
                self._due["watchdog"] = now
        self._schedule_poll()

    def _schedule_poll(self) -> None:
        every_s = self._generation.config.process.reload_poll_s
        if every_s is not None:
            self._due["poll"] = time.monotonic() + every_s

    # Children.

    def _start_workers(self, generation: Generation, previous: Generation | None) -> None:
        """Fork every worker of a generation and wait until all are ready.

        Raises:
            StartupError: one could not begin. The others of the generation have been ended.
        """
        started = [
            self._workforce.start(generation, slot, None if previous is None else previous.listeners)
            for slot in range(generation.slots)
        ]
        self._due["boot"] = deadline = time.monotonic() + BOOT_S
        while not all(child.is_ready for child in started):
            lost = [child for child in started if child.pid not in self._workforce.children]
            if lost or time.monotonic() > deadline:
                for child in started:
                    child.kill()
                why = lost[0].failure if lost else f"not ready within {BOOT_S:.0f} s"
                raise StartupError(f"a worker could not begin: {why or 'the reason stands above'}")
            self._step()
        self._due.pop("boot", None)

    def _on_worker_end(self, child: Child, how: str) -> None:
        if self._phase == "draining":
            self._cut += child.cut
        generation = self._generation
        if generation.workers.get(child.slot) is child:
            del generation.workers[child.slot]
            if self._phase == "ready":
                delay_s = self._workforce.backoff(child)
                self._row.cells[generation.schema.process.worker_restarts] += 1
                when = f"in {delay_s:.1f} s" if delay_s else "now"
                text = f"worker {child.pid} ended unexpectedly ({how}); its replacement starts {when}"
                self._log.message("error", "worker", text, pid=child.pid)
                self._due[f"worker {child.slot}"] = time.monotonic() + delay_s
        self._show()

    def _start_admin(self) -> None:
        generation = self._generation
        if generation.config.admin.listen is None:
            return
        self._rows.open_channels(2 * generation.slots + 2)
        self._log.flush()
        children = list(self._workforce.children.values())
        self._admin_pid = generation.start_admin(self._board, self._showing.blob, self._rows, self._log, children)
        self._show()

    def _on_admin_end(self, how: str) -> None:
        self._admin_pid = None
        if self._phase == "ready":
            self._log.message("error", "admin", f"the admin process ended ({how}); another one starts")
            self._due["admin"] = time.monotonic() + 1.0

    def _stop_admin(self) -> None:
        if self._admin_pid is not None:
            signal_process(self._admin_pid, signal.SIGTERM)
            self._admin_pid = None

    def _show(self) -> None:
        children = self._workforce.children.values()
        self._showing.show(self._generation, children, phase=self._phase, admin_pid=self._admin_pid)

    # Reload.

    def _reload(self) -> None:
        """Read everything again and use it, or change nothing. The service manager hears about it either way."""
        generation = self._generation
        self._notifier.reloading("reloading")
        self._poll.look()
        self._poll.settle()
        try:
            loaded = reload.load(generation.config, self._passphrases, generation.inventory.contexts)
            if loaded.config == generation.config:
                self._renew(loaded)
            else:
                self._replace(loaded)
        except TunnelError as exc:
            self._row.cells[generation.schema.process.reloads_failed] += 1
            self._showing.last_reload = ReloadState(at=time.time(), ok=False, errors=tuple(str(exc).splitlines()))
            for line in str(exc).splitlines():
                self._log.message("error", "reload", f"reload failed, nothing changed: {line}")
            self._notifier.ready(f"reload failed, still running the old configuration: {str(exc).splitlines()[0]}")
        else:
            process = self._generation.schema.process
            self._row.cells[process.reloads_ok] += 1
            self._row.floats[process.last_reload_success] = time.time()
            self._showing.last_reload = ReloadState(at=time.time(), ok=True)
            self._notifier.ready(self._showing.status_text(self._generation))
        self._show()

    def _renew(self, loaded: reload.Loaded) -> None:
        """New material for living workers. Replacements are forked from the contexts here, so these change too."""
        generation = self._generation
        for ours, fresh in zip(generation.inventory.contexts, loaded.inventory.contexts, strict=True):
            ours.adopt(fresh)
        generation.inventory = loaded.inventory.with_contexts(generation.inventory.contexts)
        generation.loaded_at = time.time()
        self._workforce.tell(Renew(loaded.inventory.materials), list(generation.workers.values()))
        for warning in loaded.inventory.warnings:
            self._log.message("warning", "config", warning)
        self._log.message("info", "reload", "reloaded certificates, keys, CAs and revocation lists")

    def _replace(self, loaded: reload.Loaded) -> None:
        """A new generation on the same sockets; the old one drains once the new one is ready."""
        old, config = self._generation, loaded.config
        if (config.process.user, config.process.group) != (old.config.process.user, old.config.process.group):
            raise StartupError("process.user and process.group cannot be reloaded; restart tlstunnel")
        slots = config.process.workers or usable_cores()
        listeners = open_listeners(config, slots, previous=old.listeners, owner=self._owner)
        number = old.number + 1
        try:
            schema = schema_for(config, extends=old.schema)
            self._board.grow(schema.layout)
            new = Generation(number, config, loaded.inventory, time.time(), listeners, schema, self._identity)
            self._start_workers(new, old)
        except TunnelError:
            old.listeners.retire(listeners)
            raise
        self._generation = new
        self._poll = reload.Poll(config)
        listeners.retire(old.listeners)
        leaving = list(old.workers.values())
        for child in leaving:
            child.is_draining = True
        self._workforce.tell(Drain(), leaving)
        if self._admin_pid is not None or config.admin.listen is not None:
            # Its schema and sockets are of the old generation.
            self._stop_admin()
            self._start_admin()
        for line in new.ready_lines():
            self._log.message("info", "reload", line.removeprefix("ready: "))
        self._log.message("info", "reload", f"reloaded {config.source}: generation {number}; the old one drains")

    # Stop.

    def _drain(self) -> None:
        """The first time: stop listening and let connections finish. The second time: cut them now."""
        if self._phase == "draining":
            self._log.message("warning", "stop", "told to stop again: cutting what is still open")
            self._workforce.tell(Drain(is_now=True))
            return
        self._phase = "draining"
        self._row.cells[self._generation.schema.process.draining] = 1
        self._show()
        self._notifier.stopping("draining")
        self._log.message("info", "stop", "draining: accepting nothing more, finishing what is open")
        self._workforce.tell(Drain())
        self._generation.listeners.close_services()
        self._due.pop("poll", None)
        if self._notifier.is_active:
            self._due["extend"] = time.monotonic()
