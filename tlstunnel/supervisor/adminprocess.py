"""The admin process: forked like a worker, replaced when it dies or when a reload gives it other things to show."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from tlstunnel.errors import StartupError
from tlstunnel.observe.board import Board
from tlstunnel.supervisor import privileges
from tlstunnel.supervisor.children import end_with_parent, fork, signal_process
from tlstunnel.supervisor.daemon import Daemon

_AGAIN_S = 1.0
"""Between its death and the next one: nobody loses more than a scrape by it, and a crash loop costs little."""
_STOP_S = 2.0
"""How long it may take to end. It has no promises to keep that would take longer."""


class AdminProcess:
    """Keeps one admin process alive while the configuration has an admin endpoint."""

    def __init__(self, daemon: Daemon, board: Board) -> None:
        self._daemon = daemon
        self._board = board
        self._leaving: set[int] = set()
        self._on_settled: Callable[[], None] | None = None
        self._beats = self._missed = 0

    @property
    def is_gone(self) -> bool:
        """Whether none is left, also of those told to end."""
        return self._daemon.admin_pid is None and not self._leaving

    def preload(self) -> None:
        """Import here what it needs, if there will be one.

        Imported after the fork the same modules would cost five times the memory: less for themselves than for the
        pages of everything older that importing writes to, and which are then no longer shared.
        """
        if self._daemon.generation.config.admin.listen is not None:
            import tlstunnel.observe.admin.process  # noqa: F401, PLC0415

    def start(self) -> None:
        """Fork one, if there is to be one.

        Raises:
            StartupError: the machine has no room for another process.
        """
        daemon = self._daemon
        generation = daemon.generation
        if generation.config.admin.listen is None:
            return
        self.preload()
        daemon.rows.open_channels(generation.slots + 2)
        generation.log.flush()
        others = daemon.other_listeners(generation)
        supervisor_pid = os.getpid()

        def body() -> int:
            from tlstunnel.observe.admin.process import run_admin  # noqa: PLC0415
            from tlstunnel.observe.admin.routes import AdminSources  # noqa: PLC0415

            daemon.close_in_child(is_admin=True)
            sockets = generation.listeners.keep_admin(but=others)
            privileges.become(daemon.identity)
            end_with_parent(supervisor_pid)
            sources = AdminSources(
                board=self._board,
                schema=generation.schema,
                state=daemon.showing.blob,
                channels=dict(daemon.rows.admin_ends),
                log=generation.log,
                supervisor_pid=supervisor_pid,
            )
            run_admin(sources, sockets, generation.admin_tls)
            return 0

        daemon.admin_pid = fork(body)
        daemon.show()

    def replace(self) -> None:
        """After a reload: another one, which shows the new generation, takes over its socket from the old one."""
        self.stop()
        self._start_again()

    def stop(self) -> None:
        """Tell it to end."""
        pid, self._daemon.admin_pid = self._daemon.admin_pid, None
        self._daemon.timers.cancel("admin")
        if pid is not None:
            self._leaving.add(pid)
            signal_process(pid, signal.SIGTERM)
            self._daemon.timers.after(_STOP_S, f"admin {pid}", lambda: signal_process(pid, signal.SIGKILL))

    def look(self, hung: int) -> None:
        """Once a second: end one whose loop has not turned in so many looks. Another one follows."""
        daemon = self._daemon
        beats = daemon.showing.blob.beats
        has_turned, self._beats = beats != self._beats, beats
        self._missed = 0 if has_turned or daemon.admin_pid is None else self._missed + 1
        if self._missed > hung and daemon.admin_pid is not None:
            self._missed = 0
            daemon.log.message("error", "admin", f"the admin process has not answered for {hung} s and is replaced")
            signal_process(daemon.admin_pid, signal.SIGKILL)

    def when_settled(self, then: Callable[[], None]) -> None:
        """Call back once nobody answers for an earlier generation any more; at once if nobody does."""
        if self._leaving:
            self._on_settled = then
        else:
            then()

    def note_end(self, pid: int, how: str) -> bool:
        """A child that is no worker has ended; whether it was one of ours."""
        daemon = self._daemon
        if pid in self._leaving:
            self._leaving.discard(pid)
            daemon.timers.cancel(f"admin {pid}")
            if self._on_settled is not None and not self._leaving:
                then, self._on_settled = self._on_settled, None
                then()
            return True
        if pid != daemon.admin_pid:
            return False
        daemon.admin_pid = None
        if daemon.phase == "starting":
            return True
        daemon.log.message("error", "admin", f"the admin process ended ({how}); another one starts")
        daemon.timers.after(_AGAIN_S, "admin", self._start_again)
        daemon.show()
        return True

    def _start_again(self) -> None:
        try:
            self.start()
        except StartupError as exc:
            self._daemon.log.message("error", "admin", f"no admin process: {exc}")
            self._daemon.timers.after(_AGAIN_S, "admin", self._start_again)
