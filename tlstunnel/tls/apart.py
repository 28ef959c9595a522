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
from collections.abc import Callable
from typing import TypeVar, cast

from tlstunnel.errors import StartupError, TunnelError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_INTERRUPTED = 128 + signal.SIGINT

_Found = TypeVar("_Found")


def apart(work: Callable[[], _Found]) -> _Found:
    """Call `work` in a child, and return here what it returned there.

    Raises:
        TunnelError: what `work` raised.
        KeyboardInterrupt: somebody pressed Ctrl-C where a passphrase was asked for.
    """
    answer, tell = os.pipe()
    # What comes for the child waits until our handlers are gone: they would note it, and nobody look.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    pid = os.fork()
    if pid == 0:
        _work_and_end(work, tell)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.close(tell)
    with open(answer, "rb") as file:
        data = file.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _INTERRUPTED:
        raise KeyboardInterrupt
    if not data:
        raise StartupError("the process that opens keys has ended without an answer; look for it in the kernel's log")
    is_good, found = pickle.loads(data)  # noqa: S301 - from a child of ours
    if not is_good:
        raise found
    return cast(_Found, found)


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
