"""What wakes the supervisor's loop besides its children: signals and timers.

A handler only records a signal; the loop waits for a readable descriptor and acts on what was recorded. A timer is one
of a handful of named appointments, which the same loop serves.
"""

from __future__ import annotations

import contextlib
import math
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from types import FrameType

from tlstunnel.patience import Patience

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def hold_signals() -> None:
    """From now on none of them changes how this process ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)


class Signals:
    """While it is entered, signals only wake the loop.

    Leaving gives the descriptors back. The handlers stay: a signal that comes while the process ends must not change
    how it ends.
    """

    def __init__(self) -> None:
        self._pending: deque[int] = deque()
        self._wakeup, self._wakeup_write = socket.socketpair()
        self._wakeup.setblocking(False)
        self._wakeup_write.setblocking(False)

    def __enter__(self) -> Signals:
        # A full buffer is no loss: it wakes the loop, which is all it is for.
        signal.set_wakeup_fd(self._wakeup_write.fileno(), warn_on_full_buffer=False)
        for number in (*_HANDLED, signal.SIGCHLD):
            signal.signal(number, self._record)
        # The command's entry point holds them back until somebody knows what they mean: those that waited come now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        self.close()

    def close(self) -> None:
        """Close the descriptors; also in a forked child, which has no use for them."""
        self._wakeup.close()
        self._wakeup_write.close()

    def fileno(self) -> int:
        """Readable after a signal."""
        return self._wakeup.fileno()

    def read(self) -> list[int]:
        """The signals since the last time, in order. SIGCHLD, which says nothing that waitpid does not, is left out."""
        with contextlib.suppress(BlockingIOError):
            while self._wakeup.recv(4096):
                pass
        found = []
        while self._pending:
            found.append(self._pending.popleft())
        return found

    def _record(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._pending.append(number)


class Timers:
    """Appointments by name; making one again moves it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._patience = Patience()
        self._due: dict[str, tuple[float, Callable[[], None]]] = {}

    def _now(self) -> float:
        return self._patience.look(self._clock())

    def after(self, delay_s: float, name: str, action: Callable[[], None]) -> None:
        """Call `action` once, when `delay_s` have passed; never, when that is infinite."""
        self.cancel(name)
        if delay_s < math.inf:
            self._due[name] = (self._now() + delay_s, action)

    def cancel(self, name: str) -> None:
        """Forget an appointment, if there is one of this name."""
        self._due.pop(name, None)

    @property
    def wait_s(self) -> float | None:
        """Seconds until something is due; None when nothing ever is. Ask only to wait for just that long."""
        if not self._due:
            self._patience.sleep_until(math.inf)
            return None
        first, now = min(when for when, _ in self._due.values()), self._now()
        self._patience.sleep_until(max(now, first))
        return max(0.0, first - now)

    def run(self) -> None:
        """Do what is due. What that makes due at once waits for the next time."""
        now = self._now()
        for name, (when, action) in list(self._due.items()):
            # An action may have cancelled or moved the ones after it.
            if when <= now and self._due.get(name) == (when, action):
                del self._due[name]
                action()
