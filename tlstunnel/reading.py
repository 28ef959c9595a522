"""Files that somebody else names, read whole, within a bound of size and a bound of time.

Theory of operation. The name in a configuration or on a command line may lead to anything: a directory, a device
without an end, a disk image, a named pipe that nobody writes to. open(2) waits for ever for the writer of a pipe, and
read(2) fills the memory from a device. So a file is opened without waiting, looked at, and read as far as a bound.

Pipes are good for what should not lie on a disk: `--key <(pass show key)`. What is in a pipe is there once and can be
gone the next moment, so it is read to its end, within a time limit, and kept for whoever asks for the same pipe again:
two services may name it. `forget_pipes` ends that. After it such a pipe is refused, since it would give nothing.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PIPE_PATIENCE_S = 10.0
"""How long the writer of a pipe may take from our opening it to its end; a third of the units' WatchdogSec=."""

_CHUNK = 1 << 20
_RIGHT = "name a file"

_pipes: dict[tuple[int, int], int | None] = {}
"""Descriptors of anonymous files that hold what pipes have given, by device and inode; None for one whose content was
forgotten. It is moved there by the kernel: a passphrase among it is nowhere in our memory, and a process that we fork
to use it finds it there."""


class UnfitFileError(Exception):
    """What was named can be opened, and is no file to be read: the message says why, and what would be right.

    `is_machine` says that the name may be right, and somebody else has not done their part.
    """

    def __init__(self, what: str, *, is_machine: bool = False) -> None:
        self.is_machine = is_machine
        super().__init__(what)


@dataclass(frozen=True, slots=True)
class Content:
    """What a file held at one moment, and its mode (as in `st_mode`)."""

    data: bytes = field(repr=False)
    mode: int


def read_whole(path: Path, limit: int) -> Content:
    """Read a file or a pipe of at most `limit` bytes.

    Raises:
        OSError: it cannot be opened or read.
        ValueError: the path holds a NUL.
        UnfitFileError: it is no file and no pipe, is larger, or is a pipe whose writer does not come to an end.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            raise UnfitFileError(f"is a socket, or a device that is not there; {_RIGHT}") from exc
        raise
    try:
        found = os.fstat(fd)
        data = _from_pipe(fd, found, limit) if stat.S_ISFIFO(found.st_mode) else _from_file(fd, found.st_mode, limit)
    finally:
        os.close(fd)
    if len(data) > limit:
        raise UnfitFileError(_too_large(limit))
    return Content(data, found.st_mode)


def _too_large(limit: int) -> str:
    size = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
    return f"is larger than {size}; this cannot be the file that was meant"


def show_whole(path: Path, limit: int, show: Callable[[memoryview], None]) -> None:
    """Give `show` what a file of at most `limit` bytes holds, and keep nothing of it in memory.

    Raises:
        OSError, ValueError, UnfitFileError: as `read_whole`.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        found = os.fstat(fd)
        _require_regular(found.st_mode)
        data = bytearray(min(found.st_size, limit) + 1)
        try:
            size = 0
            while size < len(data) and (more := os.readv(fd, [memoryview(data)[size:]])):
                size += more
            if size == len(data):
                raise UnfitFileError("grows while it is read" if size <= limit else _too_large(limit))
            show(memoryview(data)[:size])
        finally:
            data[:] = bytes(len(data))
    finally:
        os.close(fd)


def is_pipe(path: Path) -> bool:
    """Whether the path leads to a pipe. It is not opened, since a writer would take that for a reader."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def require_file(path: Path) -> None:
    """Refuse what a library that opens files by their names could wait for: pipes and devices.

    Raises:
        OSError: there is nothing of that name.
        UnfitFileError: it is no regular file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise UnfitFileError("is not a regular file; name one")


def hold_pipe(path: Path, limit: int) -> None:
    """Take what a pipe gives without looking at it, for a process that is forked to use it; a file is left alone.

    Raises:
        UnfitFileError, OSError: as `read_whole`.
    """
    if is_pipe(path):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            _content_of_pipe(fd, os.fstat(fd), limit)
        finally:
            os.close(fd)


def forget_pipes() -> None:
    """Keep nothing of what pipes have given: there may be keys and passphrases among it."""
    for content in _pipes.values():
        if content is not None:
            os.close(content)
    _pipes.update(dict.fromkeys(_pipes))


def _require_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise UnfitFileError("is a directory; name a file in it")
    if not stat.S_ISREG(mode):
        raise UnfitFileError(f"is a device; {_RIGHT}")


def _from_file(fd: int, mode: int, limit: int) -> bytes:
    _require_regular(mode)
    chunks, left = [], limit + 1
    while left > 0 and (chunk := os.read(fd, min(left, _CHUNK))):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def _from_pipe(fd: int, found: os.stat_result, limit: int) -> bytes:
    return os.pread(_content_of_pipe(fd, found, limit), limit + 1, 0)


def _content_of_pipe(fd: int, found: os.stat_result, limit: int) -> int:
    known = _pipes.get((found.st_dev, found.st_ino), -1)
    if known is None:
        what = f"is a pipe, and was read to its end at the start; {_RIGHT}, or restart tlstunnel"
        raise UnfitFileError(what, is_machine=True)
    if known < 0:
        known = os.memfd_create("pipe", os.MFD_CLOEXEC)
        try:
            _drain(fd, known, limit)
        except BaseException:
            os.close(known)
            raise
        if os.fstat(known).st_size:
            _pipes[found.st_dev, found.st_ino] = known
    return known


def _drain(fd: int, into: int, limit: int) -> None:
    """Move everything up to the end of the last writer, and not much more than the limit.

    A pipe reads as ended while it has no writer: after all have gone, but also before one has come (pipe(7)).
    """
    size = 0
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + PIPE_PATIENCE_S
    had_writer = False
    while size <= limit:
        try:
            moved = os.splice(fd, into, min(limit + 1 - size, _CHUNK), flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            had_writer = True
        else:
            if moved:
                size += moved
                had_writer = True
                continue
            if had_writer:
                break
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        had_writer |= bool(ready)
        if not ready and time.monotonic() >= deadline:
            what = "whose writer does not come to an end" if had_writer else "that nobody writes to"
            what = f"is a pipe {what} within {PIPE_PATIENCE_S:.0f} s; start its writer first, or {_RIGHT}"
            raise UnfitFileError(what, is_machine=True)
