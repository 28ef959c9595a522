"""The supervisor's signals: noted by handlers, waited for as a readable descriptor, acted on by the loop."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections import deque
from types import FrameType

_NOTED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def hold() -> None:
    """From now on none of them changes how this process ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _NOTED)


class Signals:
    """While it is entered, signals only wake the loop.

    Leaving gives the descriptors back. The handlers stay: a signal that comes while the process ends must not change
    how it ends.
    """

    def __init__(self) -> None:
        self._noted: deque[int] = deque()
        self._wakeup, self._wakeup_write = socket.socketpair()
        self._wakeup.setblocking(False)
        self._wakeup_write.setblocking(False)

    def __enter__(self) -> Signals:
        # A full buffer is no loss: it wakes the loop, which is all it is for.
        signal.set_wakeup_fd(self._wakeup_write.fileno(), warn_on_full_buffer=False)
        for number in (*_NOTED, signal.SIGCHLD):
            signal.signal(number, self._note)
        # The command's entry point holds them back until somebody knows what they mean: those that waited come now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _NOTED)
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

    def take(self) -> list[int]:
        """The signals since the last time, in order. SIGCHLD, which says nothing that waitpid does not, is left out."""
        with contextlib.suppress(BlockingIOError):
            while self._wakeup.recv(4096):
                pass
        taken = []
        while self._noted:
            taken.append(self._noted.popleft())
        return taken

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._noted.append(number)
