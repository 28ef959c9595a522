"""The supervisor's children: workers and the admin process, from fork to reaped.

A child inherits everything and keeps little. The first thing it does is undo what is the supervisor's: signal handlers,
the sockets of other slots, the channels of other workers, privileges. It never returns into the supervisor's code.

The supervisor never waits for a child. What it has to say goes as far as the channel takes it now, and the rest when
the channel is writable again (`Child.flush`): a worker that hangs must not make the supervisor hang with it, which
would keep it from noticing.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from tlstunnel.daemon.processes.messages import (
    MAX_REPORT,
    ChannelError,
    Order,
    Report,
    Unframer,
    order_bytes,
    parse_report,
)
from tlstunnel.daemon.processes.worker import EXIT_BOOT
from tlstunnel.errors import StartupError, TunnelError, words_of
from tlstunnel.observe.counters import Row

_PR_SET_PDEATHSIG = 1
# Terminals and service managers send these to the whole process group; for children they are the supervisor's business.
_NOT_THEIRS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


QUIET = 3
"""After so many unanswered pings, a second apart, a worker counts as not serving."""


@dataclass(slots=True, eq=False)
class Child:
    """A worker process. Fields are the supervisor's view of it."""

    pid: int
    slot: int
    generation: int
    row: Row
    channel: socket.socket
    started_at: float = field(default_factory=time.time)
    started: float = field(default_factory=time.monotonic)
    is_ready: bool = False
    is_draining: bool = False
    is_silent: bool = False
    """Its end of the channel was closed, or sent nonsense: it ends, or has to be ended."""
    cut: int | None = None
    """Connections it cut at the end of its drain, or took with it when it died; None until then."""
    ponged_at: float = field(default_factory=time.monotonic)
    unanswered: int = 0
    """Pings since its last answer, see `liveness`."""
    failure: str = ""
    """Why it ends, in its own words."""
    _unsent: bytearray = field(default_factory=bytearray)
    _unframer: Unframer = field(default_factory=lambda: Unframer(MAX_REPORT))

    @property
    def answers(self) -> bool:
        """Whether it has begun, and its loops turn."""
        return self.is_ready and self.unanswered < QUIET

    @property
    def has_unsent(self) -> bool:
        """Whether orders wait for the channel to be writable."""
        return bool(self._unsent)

    def send(self, order: Order) -> None:
        """Send the worker an order, without waiting for it."""
        self._unsent += order_bytes(order)
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the channel takes it."""
        try:
            while self._unsent:
                del self._unsent[: self.channel.send(self._unsent, socket.MSG_DONTWAIT)]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()  # it is dead: reaping follows

    def reports(self) -> list[Report]:
        """The worker's reports; call when its channel is readable. A worker that sends nonsense counts as silent."""
        try:
            data = self.channel.recv(65536, socket.MSG_DONTWAIT)
            self.is_silent = not data
            return [parse_report(payload) for payload in self._unframer.feed(data)]
        except BlockingIOError:
            return []
        except ConnectionError:
            self.is_silent = True
            return []
        except ChannelError:
            self.failure = "it sent the supervisor what no worker sends"
            self.is_silent = True
            return []

    def kill(self) -> None:
        """End it at once. Reaping follows."""
        signal_process(self.pid, signal.SIGKILL)


def signal_process(pid: int, number: int) -> None:
    """Send a signal to a child that may have ended already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def end_with_parent(parent: int) -> None:
    """In a child that has nothing to finish: be sent SIGTERM when the supervisor is gone, however it went."""
    # For good: to be called after privileges were dropped, which would reset it (prctl(2)).
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM))
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def fork(body: Callable[[], int]) -> int:
    """Fork a child that runs `body` and exits with what it returns. The child's pid, in the supervisor.

    An error the operator can mend ends the child with EXIT_BOOT and one line; any other is ours and shows its trace.

    Raises:
        StartupError: the machine has no room for another process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # The collector writes into the head of every object that it looks at, and so would copy every page that parent and
    # child share (10 MiB in each worker). Objects that exist now are frozen: their pages stay shared.
    gc.disable()
    gc.collect()
    gc.freeze()
    # Signals for the child wait until it has its own handlers: the supervisor's would only record them.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (*_NOT_THEIRS, signal.SIGTERM))
    try:
        pid = os.fork()
    except OSError as exc:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        reason = words_of(exc)
        raise StartupError(f"cannot start a process: {reason}; raise TasksMax= (or ulimit -u), or free memory") from exc
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return pid
    status = EXIT_BOOT
    try:
        gc.enable()
        signal.set_wakeup_fd(-1)
        for number in _NOT_THEIRS:
            signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        status = body()
    except TunnelError as exc:
        sys.stderr.write(f"tlstunnel: {exc}\n")
    except BaseException:  # noqa: BLE001 - nothing may unwind into the supervisor's code
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)
