"""The admin process: forked before there are keys, begun anew when it dies or a reload changes what it shows."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

from tlstunnel.config.model import Config
from tlstunnel.daemon.processes.children import fork, signal_process
from tlstunnel.daemon.processes.state import Daemon
from tlstunnel.errors import StartupError, words_of
from tlstunnel.observe.counters import Counters

_AGAIN_S = 1.0
"""Delay before another one starts: at most one scrape is lost, and a crash loop costs little."""
_STOP_S = 2.0
"""How long it may take to end: it has only requests under way to answer."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An admin process that waits for its plan on the other end of a channel."""

    pid: int
    channel: socket.socket


def fork_early(config: Config, let_go: Callable[[], None]) -> Waiting | None:
    """Fork the first admin process, if there is to be one, before the first key is read.

    Its modules are imported first. Imported after the fork they would cost five times the memory, because importing
    writes to pages of older objects, which are then no longer shared.

    Args:
        let_go: in the child: close what is the supervisor's.

    Raises:
        StartupError: the machine has no room for another process.
    """
    if config.admin.listen is None:
        return None
    from tlstunnel.daemon.processes import adminmain  # noqa: PLC0415

    ours, theirs = _pair()

    def body() -> int:
        ours.close()
        let_go()
        return adminmain.live(theirs)

    return _forked(body, ours, theirs)


def _begin_anew() -> Waiting:
    ours, theirs = _pair()
    begin = "from tlstunnel.daemon.processes import adminmain; adminmain.main()"
    words = [sys.executable, "-P", "-c", begin, str(theirs.fileno())]

    def body() -> int:
        theirs.set_inheritable(True)  # all else of ours is closed by execve
        os.execve(words[0], words, os.environ)  # noqa: S606 - our own interpreter, no shell

    return _forked(body, ours, theirs)


def _pair() -> tuple[socket.socket, socket.socket]:
    try:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as exc:
        raise StartupError(f"cannot start the admin process: {words_of(exc)}") from exc


def _forked(body: Callable[[], int], ours: socket.socket, theirs: socket.socket) -> Waiting:
    try:
        return Waiting(fork(body), ours)
    except StartupError:
        ours.close()
        raise
    finally:
        theirs.close()


class AdminProcess:
    """Keeps one admin process alive while the configuration has an admin endpoint."""

    def __init__(self, daemon: Daemon, counters: Counters, waiting: Waiting | None) -> None:
        self._daemon = daemon
        self._counters = counters
        self._waiting = waiting
        self._leaving: set[int] = set()
        self._on_settled: Callable[[], None] | None = None
        self._beats = self._missed = 0

    @property
    def is_gone(self) -> bool:
        """Whether none is left, also of those told to end."""
        return self._daemon.admin_pid is None and not self._leaving

    def start(self) -> None:
        """Start one for the generation in use, if its configuration has an admin endpoint.

        Raises:
            StartupError: the machine has no room for another process.
        """
        daemon = self._daemon
        generation = daemon.generation
        if generation.config.admin.listen is None:
            return
        from tlstunnel.daemon.processes.adminmain import AdminPlan, send_plan  # noqa: PLC0415

        daemon.rows.open_channels(generation.slots + 2)
        waiting, self._waiting = self._waiting or _begin_anew(), None
        sockets = [sock.fileno() for listener in generation.listeners.admin for sock in listener.sockets]
        ends = daemon.rows.admin_ends
        plan = AdminPlan(
            admin=generation.config.admin,
            log=generation.config.log,
            series=generation.series,
            rows=self._counters.rows,
            sockets=len(sockets),
            channels=tuple(ends),
            identity=daemon.identity,
            supervisor_pid=os.getpid(),
        )
        daemon.admin_pid = waiting.pid
        try:
            fds = [self._counters.fd, daemon.publisher.blob.fd, *sockets, *(end.fileno() for end in ends.values())]
            send_plan(waiting.channel, plan, fds)
        except ConnectionError:
            pass  # it is dead: reaping follows
        finally:
            waiting.channel.close()
        daemon.publish()

    def replace(self) -> None:
        """After a reload: start another one for the new generation, which takes the socket over from the old one."""
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

    def check(self, hung: int) -> None:
        """Once a second: end one whose loop has not turned in so many checks. Another one follows."""
        daemon = self._daemon
        beats = daemon.publisher.blob.beats
        has_turned, self._beats = beats != self._beats, beats
        self._missed = 0 if has_turned or daemon.admin_pid is None else self._missed + 1
        if self._missed > hung and daemon.admin_pid is not None:
            self._missed = 0
            daemon.log.message("error", "admin", f"the admin process has not answered for {hung} s and is replaced")
            signal_process(daemon.admin_pid, signal.SIGKILL)

    def when_settled(self, then: Callable[[], None]) -> None:
        """Call back once no process of an earlier generation answers any more; at once if there is none."""
        if self._leaving:
            self._on_settled = then
        else:
            then()

    def handle_end(self, pid: int, how: str) -> bool:
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
        daemon.publish()
        return True

    def _start_again(self) -> None:
        try:
            self.start()
        except StartupError as exc:
            self._daemon.log.message("error", "admin", f"no admin process: {exc}")
            self._daemon.timers.after(_AGAIN_S, "admin", self._start_again)
