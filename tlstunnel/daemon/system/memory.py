"""Giving memory back to the machine: what glibc's malloc does not do by itself.

A bulk transfer's buffers are freed when its link is quiet, but glibc keeps them. So after links have slimmed the free
pages within the heap are returned. Measured: 149 KiB for an idle connection a minute after 64 MiB without this
(benchmarks: idle after bulk). To forbid glibc to take big blocks from its heap (M_MMAP_THRESHOLD) changes nothing more:
20 connections after 64 MiB each hold 106 KiB each with it and without it.
"""

from __future__ import annotations

import ctypes

_libc = ctypes.CDLL(None)


def give_back() -> None:
    """Return free pages to the machine: about a millisecond for each ten MiB of heap."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
