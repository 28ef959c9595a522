"""Work that needs a passphrase, done in a process that ends with it.

Theory of operation. A daemon forks workers from its own memory, and what was once in there cannot be wiped reliably:
the interpreter copies, libraries copy, and freed memory keeps what it held. So the supervisor never has a passphrase in
its memory. Wherever one may be needed a child is forked that reads it, opens the key, and sends back what became of it;
the child's memory goes with the child.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

from tlstunnel.errors import StartupError, TunnelError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
_INTERRUPTED = 128 + signal.SIGINT

_Found = TypeVar("_Found")


def apart(work: Callable[[], _Found], *, may_ask: bool = False) -> _Found:
    """Call `work` in a child, and return here what it returned there.

    Args:
        may_ask: whether `work` may wait for a person, so that a signal that ends us has to end the child first.

    Raises:
        TunnelError: what `work` raised.
        SystemExit: a signal ended it while it asked: with 0 for SIGTERM, as at any moment of a start, else with 128 and
            the signal's number.
    """
    answer, tell = os.pipe()
    # What comes for the child waits until our handlers are gone: they would note it, and nobody look.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    pid = os.fork()
    if pid == 0:
        _work_and_end(work, tell)
    os.close(tell)
    with _passing_on(pid) if may_ask else contextlib.nullcontext(), open(answer, "rb") as file:
        signal.pthread_sigmask(signal.SIG_UNBLOCK if may_ask else signal.SIG_SETMASK, _SIGNALS if may_ask else mask)
        data = file.read()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    _, status = os.waitpid(pid, 0)
    if not data and may_ask:
        ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status) - 128
        if ended_by in _SIGNALS:
            sys.exit(0 if ended_by == signal.SIGTERM else 128 + ended_by)
    if not data:
        raise StartupError("the process that opens keys has ended without an answer; look for it in the kernel's log")
    is_good, found = pickle.loads(data)  # noqa: S301 - from a child of ours
    if not is_good:
        raise found
    return cast(_Found, found)


@contextlib.contextmanager
def _passing_on(pid: int) -> Iterator[None]:
    """Let the child have the signals that would end us."""

    def pass_on(number: int, _frame: object) -> None:
        os.kill(pid, number)

    before = {number: signal.signal(number, pass_on) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _work_and_end(work: Callable[[], object], tell: int) -> None:
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # so that a terminal gets its echo back
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        try:
            outcome = (True, work())
        except TunnelError as exc:
            outcome = (False, exc)
        with open(tell, "wb") as file:
            pickle.dump(outcome, file)
        status = 0
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except BaseException as exc:  # noqa: BLE001 - nothing may unwind into the parent's code, and no trace shows a secret
        with contextlib.suppress(OSError), open(tell, "wb") as file:
            what = f"an error of ours, {type(exc).__name__}, while a key was opened; please report it"
            pickle.dump((False, StartupError(what)), file)
    finally:
        os._exit(status)
