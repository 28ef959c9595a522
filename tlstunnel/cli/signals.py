"""What a signal does to a command, from its first moment to its last.

Theory of operation. Signals are held back (blocked) from the entry point on, so that an early one waits for somebody
who knows what to do with it. Who that is depends on the command:

    a daemon        keeps them held, also through the execve that gives it an interpreter of its own, until the
                    supervisor's handlers stand (`daemon.processes.events`): SIGTERM and SIGINT then drain,
                    SIGHUP reloads, SIGUSR1 reopens the log, as they would have later
    any other       lets them go once its module is imported: each ends it, by KeyboardInterrupt, which `finally` and
                    `with` clean up after

Python runs a signal's handler between any two instructions of the main thread. If these belong to something that
cannot raise (a `__del__`, a callback of a weak reference, of ctypes or of cffi), the KeyboardInterrupt is printed and
forgotten, and the command would go on as if nobody had asked. It is then raised once more, a moment later. A library
may also take it for an error of its own ("the signature is wrong"); so it is noted, and what a command says of errors
afterwards is not believed.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_HELD = (*_ENDING, signal.SIGQUIT, signal.SIGUSR2, signal.SIGALRM)
_AGAIN_S = 0.01

DAEMONS = frozenset({"server", "client", "run", "demo", "echo"})
"""Commands that go on and fork."""


class _State:
    """Of this process. Tests call commands without their entry point: then nothing is held and nothing is changed."""

    is_held = False
    ended_by: int | None = None


def hold() -> None:
    """Let signals wait."""
    _State.is_held = True
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


def release() -> None:
    """From now on signals end this command, those that waited first."""
    if not _State.is_held:
        return
    sys.unraisablehook = _note_unraisable
    signal.signal(signal.SIGALRM, _end_again)
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and its like have them ignored
            signal.signal(number, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


def die_at_once() -> None:
    """From now on each of them ends this process without another word, as if Python had no handlers."""
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def has_ended() -> bool:
    """Whether a signal has told this command to end."""
    return _State.ended_by is not None


def status() -> int:
    """The exit code of a command that a signal has ended, as shells say it."""
    return 128 + (_State.ended_by or signal.SIGINT)


def _end(number: int, _frame: FrameType | None) -> None:
    _State.ended_by = number
    raise KeyboardInterrupt


def _end_again(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _note_unraisable(unraisable: Any) -> None:
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
    else:
        sys.__unraisablehook__(unraisable)
