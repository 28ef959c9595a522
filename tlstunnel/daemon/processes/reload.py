"""Reloads: begun, waited for, finished; one at a time, while the daemon serves.

Theory of operation. Everything that can fail is done before anything is changed: reading, judging, binding. The workers
then take their own time, and the supervisor's loop goes on meanwhile:

    IDLE --same configuration--> RENEWING --every worker uses the new material--> PUBLISHING
    IDLE --another one--> ARRIVING --every new worker is ready--> PUBLISHING, and the old generation drains
                                   --one could not begin, or time is up--> IDLE, and nothing has changed
    PUBLISHING --the admin process with the old state has ended--> IDLE

A request during a reload is kept and makes another one afterwards, so what was written last is always used; a hundred
requests in a row may make fewer reloads. The service manager is notified of the beginning and of the end, good or bad.
It has no word for a reload that failed, so the status, the log and the metrics say so.

New material must hold in every worker, because it may be a revocation: a worker that does not take it in time is ended,
and its replacement starts with it.
"""

from __future__ import annotations

import gc
import math
import time
import traceback
from collections.abc import Callable
from enum import Enum

from tlstunnel.config.model import Config
from tlstunnel.daemon.listen.sockets import open_listeners
from tlstunnel.daemon.ocsp.stapling import Stapling
from tlstunnel.daemon.processes.adminprocess import AdminProcess
from tlstunnel.daemon.processes.children import Child
from tlstunnel.daemon.processes.generation import Generation
from tlstunnel.daemon.processes.messages import Renew
from tlstunnel.daemon.processes.reload_source import Loaded, Poll, load_config, load_material
from tlstunnel.daemon.processes.state import Daemon
from tlstunnel.daemon.processes.workforce import Workforce
from tlstunnel.daemon.system import memory
from tlstunnel.daemon.system.limits import descriptor_budget, raise_descriptor_limit, usable_cores
from tlstunnel.errors import StartupError, TunnelError
from tlstunnel.observe.counters import Counters
from tlstunnel.observe.log import open_log
from tlstunnel.observe.series import series_for
from tlstunnel.observe.state import ReloadState

ANSWER_S = 20.0
"""How long workers may take to begin, or to take new material."""
SETTLE_S = 1.0
"""Between two looks at files that are changing."""
DOUBT_S = 10.0
"""How long files that changed may be unusable, a certificate still without its key, before that is called a failure."""


class State(Enum):
    """What is under way."""

    IDLE = "idle"
    RENEWING = "renewing"
    ARRIVING = "arriving"
    PUBLISHING = "publishing"


class Reloads:
    """Reloads a daemon that is ready."""

    def __init__(
        self,
        daemon: Daemon,
        workforce: Workforce,
        admin: AdminProcess,
        stapling: Stapling,
        counters: Counters,
        poll: Poll,
    ) -> None:
        self._daemon, self._workforce, self._admin, self._counters = daemon, workforce, admin, counters
        self._stapling = stapling
        self._poll = self._arriving_poll = poll
        self._state = State.IDLE
        self._awaited: set[Child] = set()
        self._is_wanted_again = False

    # What makes one begin.

    def request(self) -> None:
        """SIGHUP: read everything again and use it, or change nothing."""
        if self._state is not State.IDLE:
            self._is_wanted_again = True
            return
        daemon = self._daemon
        daemon.notifier.reloading("reloading")
        self._poll.check()
        self._attempt(self._load_and_use)

    def watch(self) -> None:
        """Look at the files now and then, from now on."""
        every_s = self._daemon.generation.config.process.reload_poll_s
        is_soon = self._poll.is_unsure and every_s < math.inf
        delay_s = min(SETTLE_S, every_s) if is_soon else every_s
        self._daemon.timers.after(delay_s, "poll", self._check_files)

    def abandon(self) -> None:
        """The daemon drains: give up what is under way."""
        self._daemon.timers.cancel("poll")
        self._is_wanted_again = False
        if self._state is State.ARRIVING:
            self._dismiss()
        self._finish()

    def _check_files(self) -> None:
        """Certificates and keys may have changed. The configuration is read again on SIGHUP only."""
        if self._state is State.IDLE and self._poll.check():
            self._attempt(self._use_changed_files)
        self.watch()

    def _use_changed_files(self) -> None:
        daemon = self._daemon
        try:
            loaded = self._load(daemon.generation.config)
        except TunnelError as exc:
            if self._poll.doubt(DOUBT_S):
                text = f"files have changed and cannot be used yet: {str(exc).splitlines()[0]}"
                daemon.log.message("info", "reload", text)
                return
            raise
        daemon.notifier.reloading("reloading")
        self._renew(loaded)

    def _load(self, config: Config) -> Loaded:
        generation = self._daemon.generation
        return load_material(config, self._daemon.passphrases, generation.config, generation.inventory.contexts)

    def _load_and_use(self) -> None:
        current = self._daemon.generation.config
        config = load_config(current)
        loaded = self._load(config)
        if config == current:
            self._renew(loaded)
        else:
            self._replace(loaded)

    def _attempt(self, work: Callable[[], None]) -> None:
        """Do the part of a reload that can fail; if it does, the daemon goes on as before."""
        try:
            work()
        except TunnelError as exc:
            self._poll.settle()
            self._fail(exc)
        except Exception as exc:  # noqa: BLE001 - the one place: our own bug ends a reload, not the daemon
            self._poll.settle()
            if self._state is State.ARRIVING:
                self._dismiss()
            text = "an error of ours ended a reload; please report it"
            self._daemon.log.message("error", "crash", text, traceback="".join(traceback.format_exception(exc)))
            self._fail(StartupError(f"an error of ours, {type(exc).__name__}; the log has it, please report it"))

    # What it does.

    def _renew(self, loaded: Loaded) -> None:
        """New material for living workers. Replacements are forked from the contexts here, so these change too."""
        generation = self._daemon.generation
        for ours, fresh in zip(generation.inventory.contexts, loaded.inventory.contexts, strict=True):
            ours.adopt(fresh)
        is_admin_new = loaded.inventory.admin != generation.inventory.admin
        generation.inventory = loaded.inventory.with_contexts(generation.inventory.contexts)
        generation.loaded_at = time.time()
        self._poll = loaded.poll
        workers = list(generation.workers.values())
        self._workforce.send(Renew(loaded.inventory.materials), workers)
        self._await(State.RENEWING, workers)
        if is_admin_new:
            self._admin.replace()
        for warning in loaded.inventory.warnings:
            self._daemon.log.message("warning", "config", warning)
        self._go_on()

    def _replace(self, loaded: Loaded) -> None:
        """A new generation on the same sockets."""
        daemon, config = self._daemon, loaded.config
        old = daemon.generation
        if (config.process.user, config.process.group) != (old.config.process.user, old.config.process.group):
            raise StartupError("process.user and process.group cannot be reloaded; restart tlstunnel")
        slots = config.process.workers or usable_cores()
        listeners = open_listeners(
            config, slots, inherited=daemon.inherited, previous=old.listeners, owner=daemon.owner
        )
        try:
            count = len(list(listeners))
            budget = descriptor_budget(config, limit=raise_descriptor_limit(), listeners=count, workers=slots)
            series = series_for(config, extends=old.series)
            self._counters.grow(series.layout)
            log = old.log if config.log == old.config.log else open_log(config.log)
        except TunnelError:
            old.listeners.retire(listeners)
            raise
        daemon.arriving = Generation(
            old.number + 1,
            config,
            loaded.inventory,
            time.time(),
            listeners,
            series,
            log,
            budget.connections_per_worker,
        )
        self._arriving_poll = loaded.poll
        self._await(State.ARRIVING, [])
        try:
            for slot in range(slots):
                self._awaited.add(self._workforce.start(daemon.arriving, slot))
        except StartupError:
            self._dismiss()
            raise
        for warning in (*loaded.inventory.warnings, *listeners.warnings):
            daemon.log.message("warning", "config", warning)

    def _take_over(self) -> None:
        """The new generation is ready: it is the one from now on, and the old one drains."""
        daemon, old = self._daemon, self._daemon.generation
        new = daemon.arriving
        assert new is not None  # noqa: S101 - that is what ARRIVING says
        daemon.generation, daemon.arriving = new, None
        self._poll = self._arriving_poll
        new.listeners.retire(old.listeners)
        self._workforce.drain(old)
        self._admin.replace()
        if new.log is not old.log:
            old.log.close()  # our copy: the old workers have their own
        for line in new.ready_lines():
            daemon.log.message("info", "reload", line.removeprefix("ready: "))

    def _dismiss(self) -> None:
        """Give the new generation up: end its workers, close what only it has."""
        daemon, current = self._daemon, self._daemon.generation
        new, daemon.arriving = daemon.arriving, None
        assert new is not None  # noqa: S101 - that is what ARRIVING says
        for child in new.workers.values():
            child.kill()
        current.listeners.retire(new.listeners)
        if new.log is not current.log:
            new.log.close()

    # How it goes on.

    def handle_report(self, child: Child) -> None:
        """A worker has reported that it is ready, or that it uses the new material."""
        self._awaited.discard(child)
        self._go_on()

    def handle_end(self, child: Child, how: str) -> None:
        """A worker has ended."""
        if child not in self._awaited:
            return
        if self._state is State.ARRIVING:
            self._dismiss()
            self._fail(StartupError(f"a new worker could not begin: {how}"))
        else:
            self.handle_report(child)  # its replacement starts with the new material

    def _await(self, state: State, children: list[Child]) -> None:
        self._state, self._awaited = state, set(children)
        self._daemon.timers.after(ANSWER_S, "reload", self._late)

    def _go_on(self) -> None:
        if self._awaited or self._state in (State.IDLE, State.PUBLISHING):
            return
        if self._state is State.ARRIVING:
            self._take_over()
            what = f"reloaded {self._daemon.generation.config.source}: generation {self._daemon.generation.number}"
        else:
            what = "reloaded certificates, keys, CAs and revocation lists"
        self._succeed(what)

    def _late(self) -> None:
        if self._state is State.ARRIVING:
            self._dismiss()
            self._fail(StartupError(f"new workers were not ready within {ANSWER_S:.0f} s"))
            return
        for child in self._awaited:
            text = f"worker {child.pid} has not taken the new certificates within {ANSWER_S:.0f} s and is replaced"
            self._daemon.log.message("error", "worker", text, pid=child.pid)
            child.kill()

    # How it ends: counters and state are set first, then it is logged and notified, so a reader finds what it was told.

    def _succeed(self, what: str) -> None:
        self._state = State.PUBLISHING
        self._daemon.timers.cancel("reload")
        self._admin.when_settled(lambda: self._publish(what))

    def _publish(self, what: str) -> None:
        if self._state is not State.PUBLISHING:
            return  # the daemon drains meanwhile
        daemon = self._daemon
        daemon.row.floats[daemon.generation.series.process.last_reload_success] = time.time()
        self._record(ReloadState(at=time.time(), ok=True))
        self._stapling.adopt()
        self._finish()
        daemon.log.message("info", "reload", what)
        daemon.notifier.ready(daemon.status_text())

    def _fail(self, error: TunnelError) -> None:
        lines = str(error).splitlines()
        self._record(ReloadState(at=time.time(), ok=False, errors=tuple(lines)))
        self._finish()
        for line in lines:
            self._daemon.log.message("error", "reload", f"reload failed, nothing changed: {line}")
        # The manager has no word for a reload that failed: it is over, and the status says how.
        self._daemon.notifier.ready(f"reload failed, still running the old configuration: {lines[0]}")

    def _record(self, result: ReloadState) -> None:
        daemon = self._daemon
        daemon.row.counters[daemon.generation.series.process.reloads["success" if result.ok else "failure"]] += 1
        daemon.publisher.last_reload = result

    def _finish(self) -> None:
        gc.collect()  # the collector is off in the supervisor, see children.fork
        memory.trim()
        self._state = State.IDLE
        self._awaited = set()
        self._daemon.timers.cancel("reload")
        if self._is_wanted_again:
            self._is_wanted_again = False
            self._daemon.timers.after(0.0, "reload again", self.request)
        if self._daemon.phase == "ready":
            self.watch()
        self._daemon.publish()
