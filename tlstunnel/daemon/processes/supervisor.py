"""The supervisor: binds, reads keys, forks workers, replaces them, reloads, drains. Relays and parses nothing.

Theory of operation. One loop over poll(2) waits for signals (through a wakeup descriptor), the workers' channels, and a
few timers (`events`). There are no threads and no event loop that a fork could break. Signal handlers only record the
signal; the loop acts on it, and nothing the loop does waits for a child. The state is one `Daemon`; the parts are:

    this module     start - wait until every worker is ready - serve - drain - end
    workforce       forks workers, reads their reports, reaps them
    reload          SIGHUP or the poll: new material for living workers, or a new generation beside the old one
    adminprocess    keeps the admin process alive
    liveness        replaces a child that does not answer, and notifies the service manager
    stapling        has OCSP responses for our certificates fetched, to staple

Phases go one way: starting, ready, draining, stopped. Nothing leaves draining but the end: reloads are over, dead
workers are not replaced, a second SIGTERM hastens.
"""

from __future__ import annotations

import math
import os
import select
import signal
import time
from collections.abc import Callable

from tlstunnel._version import VERSION
from tlstunnel.config.model import Config, TLSSettings
from tlstunnel.daemon.listen.activation import take_inherited
from tlstunnel.daemon.listen.binding import close_all
from tlstunnel.daemon.listen.sockets import open_listeners
from tlstunnel.daemon.ocsp.stapling import Stapling
from tlstunnel.daemon.processes import lost_lines
from tlstunnel.daemon.processes.adminprocess import AdminProcess, fork_early
from tlstunnel.daemon.processes.children import Child, signal_process
from tlstunnel.daemon.processes.events import Signals
from tlstunnel.daemon.processes.generation import Generation
from tlstunnel.daemon.processes.liveness import Liveness
from tlstunnel.daemon.processes.messages import Reopen, Report
from tlstunnel.daemon.processes.publish import Publisher, cut_text
from tlstunnel.daemon.processes.reload import ANSWER_S, Reloads
from tlstunnel.daemon.processes.reload_source import load_material
from tlstunnel.daemon.processes.rows import MAX_ROWS, Rows
from tlstunnel.daemon.processes.state import Daemon
from tlstunnel.daemon.processes.workforce import Workforce, how_it_ended
from tlstunnel.daemon.system import memory, privileges
from tlstunnel.daemon.system.limits import descriptor_budget, raise_descriptor_limit, usable_cores, workers_text
from tlstunnel.daemon.system.sdnotify import Notifier
from tlstunnel.errors import StartupError, TunnelError
from tlstunnel.observe.counters import SUPERVISOR_ROW, Counters
from tlstunnel.observe.log import open_log
from tlstunnel.observe.series import series_for
from tlstunnel.tls.context import check_settings
from tlstunnel.x509.passphrase import PassphraseSource

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
        with Signals() as signals:
            return _Supervisor(config, notifier, signals, on_ready, on_child_end).run()
    except TunnelError as exc:
        notifier.failed(str(exc).splitlines()[0])
        raise
    finally:
        notifier.close()


class _Supervisor:
    def __init__(
        self,
        config: Config,
        notifier: Notifier,
        signals: Signals,
        on_ready: OnReady | None,
        on_child_end: OnChildEnd | None,
    ) -> None:
        self._on_ready, self._on_child_end = on_ready, on_child_end
        inherited = take_inherited()
        passphrases = PassphraseSource.of_this_process(is_daemon=True)

        def let_go() -> None:
            signals.close()
            notifier.close()
            passphrases.close_in_child()
            for sockets in inherited.sockets.values():
                close_all(sockets)

        # The admin process is forked before this memory holds a key, and after what OpenSSL does once: a page that is
        # written to later is copied for each process that shared it.
        check_settings(TLSSettings())
        memory.trim_heap()
        waiting = fork_early(config, let_go)
        loaded = load_material(config, passphrases)
        # A reload asks for no passphrase: the daemon must not wait for somebody who types it.
        passphrases.prompt = None
        identity = privileges.resolve_identity(config.process.user, config.process.group)
        owner = None if identity is None else (identity.uid, identity.gid)
        slots = config.process.workers or usable_cores()
        limit = raise_descriptor_limit()
        listeners = open_listeners(config, slots, inherited=inherited, owner=owner)
        try:
            count = len(list(listeners))
            self._budget = descriptor_budget(config, limit=limit, listeners=count, workers=slots)
            log = open_log(config.log)
            if identity is not None:
                privileges.narrow()
        except TunnelError:
            listeners.close()
            raise
        series = series_for(config)
        counters = Counters(series.layout, MAX_ROWS)
        row = counters.row(SUPERVISOR_ROW)
        generation = Generation(
            1,
            config,
            loaded.inventory,
            time.time(),
            listeners,
            series,
            log,
            self._budget.connections_per_worker,
        )
        self._daemon = Daemon(
            generation=generation,
            inherited=inherited,
            identity=identity,
            passphrases=passphrases,
            rows=Rows(counters),
            row=row,
            publisher=Publisher(row),
            notifier=notifier,
            signals=signals,
        )
        self._workforce = Workforce(self._daemon, self._on_report, self._on_worker_end)
        self._admin = AdminProcess(self._daemon, counters, waiting)
        self._stapling = Stapling(self._daemon, self._workforce)
        self._reloads = Reloads(self._daemon, self._workforce, self._admin, self._stapling, counters, loaded.poll)
        self._liveness = Liveness(self._daemon, self._workforce, self._admin)
        self._failure: StartupError | None = None
        self._is_reload_wanted = False
        self._cut = 0

    # Life.

    def run(self) -> int:
        daemon = self._daemon
        try:
            self._start()
        except TunnelError:
            self._end_everybody()
            daemon.generation.listeners.close()
            raise
        if daemon.phase == "starting":
            self._begin_to_serve()
        while daemon.phase == "ready" or daemon.children:
            self._step()
        daemon.phase = "stopped"
        daemon.publish()
        self._end_everybody()
        daemon.generation.listeners.close_admin()
        lost_lines.report_stop(daemon, self._cut)
        return 1 if self._cut else 0

    def _start(self) -> None:
        """Fork everybody and wait until every worker is ready, or until a signal says that it is over already.

        Raises:
            StartupError: one could not begin.
        """
        daemon, generation = self._daemon, self._daemon.generation
        for warning in (*generation.inventory.warnings, *generation.listeners.warnings):
            daemon.log.message("warning", "config", warning)
        daemon.log.message("info", "start", f"tlstunnel {VERSION}: {workers_text(generation.slots)}")
        if (notice := self._budget.notice()) is not None:
            daemon.log.message("info", "start", notice)
        privileges.prepare(daemon.identity)
        memory.trim_heap()  # what importing and loading left behind would be copied into every child
        self._admin.start()
        self._stapling.adopt()
        for slot in range(generation.slots):
            self._workforce.start(generation, slot)
        daemon.timers.after(ANSWER_S, "boot", self._on_late_start)
        while daemon.phase == "starting" and not all(child.is_ready for child in daemon.children.values()):
            self._step()
            if self._failure is not None:
                raise self._failure
        daemon.timers.cancel("boot")

    def _begin_to_serve(self) -> None:
        daemon, generation = self._daemon, self._daemon.generation
        daemon.row.floats[generation.series.process.last_reload_success] = time.time()
        daemon.phase = "ready"
        daemon.publish()  # before it is announced, so that a reader of the line finds it true
        generation.announce()
        if generation.config.log.target != "stderr":
            for line in generation.ready_lines():  # for those who read the log alone
                daemon.log.message("info", "start", line)
        daemon.notifier.ready(daemon.status_text())
        if self._on_ready is not None:
            self._on_ready(generation.bound())
        self._tick()
        memory.trim()
        self._liveness.begin()
        self._reloads.watch()
        if self._is_reload_wanted:
            self._reloads.request()

    def _end_everybody(self) -> None:
        """End what is left, by force where it must be, and wait until it is gone."""
        daemon = self._daemon
        for child in daemon.children.values():
            child.kill()
        self._admin.stop()
        self._stapling.stop()
        while daemon.children or not (self._admin.is_gone and self._stapling.is_idle):
            self._step()

    # The loop.

    def _step(self) -> None:
        """Wait for the next thing to happen, and do what it asks for."""
        daemon = self._daemon
        poll = select.poll()
        poll.register(daemon.signals, select.POLLIN)
        by_fd = {child.channel.fileno(): child for child in daemon.children.values() if not child.is_silent}
        for fd, child in by_fd.items():
            poll.register(fd, select.POLLIN | (select.POLLOUT if child.has_unsent else 0))
        wait_s = daemon.timers.wait_s
        # Rounded up: to wake a moment too early would be to spin until it is time.
        for fd, events in poll.poll(None if wait_s is None else math.ceil(wait_s * 1000)):
            if fd in by_fd:
                if events & select.POLLOUT:
                    by_fd[fd].flush()
                if events & ~select.POLLOUT:
                    self._workforce.read_reports(by_fd[fd])
        for pid, status in self._workforce.reap():
            is_known = self._admin.handle_end(pid, how_it_ended(status)) or self._stapling.handle_end(pid, status)
            if not is_known and self._on_child_end is not None:
                self._on_child_end(pid, os.waitstatus_to_exitcode(status))
        for number in daemon.signals.read():
            self._obey(number)
        daemon.timers.run()

    def _obey(self, number: int) -> None:
        phase = self._daemon.phase
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            self._drain()
        elif number == signal.SIGUSR1:
            self._reopen_log()
        elif number == signal.SIGUSR2:
            text = "SIGUSR2 means nothing here; SIGHUP reloads, SIGUSR1 opens the log file again, SIGTERM drains"
            self._daemon.log.message("warning", "signal", text)
        elif number == signal.SIGHUP and phase == "ready":
            self._reloads.request()
        elif number == signal.SIGHUP and phase == "starting":
            self._is_reload_wanted = True

    def _reopen_log(self) -> None:
        daemon = self._daemon
        daemon.log.reopen()
        self._workforce.send(Reopen())
        if daemon.admin_pid is not None:
            signal_process(daemon.admin_pid, signal.SIGUSR1)

    def _tick(self) -> None:
        daemon = self._daemon
        daemon.log.count_on(daemon.row, daemon.generation.series.process)  # a reload may have brought another log
        daemon.log.tick()
        daemon.timers.after(1.0, "log", self._tick)

    # Workers.

    def _on_report(self, child: Child, _: Report) -> None:
        self._reloads.handle_report(child)

    def _on_worker_end(self, child: Child, how: str) -> None:
        daemon = self._daemon
        if daemon.phase == "starting":
            self._failure = StartupError(f"a worker could not begin: {how}")
            return
        if daemon.phase == "draining":
            self._cut += child.cut or 0
        elif child.is_draining and child.cut:
            text = f"{cut_text(child.cut)} at the end of the drain of generation {child.generation}"
            daemon.log.message("warning", "drain", text)
        self._reloads.handle_end(child, how)
        self._workforce.refill(child, how)
        daemon.publish()

    def _on_late_start(self) -> None:
        self._failure = StartupError(f"a worker could not begin: not ready within {ANSWER_S:.0f} s")

    # Stop.

    def _drain(self) -> None:
        """The first time: stop listening and let connections finish. The second time: cut them now."""
        daemon = self._daemon
        if daemon.phase == "draining":
            daemon.log.message("warning", "stop", "told to stop again: cutting what is still open")
            self._workforce.hasten()
            return
        if daemon.phase == "stopped":
            return
        if daemon.phase == "ready":
            self._reloads.abandon()
        daemon.phase = "draining"
        daemon.publish()  # readiness fails first
        daemon.generation.listeners.close_services()
        self._workforce.drain(daemon.generation)
        daemon.notifier.stopping("draining")
        daemon.log.message("info", "stop", "draining: accepting nothing more, finishing what is open")
        self._liveness.begin_drain()
