"""What the limits are counted by: how many connections all workers have open together, and from whom.

A limit is a promise of the daemon, not of a process, so it is asked about over all workers, those of a generation that
drains included. What must hold, whatever dies when: never more than the limit, and nobody refused or kept waiting while
there is room.

Connections are counted in gauges of the worker's own row (`taken`). Only the owner writes a row, and the
supervisor clears it when the owner has died; the kernel had closed its connections by then. To find room and to take it
must be one step, so whoever wants some holds the lock: a record lock on a file without a name, which the kernel
releases when its holder dies, at whatever instruction. Giving a place back is a store and needs no lock.

Addresses are counted in a table of this module's own, for which the same is true:

    key      a service and an address; a set of WAYS entries is chosen by its hash, which nobody outside can foresee
    due      when the address is next due by its rate, in the time of time.monotonic (`Ledger.may`)
    counts   how many connections from there are open, in each row by its owner

An entry that nobody has open, and that its rate has forgiven, may be used for another key, so the table never fills by
time. It holds a quarter of a million; where a set is full, which takes a hundred thousand addresses at once, who comes
too late for it goes uncounted.

Whoever waits for room says so (`ask`), and is told through a descriptor that all workers watch (`tell`): an edge for
each of them at every write. The two stores, a place given back and a wish, may pass each other unseen in different
processors; so whoever waits looks for himself, too, a few times a second.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time

from tlstunnel.config.model import Rate
from tlstunnel.errors import StartupError, words_of
from tlstunnel.observe.counters import Counters

PER_CONNECTION = 2
"""Descriptors: the client's and the backend's."""
WAYS = 32
_SETS = 1 << 13
_ENTRIES = _SETS * WAYS
_KEY = struct.Struct("<QII")
"""The address, the service, the kind of address."""
_NO_KEY = bytes(_KEY.size)
_COUNT_BYTES = 4
_BUSY_S = 0.005
"""How long to try for the lock: whoever has it holds it for some ten microseconds, and may have lost the processor."""
_EXACT = 1e-9
"""Seconds by which sums of intervals may be wrong."""

Key = bytes


def key(service: int, kind: int, address: int) -> Key:
    """What is counted: an address (a number of up to 64 bits) of a kind, never 0, at a service."""
    return _KEY.pack(address, service, kind)


class Ledger:
    """Made by the supervisor before it forks.

    Args:
        counters: where connections are counted.

    Raises:
        StartupError: the machine has no room for it.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        try:
            self._lock = os.memfd_create("tlstunnel-lock")
            self.told = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            """Watched with EPOLLET by everybody, read by nobody."""
            self._memory = _map(mmap.PAGESIZE + _ENTRIES * (_KEY.size + 8) + counters.rows * _ENTRIES * _COUNT_BYTES)
        except OSError as exc:
            raise StartupError(f"cannot count connections: {words_of(exc)}") from exc
        view = memoryview(self._memory)
        keys, due = mmap.PAGESIZE, mmap.PAGESIZE + _ENTRIES * _KEY.size
        self._counts_at = due + _ENTRIES * 8
        self._asked = view[: mmap.PAGESIZE].cast("q")
        self._keys = view[keys:due]
        self._due = view[due : self._counts_at].cast("d")
        self._counts = view[self._counts_at :].cast("I")

    # The lock.

    def enter(self) -> bool:
        """Take the lock; False where somebody has it and does not go on, stopped perhaps."""
        until = 0.0
        while True:
            try:
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                now = time.monotonic()
                until = until or now + _BUSY_S
                if now >= until:
                    return False
                os.sched_yield()
            else:
                return True

    def leave(self) -> None:
        """Give the lock back."""
        fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def total(self, cell: int) -> int:
        """A cell of the counters, added up over all rows."""
        return self._counters.total(cell)

    # Who waits.

    def ask(self) -> None:
        """We want to be told when a place is free."""
        self._asked[0] = 1

    @property
    def is_asked(self) -> bool:
        """Whether somebody does."""
        return self._asked[0] != 0

    def tell(self) -> None:
        """A place is free: wake everybody who waits. Those who still find none ask again."""
        self._asked[0] = 0
        os.eventfd_write(self.told, 1)

    # Addresses. All but `forget` and `clear` are for whoever holds the lock.

    def find(self, wanted: Key, now: float) -> int | None:
        """The entry of a key, new if it has none; None where there is no room for one."""
        first = (hash(wanted) & (_SETS - 1)) * WAYS
        found = self._at(wanted, first)
        if found is None:
            found = self._at(_NO_KEY, first)
            if found is None:
                entries = range(first, first + WAYS)
                found = next((entry for entry in entries if self._due[entry] <= now and not self.count(entry)), None)
                if found is None:
                    return None
            self._due[found] = 0.0
            self._keys[found * _KEY.size : (found + 1) * _KEY.size] = wanted
        return found

    def _at(self, wanted: Key, first: int) -> int | None:
        size = _KEY.size
        block = bytes(self._keys[first * size : (first + WAYS) * size])
        at = block.find(wanted)
        while at > 0 and at % size:
            at = block.find(wanted, at + 1)
        return None if at < 0 else first + at // size

    def count(self, entry: int) -> int:
        """How many connections an entry has open, over all workers."""
        return sum(self._counts[entry : self._counters.rows_used * _ENTRIES : _ENTRIES])

    def note(self, entry: int, row: int) -> None:
        """One more, in this row."""
        self._counts[row * _ENTRIES + entry] += 1

    def forget(self, entry: int, row: int) -> None:
        """One less, in this row."""
        self._counts[row * _ENTRIES + entry] -= 1

    def may(self, entry: int, rate: Rate, now: float) -> bool:
        """Whether the rate allows one more now; if it does, this was one.

        An entry is due one interval after the last time, and may come early by a burst. One number tells it all, so a
        worker that dies here leaves nothing half done.
        """
        interval = rate.per_s / rate.count
        due = max(now, self._due[entry])
        if due - now > (rate.burst - 1) * interval + _EXACT:
            return False
        self._due[entry] = due + interval
        return True

    # For the supervisor.

    def clear(self, row: int) -> None:
        """The worker that counted in this row has ended, and has nothing open any more."""
        size = _ENTRIES * _COUNT_BYTES
        self._memory.madvise(mmap.MADV_REMOVE, self._counts_at + row * size, size)
        if self.is_asked:
            self.tell()


def _map(size: int) -> mmap.mmap:
    """Shared memory that takes room only where it is written to, and is not accounted for before."""
    fd = os.memfd_create("tlstunnel-limits")
    try:
        os.ftruncate(fd, size)
        return mmap.mmap(fd, size)
    finally:
        os.close(fd)
