"""A folder for the time of a measurement."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """A new folder, removed when the block is left, however it is left.

    Signals wait until its removal is sure: one that came while it was being made would leave it behind.
    """
    with contextlib.ExitStack() as stack:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tlstunnel-bench-"))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield Path(folder)
